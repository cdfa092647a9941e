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
    /// The outcome of an earlier seal is not known.
    Again,
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
            SealReason::Again => "again",
        })
    }
}

/// Seals segments; returns all that are sealed now, those that were before included.
///
/// # Errors
/// This node does not lead any more, or the outcome is not known: then the sealing duty repeats the
/// seal. So it does where the caller goes away before the end.
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
            open.push(Closing { lead, id, segment, closed, fate: Fate::NotProposed });
        }
    }
    while !open.is_empty() {
        let part = open.split_off(open.len().saturating_sub(SEALS_MAX));
        sealed.extend(seal_part(lead, part, reason).await?);
    }
    sealed.sort_unstable();
    Ok(sealed)
}

async fn seal_part(
    lead: &Arc<Lead>,
    mut part: Vec<Closing<'_>>,
    reason: SealReason,
) -> Result<Vec<i64>, Failure> {
    let seals = part.iter().map(|Closing { id, segment, closed, .. }| Seal {
        segment: Some(segment.reference(*id)),
        last_expire_ts: closed.last_expire_ts(),
        unused: closed.is_unused(),
        reason: reason.to_string(),
        importing: segment.state == SegmentState::Importing,
    });
    let command = SealSegments { seals: seals.collect() };
    part.iter_mut().for_each(|closing| closing.fate = Fate::Undecided);
    match lead.propose_segment(Kind::Seal(command)).await {
        Ok(outcome) => {
            for closing in &mut part {
                closing.fate = Fate::Decided;
                closing.log(reason);
            }
            Ok(outcome.changed)
        }
        Err(failure) => {
            if failure.is_without_effect() {
                part.iter_mut().for_each(|closing| closing.fate = Fate::NotProposed);
            }
            Err(failure)
        }
    }
}

/// What became of the seal of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It will not happen.
    NotProposed,
    /// It may have happened, or may happen yet.
    Undecided,
    Decided,
}

/// A segment that is closed for assignment. What its end means for assignment is done when it is
/// dropped: a caller may go away at any moment.
struct Closing<'l> {
    lead: &'l Lead,
    id: SegmentId,
    segment: Segment,
    closed: Closed,
    fate: Fate,
}

impl Closing<'_> {
    fn log(&self, reason: SealReason) {
        let Closing { lead, id, segment, .. } = self;
        tracing::info!(
            segment = id.0,
            collection = segment.collection.0,
            channel = &*segment.channel,
            rows = lead.observed.rows(*id).max(segment.rows),
            %reason,
            "segment sealed"
        );
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let Closing { lead, id, segment, fate, .. } = self;
        let assigner = &lead.observed.assigner;
        match fate {
            Fate::NotProposed => assigner.reopen(*id, segment),
            Fate::Undecided => {
                assigner.leave_undecided(*id, segment);
                lead.observed.look_at(&segment.channel);
            }
            Fate::Decided => {
                assigner.forget(*id, segment);
                lead.observed.look_at(&segment.channel);
            }
        }
    }
}
