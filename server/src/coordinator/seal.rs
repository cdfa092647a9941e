//! Sealing: the leader stops handing out of a segment, then says so in the log.

use std::fmt;
use std::sync::Arc;

use proto::milvus::common::SegmentState;
use proto::quorate::segment_command::Kind;
use proto::quorate::{Seal, SealSegments};
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::SegmentId;

use super::assign::Closed;
use super::failure::Failure;
use super::lead::Lead;

/// Seals in one command.
const SEALS_MAX: usize = 128;

/// Why a segment is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SealReason {
    Flush,
    Import,
    Rows,
    Lifetime,
    Idle,
    LogFiles,
    /// The growing segments of the channel are too large together.
    ChannelPressure,
    PartitionDropped,
}

impl fmt::Display for SealReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            SealReason::Flush => "flush",
            SealReason::Import => "import",
            SealReason::Rows => "rows",
            SealReason::Lifetime => "lifetime",
            SealReason::Idle => "idle",
            SealReason::LogFiles => "log files",
            SealReason::ChannelPressure => "channel pressure",
            SealReason::PartitionDropped => "partition dropped",
        })
    }
}

/// Seals segments; returns all that are sealed now, those that were before included.
///
/// # Errors
/// This node does not lead any more.
pub(crate) async fn seal(
    lead: &Arc<Lead>,
    candidates: Vec<(SegmentId, Segment)>,
    reason: SealReason,
) -> Result<Vec<i64>, Failure> {
    let mut sealed = Vec::with_capacity(candidates.len());
    let mut open = Vec::new();
    for (id, segment) in candidates {
        if segment.state == SegmentState::Sealed {
            sealed.push(id.0);
        } else {
            let closed = lead.observed.assigner.close(id, &segment, lead);
            open.push((id, segment, closed));
        }
    }
    while !open.is_empty() {
        let part = open.split_off(open.len().saturating_sub(SEALS_MAX));
        match seal_part(lead, part, reason).await {
            Ok(ids) => sealed.extend(ids),
            Err(failure) => {
                for (_, segment, closed) in open {
                    lead.observed.assigner.reopen(&segment, closed);
                }
                return Err(failure);
            }
        }
    }
    sealed.sort_unstable();
    Ok(sealed)
}

async fn seal_part(
    lead: &Arc<Lead>,
    part: Vec<(SegmentId, Segment, Closed)>,
    reason: SealReason,
) -> Result<Vec<i64>, Failure> {
    let seals = part.iter().map(|(id, segment, closed)| Seal {
        segment: Some(segment.reference(*id)),
        last_expire_ts: closed.last_expire_ts(),
        unused: closed.is_unused(),
        reason: reason.to_string(),
        importing: segment.state == SegmentState::Importing,
    });
    let command = SealSegments { seals: seals.collect() };
    match lead.propose_segment(Kind::Seal(command)).await {
        Ok(outcome) => {
            for (id, segment, _) in &part {
                lead.observed.assigner.forget(*id, segment);
                lead.observed.look_at(&segment.channel);
                tracing::info!(
                    segment = id.0,
                    collection = segment.collection.0,
                    channel = &*segment.channel,
                    rows = lead.observed.rows(*id).max(segment.rows),
                    %reason,
                    "segment sealed"
                );
            }
            Ok(outcome.changed)
        }
        Err(failure) => {
            for (_, segment, closed) in part {
                lead.observed.assigner.reopen(&segment, closed);
            }
            Err(failure)
        }
    }
}
