//! Makes plans: over everything from time to time, for a group when one of its segments was flushed,
//! and by hand.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::milvus::data::CompactionType;
use proto::quorate::compaction_command::Kind;
use proto::quorate::{CompactionInput, CompactionTask, PlanCompactions};
use raft::{AppliedEvent, Subscription};
use statemachine::view::{Area, CollectionId, Name, PartitionId, SegmentId, canonical_i64};
use statemachine::{EventKind, Views};

use super::candidates::{self, Scope};
use super::policy::{self, Group, Limits, Proposal, Wish};
use crate::coordinator::driver::Duty;
use crate::coordinator::tso::physical_ms;
use crate::coordinator::{Code, Failure, Lead, data_nodes};
use crate::tasks;

/// Plans in one command.
const PLANS_PER_COMMAND: usize = 64;

/// Plans by itself what pays.
#[derive(Default)]
pub(crate) struct Planning {
    last_walk: Option<Instant>,
    flushes: Option<Subscription>,
    /// Groups in which a segment was flushed since the last round.
    flushed: BTreeSet<(Name, PartitionId)>,
}

impl Duty for Planning {
    const NAME: &'static str = "duty-compaction-planning";
    const AREAS: &'static [Area] = &[Area::Segment];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        self.note_flushes(lead);
        let settings = lead.settings();
        if !settings.enable_compaction || !settings.enable_auto_compaction {
            self.flushed.clear();
            return Ok(());
        }
        let Some(room) = Planning::room(lead) else { return Ok(()) };
        let interval = settings.compaction_global_interval;
        if self.last_walk.is_none_or(|walk| walk.elapsed() >= interval) {
            self.last_walk = Some(Instant::now());
            self.flushed.clear();
            let planned = plan(lead, Scope::Everything, Wish::Automatic, room).await?;
            let took = self.last_walk.map_or(Duration::ZERO, |walk| walk.elapsed());
            lead.coordinator.counts.planning.add_time(took);
            tracing::debug!(planned = planned.plans, ?took, "compaction planned");
        } else if !self.flushed.is_empty() {
            let groups = std::mem::take(&mut self.flushed).into_iter().collect();
            plan(lead, Scope::Groups(groups), Wish::Automatic, room).await?;
        }
        Ok(())
    }
}

impl Planning {
    /// How many plans may be added; `None` where none is to be.
    fn room(lead: &Lead) -> Option<usize> {
        let (is_paused, n_running) = lead.local().read(|state| {
            let (views, plans) = (state.views(), state.views().plans());
            let is_short = data_nodes::are_too_few(views, lead.settings());
            (plans.is_paused() || is_short, plans.running().count())
        });
        let room = lead.settings().compaction_parallel_max.saturating_sub(n_running);
        (!is_paused && room > 0).then_some(room)
    }

    /// What we keep of a segment until it is flushed goes when it is: that is the event. One that is
    /// missed is found by the walk.
    fn note_flushes(&mut self, lead: &Lead) {
        let flushes = self.flushes.get_or_insert_with(|| lead.node().applied());
        let mut gone = Vec::new();
        while let Some(event) = flushes.try_recv() {
            let Ok(event) = event else { return };
            let AppliedEvent::Applied(applied) = &*event else { continue };
            let deleted = applied.events.iter().filter(|event| event.kind == EventKind::Delete);
            gone.extend(deleted.filter_map(|event| segment_of_growth(event.key())));
        }
        if gone.is_empty() {
            return;
        }
        lead.local().read(|state| {
            let segments = state.views().segments();
            for id in gone {
                let Some(segment) = segments.get(id) else { continue };
                if segment.is_flushed() && !segment.is_importing {
                    self.flushed.insert((segment.channel.clone(), segment.partition));
                }
            }
        });
    }
}

fn segment_of_growth(key: &Bytes) -> Option<SegmentId> {
    let key = std::str::from_utf8(key).ok()?;
    let (_, segment) = key.split_once("quorate/growing/")?;
    canonical_i64(segment).map(SegmentId)
}

/// What came of planning.
pub(crate) struct Planned {
    pub(crate) trigger: i64,
    pub(crate) plans: usize,
}

