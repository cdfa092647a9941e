//! Seals segments that are due, tells data nodes to flush them, drops empty ones.
//!
//! Woken by the data nodes' ticks: a tick says up to where a channel is consumed, and only past the
//! last expiry of a segment it is certain that no row arrives any more.

mod act;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use statemachine::coordinator::segment::view::Segment;
use statemachine::view::Area;
use tokio::sync::Notify;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};

/// Channels without a tick are looked at so often, too: for what needs none.
const ALL_CHANNELS_PERIOD: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct SealDuty {
    all_at: Option<tokio::time::Instant>,
}

impl Duty for SealDuty {
    const NAME: &'static str = "duty-seal";
    const AREAS: &'static [Area] = &[];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn also_woken_by(lead: &Lead) -> Option<Arc<Notify>> {
        Some(Arc::clone(&lead.observed.ticked))
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let mut channels = lead.observed.take_ticked();
        let now = tokio::time::Instant::now();
        if self.all_at.is_none_or(|at| now.duration_since(at) >= ALL_CHANNELS_PERIOD) {
            self.all_at = Some(now);
            forget_ended(lead);
            channels.extend(all_open_channels(lead));
        }
        for channel in channels {
            let plan = plan::of_channel(lead, &channel);
            if !plan.is_empty() {
                tracing::debug!(channel, %plan, "seal and flush");
                act::carry_out(lead, &channel, plan).await?;
            }
        }
        Ok(())
    }
}

/// Lets go of facts about what is not there any more.
fn forget_ended(lead: &Lead) {
    lead.local().read(|state| {
        let views = state.views();
        // A segment that was made just now may not be in the views yet.
        let is_open = |id| views.segments().get(id).is_none_or(Segment::is_open);
        lead.observed.retain(|channel| views.assignments().get(channel).is_some(), is_open);
    });
}

fn all_open_channels(lead: &Lead) -> BTreeSet<String> {
    lead.local().read(|state| {
        state.views().segments().open().map(|(_, segment)| segment.channel.to_string()).collect()
    })
}
