//! Assigns virtual channels to data nodes and moves them.
//!
//! A round looks at all channels, decides and proposes; what it remembers is only for how long things
//! have been as they are. A new leader begins these times anew and needs nothing else.

mod balance;
mod patience;
mod plan;
mod rates;
mod seen;
mod silent;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::milvus::common::KeyDataPair;
use proto::quorate::channel_command::Kind;
use proto::quorate::{AdoptChannels, ChannelMove, CollectionStart, DrainNode, MoveChannels};
use statemachine::State;
use statemachine::coordinator::Refusal;
use statemachine::view::{Area, CollectionId, Name, ServerId};
use tokio::time::Instant;

use crate::coordinator::driver::Duty;
use crate::coordinator::flush_channels::flush_channels;
use crate::coordinator::{Failure, Lead};
use crate::tasks;
use plan::{Memory, Plan, Step};
use rates::Rates;
use seen::{Seen, SeenChannel};
use silent::Silent;

/// Acknowledgements come one by one; those of a moment are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// Moves of one command: each of them may carry the lists of a thousand segments.
const MOVES_MAX: usize = 500;

#[derive(Default)]
pub(super) struct Channels {
    memory: Memory,
    rates: Rates,
    silent: Silent,
    last_round: Option<Instant>,
}

impl Duty for Channels {
    const NAME: &'static str = "duty-channels";
    // Not of assignments: checkpoints belong to them, and every command changes a watch key, too.
    const AREAS: &'static [Area] = &[Area::Session, Area::Channel];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        if let Some(last) = self.last_round {
            tokio::time::sleep_until(last + GATHER).await;
        }
        self.last_round = Some(Instant::now());
        let seen = lead.local().read(|state| Seen::of(state, &lead.observed));
        let now = Instant::now().into_std();
        let rates = self.rates.take(now, || {
            let rows = |channel: &SeenChannel| {
                let (rows, _) = lead.observed.channel_load(&channel.channel)?;
                Some((channel.channel.clone(), rows))
            };
            seen.channels.iter().filter_map(rows).collect()
        });
        let tick_age = |channel: &str| Some(lead.observed.channel_load(channel)?.1);
        ask(lead, self.silent.take(&seen, tick_age, now));
        let settings = plan::Settings::of(lead.settings());
        let plan = plan::plan(&seen, &mut self.memory, rates, &settings, now);
        carry_out(lead, plan).await
    }
}

/// Has data nodes say whether they know these channels: by a flush, the one call that tells.
fn ask(lead: &Arc<Lead>, silent: BTreeMap<ServerId, Vec<String>>) {
    for (node, channels) in silent {
        let lead = Arc::clone(lead);
        tasks::spawn("ask-for-channels", async move {
            let Ok(flush_ts) = lead.tso.fresh().await else { return };
            if let Err(error) = flush_channels(&lead, node, &channels, flush_ts).await {
                let n_channels = channels.len();
                tracing::info!(node = node.0, n_channels, %error, "nothing is heard of channels");
            }
        });
    }
}

async fn carry_out(lead: &Lead, plan: Plan) -> Result<(), Failure> {
    for node in &plan.drained {
        let drain = Kind::Drain(DrainNode { node: node.0, on: false });
        lead.propose_channel(drain).await?;
        tracing::info!(node = node.0, "data node that was to be empty is gone");
    }
    if !plan.adopt.is_empty() {
        let starts = lead.local().read(|state| starts_of(state, &plan.adopt));
        let channels = plan.adopt.iter().map(ToString::to_string).collect();
        let adopt = Kind::Adopt(AdoptChannels { channels, starts });
        report(&lead.propose_channel(adopt).await?);
    }
    for some in plan.steps.chunks(MOVES_MAX) {
        let moves: Vec<ChannelMove> = some.iter().map(Step::to_wire).collect();
        let outcome = lead.propose_channel(Kind::Move(MoveChannels { moves })).await?;
        for step in some {
            tracing::info!(channel = %step.channel, action = %step.action, why = step.why, "channel moves");
        }
        report(&outcome);
    }
    Ok(())
}

/// Where the collections of these channels begin; those that are not known are left out.
fn starts_of(state: &State, channels: &BTreeSet<Name>) -> Vec<CollectionStart> {
    let views = state.views();
    let watched = views.channels().rows().decoded();
    let collections: BTreeSet<CollectionId> = watched
        .filter(|((_, channel), _)| channels.contains(channel))
        .map(|(_, watch)| watch.collection)
        .collect();
    let start = |id: CollectionId| {
        let (_, collection) = views.catalog().collection(id)?;
        let position = |(key, data): &(Name, _)| KeyDataPair {
            key: key.to_string(),
            data: Bytes::clone(data),
        };
        Some(CollectionStart {
            collection: id.0,
            create_ts: collection.created,
            start_positions: collection.start_positions.iter().map(position).collect(),
        })
    };
    collections.into_iter().filter_map(start).collect()
}

/// The next round sees why; it is told because it may take long.
fn report(outcome: &proto::quorate::CoordinatorOutcome) {
    for item in &outcome.refused {
        let why = Refusal::of_item(item).map_or_else(|| item.text.clone(), |why| why.to_string());
        tracing::info!(channel = item.name, why, "channel stays as it is for now");
    }
}
