//! Carries out what is due on one channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::quorate::DropSegments;
use proto::quorate::segment_command::Kind;
use statemachine::channel::ChannelState;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::{CollectionId, SegmentId, ServerId};

use super::plan::Plan;
use crate::coordinator::clients::CallError;
use crate::coordinator::duty::dropped_partitions::DROPS_MAX;
use crate::coordinator::observed::Tick;
use crate::coordinator::seal;
use crate::coordinator::{Failure, Lead};
use crate::tasks;

/// A flush is told again until its logs arrive.
const FLUSH_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn carry_out(lead: &Arc<Lead>, channel: &str, plan: Plan) -> Result<(), Failure> {
    let mut by_reason = BTreeMap::new();
    for (id, segment, reason) in plan.seal {
        by_reason
            .entry(reason.to_string())
            .or_insert_with(|| (reason, Vec::new()))
            .1
            .push((id, segment));
    }
    for (reason, segments) in by_reason.into_values() {
        seal::seal(lead, segments, reason).await?;
    }
    drop_all(lead, &plan.drop_empty, Dropped::Empty).await?;
    drop_all(lead, &plan.drop_imports, Dropped::Import).await?;
    if let Some(tick) = plan.tick {
        let (imports, others): (Vec<_>, Vec<_>) =
            plan.flush.into_iter().partition(|(_, one)| one.is_importing);
        tell(lead, channel, tick, others);
        // Its data node may not know one of these.
        for alone in imports.into_iter().chain(plan.probe) {
            tell(lead, channel, tick, vec![alone]);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    Empty,
    Import,
    Disowned,
}

async fn drop_all(
    lead: &Arc<Lead>,
    segments: &[(SegmentId, Segment)],
    why: Dropped,
) -> Result<(), Failure> {
    for some in segments.chunks(DROPS_MAX) {
        let command = DropSegments {
            segments: some.iter().map(|(id, segment)| segment.reference(*id)).collect(),
            dropped_at_ns: lead.now_ns(),
            disowned: why == Dropped::Disowned,
            importing: why == Dropped::Import,
            partition_dropped: false,
        };
        let outcome = lead.propose_segment(Kind::Drop(command)).await?;
        for segment in outcome.changed {
            lead.observed.forget(SegmentId(segment));
            tracing::info!(segment, ?why, "segment dropped");
        }
    }
    Ok(())
}

/// Tells the channel's data node to write what it has of these segments. Nobody waits for it: the
/// next tick tells it again.
fn tell(lead: &Arc<Lead>, channel: &str, tick: Tick, segments: Vec<(SegmentId, Segment)>) {
    let segments: Vec<_> = segments
        .into_iter()
        .filter(|(id, _)| lead.observed.begin_flush(*id, FLUSH_PAUSE))
        .collect();
    let Some((_, first)) = segments.first() else { return };
    let (collection, node) = (first.collection, tick.node);
    let (lead, channel) = (Arc::clone(lead), channel.to_owned());
    tasks::spawn("flush-segments", async move {
        let Err(error) = flush(&lead, node, collection, &channel, &segments).await else { return };
        tracing::debug!(channel, node = node.0, %error, "flush was not taken");
        if !error.is_segment_not_found() {
            return;
        }
        if let [alone] = segments.as_slice() {
            disown(&lead, &channel, tick, alone).await;
            return;
        }
        // It stopped at the first one that it does not know, and has not heard of the others.
        for alone in segments.chunks(1) {
            if let Err(error) = flush(&lead, node, collection, &channel, alone).await {
                tracing::debug!(channel, node = node.0, %error, "flush was not taken");
            }
        }
    });
}

async fn flush(
    lead: &Lead,
    node: ServerId,
    collection: CollectionId,
    channel: &str,
    segments: &[(SegmentId, Segment)],
) -> Result<(), CallError> {
    let ids: Vec<i64> = segments.iter().map(|(id, _)| id.0).collect();
    tracing::debug!(channel, node = node.0, ?ids, "flush is sent");
    lead.clients().data_node(node)?.flush_segments(collection.0, channel, ids).await
}

/// The owner of the channel does not know the segment: it never got a row. Only what the owner says
/// of a channel that it runs, and has run ever since that tick, counts.
async fn disown(lead: &Arc<Lead>, channel: &str, tick: Tick, segment: &(SegmentId, Segment)) {
    let is_owner = lead.local().read(|state| {
        let views = state.views();
        let is_assigned = views.assignments().get(channel).is_some_and(|known| tick.is_of(known));
        let is_watched = views
            .channels()
            .get(tick.node, channel)
            .is_some_and(|known| known.state == ChannelState::WatchSuccess);
        is_assigned && is_watched
    });
    if !is_owner {
        return;
    }
    if segment.1.is_importing {
        // Its rows are in files that are on record.
        lead.observed.note_disowned(segment.0);
        return;
    }
    if lead.observed.rows(segment.0) > 0 || segment.1.rows > 0 {
        return;
    }
    if let Err(error) = drop_all(lead, std::slice::from_ref(segment), Dropped::Disowned).await {
        tracing::debug!(segment = segment.0.0, %error, "a disowned segment stays for now");
    }
}
