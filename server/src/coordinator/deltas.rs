//! Delta logs that were written for an input of a compaction and belong to its result.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use proto::milvus::common::SegmentState;
use proto::quorate::segment_command::Kind;
use proto::quorate::{SaveBinlogs, SegmentRef};
use statemachine::view::SegmentId;

use super::{Failure, Lead};

/// Copies at a time.
const COPIES: usize = 8;
/// Compactions one after the other while deletes of the first input are on their way.
const RESULTS_MAX: usize = 8;

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    pub(crate) log: i64,
    pub(crate) path: String,
}

/// Copies files to where those of a segment are.
///
/// # Errors
/// The object store does not do it.
pub(crate) async fn copy(
    lead: &Arc<Lead>,
    to: SegmentRef,
    deltas: Vec<Delta>,
) -> Result<(), Failure> {
    let objects = lead.coordinator.objects();
    let copies = deltas.into_iter().map(|Delta { log, path: from }| {
        let to = path(lead, to, log);
        async move {
            objects.copy(&from, &to).await.map_err(|error| {
                tracing::warn!(from, to, %error, "a delta log is not copied");
                Failure::Unavailable(format!("delta log {from} is not copied: {error}"))
            })
        }
    });
    stream::iter(copies).buffer_unordered(COPIES).try_collect::<()>().await
}

fn path(lead: &Lead, of: SegmentRef, log: i64) -> String {
    let prefix = lead.settings().storage_prefix();
    let SegmentRef { collection, partition, segment } = of;
    format!("{prefix}delta_log/{collection}/{partition}/{segment}/{log}")
}

/// Saves what a data node wrote of a segment. Where a compaction has taken the segment in meanwhile,
/// its deletes are saved for the result instead: else deleted rows would come back.
///
/// # Errors
/// Refused by the state machine, or the object store does not copy.
pub(crate) async fn save(lead: &Arc<Lead>, command: SaveBinlogs) -> Result<(), Failure> {
    let mut command = command;
    for _result in 0..RESULTS_MAX {
        let Err(failure) = lead.propose_segment(Kind::SaveBinlogs(command.clone())).await else {
            return Ok(());
        };
        let from = command.segment.unwrap_or_default();
        let Some(to) = taken_in(lead, from, &command) else { return Err(failure) };
        let Some(to) = to else {
            tracing::warn!(segment = from.segment, "deletes of a segment that nobody has any more");
            return Ok(());
        };
        let logs = command.deltalogs.iter().flat_map(|logs| &logs.binlogs);
        let deltas = logs.map(|log| Delta { log: log.log_id, path: path(lead, from, log.log_id) });
        copy(lead, to, deltas.collect()).await?;
        tracing::info!(
            segment = from.segment,
            result = to.segment,
            "deletes of a compacted segment go to its result"
        );
        command = SaveBinlogs {
            segment: Some(to),
            node: command.node,
            channel: command.channel,
            deltalogs: command.deltalogs,
            ..SaveBinlogs::default()
        };
    }
    Err(Failure::Unavailable("compactions keep taking the segment in".to_owned()))
}

/// Whether a compaction took the segment in that has these deletes; then its result, unless that is
/// gone from the records, too.
fn taken_in(lead: &Lead, of: SegmentRef, command: &SaveBinlogs) -> Option<Option<SegmentRef>> {
    if command.deltalogs.is_empty() {
        return None;
    }
    lead.local().read(|state| {
        let segments = state.views().segments();
        let id = SegmentId(of.segment);
        let segment = segments.get(id)?;
        let is_input = segment.state == SegmentState::Dropped && segment.is_compacted;
        let result = segments.child_of(id);
        let result = result.and_then(|id| Some(segments.get(id)?.reference(id)));
        is_input.then_some(result)
    })
}