/// Plans the compaction of a collection, as somebody asked for it. Zero plans are fine.
///
/// # Errors
/// Switched off; or ids and timestamps are not to be had.
pub(crate) async fn by_hand(
    lead: &Arc<Lead>,
    collection: CollectionId,
) -> Result<Planned, Failure> {
    if !lead.settings().enable_compaction {
        return Err(Failure::refused(Code::ServiceUnavailable, "compaction disabled"));
    }
    plan(lead, Scope::Collection(collection), Wish::ByHand, usize::MAX).await
}

async fn plan(lead: &Arc<Lead>, scope: Scope, wish: Wish, room: usize) -> Result<Planned, Failure> {
    // What has expired is decided by a timestamp that is asked for now.
    let now_ts = lead.tso.fresh().await?;
    let walker = Arc::clone(lead);
    let walk = move || proposals(&walker, &scope, wish, now_ts);
    let mut proposals = tasks::spawn_blocking(walk)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))??;
    proposals.sort_by_key(|(_, proposal)| -proposal.priority.total());
    proposals.truncate(room);
    let trigger =
        if proposals.is_empty() && wish == Wish::Automatic { 0 } else { lead.ids.next().await? };
    let mut plans = 0;
    for some in proposals.chunks(PLANS_PER_COMMAND) {
        plans += commit(lead, trigger, some).await?;
    }
    Ok(Planned { trigger, plans })
}

fn proposals(
    lead: &Arc<Lead>,
    scope: &Scope,
    wish: Wish,
    now_ts: u64,
) -> Result<Vec<(Group, Proposal)>, Failure> {
    let limits = Limits::of(lead.settings());
    let mut all = Vec::new();
    candidates::visit(lead, scope, wish, now_ts, &mut |mut group| {
        let proposals = policy::mix(&group, &limits, wish, physical_ms(now_ts));
        group.candidates = Vec::new();
        let indexed = proposals
            .into_iter()
            .filter(|one| candidates::are_indexed(lead, group.collection, &one.inputs));
        all.extend(indexed.map(|proposal| (group.clone(), proposal)));
    })?;
    Ok(all)
}

/// Returns how many were accepted: a segment may have been dropped meanwhile.
async fn commit(
    lead: &Arc<Lead>,
    trigger: i64,
    proposals: &[(Group, Proposal)],
) -> Result<usize, Failure> {
    let ids = lead.ids.many(proposals.len()).await?;
    let tasks = lead.local().read(|state| {
        let views = state.views();
        let tasks = proposals.iter().zip(&ids);
        tasks
            .map(|((group, proposal), id)| task(lead, views, trigger, *id, group, proposal))
            .collect::<Vec<CompactionTask>>()
    });
    for ((group, proposal), plan) in proposals.iter().zip(&ids) {
        let channel = &*group.channel;
        tracing::info!(plan, trigger, channel, partition = group.partition.0, %proposal,
            "compaction planned");
    }
    let outcome = lead.propose_compaction(Kind::Plan(PlanCompactions { tasks })).await?;
    Ok(outcome.changed.len())
}

fn task(
    lead: &Lead,
    views: &Views,
    trigger: i64,
    plan: i64,
    group: &Group,
    proposal: &Proposal,
) -> CompactionTask {
    let settings = lead.settings();
    let ttl = candidates::time_to_live(views, settings, group.collection);
    let input = |segment: &SegmentId| CompactionInput { segment: segment.0, deltalogs: vec![] };
    CompactionTask {
        plan,
        trigger,
        collection: group.collection.0,
        partition: group.partition.0,
        channel: group.channel.to_string(),
        kind: CompactionType::MixCompaction.into(),
        inputs: proposal.inputs.iter().map(input).collect(),
        timeout_s: i64::try_from(settings.compaction_timeout.as_secs()).unwrap_or(i64::MAX),
        ttl_ns: ttl.map_or(0, |ttl| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX)),
        total_rows: proposal.rows,
        reason: proposal.reason.as_str().to_owned(),
        priority_milli: proposal.priority.total(),
        factors_milli: proposal.priority.factors().to_vec(),
        ..CompactionTask::default()
    }
}
