//! Commands on segments: windows, seal, flush, drop, removal.

mod lifecycle;
mod logs;
mod removal;
mod rows;
mod saved;
pub mod view;
mod window;

use bytes::Bytes;
use prost::Message;
use proto::milvus::common::SegmentState;
use proto::milvus::data::SegmentInfo;
use proto::quorate::segment_command::Kind;
use proto::quorate::{self, Growth, SegmentRef};

use crate::coordinator::Refusal;
use crate::coordinator::keys::DataKey;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;
use crate::view::SegmentId;

pub(crate) use lifecycle::{Step, advance, can_be_dropped};
pub(crate) use logs::merge_logs;

pub(crate) fn apply(
    records: &mut Records<'_, '_>,
    command: quorate::SegmentCommand,
) -> Result<Outcomes, Stop> {
    let Some(kind) = command.kind else {
        return Err(Refusal::unknown_command("segment").into());
    };
    match kind {
        Kind::OpenWindows(command) => window::open(records, command),
        Kind::Seal(command) => window::seal(records, command),
        Kind::Drop(command) => removal::drop_segments(records, &command),
        Kind::NoteRows(command) => rows::note(records, &command),
        Kind::SaveBinlogs(command) => saved::save(records, command),
        Kind::SaveCheckpoints(command) => rows::save_checkpoints(records, command),
        Kind::DropChannel(command) => removal::drop_channel(records, command),
        Kind::FinishImport(command) => rows::finish_import(records, &command),
        Kind::Remove(command) => removal::remove(records, &command),
        Kind::Adopt(command) => window::adopt(records, &command),
    }
}

/// The record of a segment.
///
/// # Errors
/// Refused where nothing is on record, or something that names another segment.
pub(crate) fn record(records: &Records<'_, '_>, of: SegmentRef) -> Result<SegmentInfo, Stop> {
    let key = records.keys().segment(of);
    let Some(info) = records.get::<SegmentInfo>(&key)? else {
        return Err(Refusal::UnknownSegment { segment: of.segment }.into());
    };
    if (info.collection_id, info.partition_id, info.id) != (of.collection, of.partition, of.segment)
    {
        let reason = "it names another segment".to_owned();
        return Err(Refusal::Undecodable { key, reason }.into());
    }
    Ok(info)
}

/// Whether anything is on record under an id, in whatever collection and partition.
pub(crate) fn is_known(records: &Records<'_, '_>, segment: i64) -> bool {
    let mut committed = records.committed().views().segments().with_id(SegmentId(segment));
    let pending = records.pending(&records.keys().all_segments());
    let is_put = |(key, value): (Bytes, Option<Bytes>)| match records.keys().data_key(&key) {
        Some(DataKey::Segment(of)) => value.is_some() && of.segment == segment,
        Some(DataKey::Log { .. } | DataKey::Checkpoint(_) | DataKey::Removal(_)) | None => false,
    };
    committed.any(|(of, _)| records.exists(&records.keys().segment(of)))
        || pending.into_iter().any(is_put)
}

pub(crate) fn state_of(info: &SegmentInfo) -> SegmentState {
    SegmentState::try_from(info.state).unwrap_or(SegmentState::None)
}

fn refuse_state(info: &SegmentInfo) -> Refusal {
    Refusal::SegmentState { segment: info.id, state: i64::from(info.state) }
}

/// A value as the view takes it: `None` where the view has no row, either.
pub(crate) fn decoded(of: SegmentRef, value: Bytes) -> Option<SegmentInfo> {
    let info = SegmentInfo::decode(value).ok()?;
    let names = (info.collection_id, info.partition_id, info.id);
    let is_of = names == (of.collection, of.partition, of.segment);
    (is_of && SegmentState::try_from(info.state).is_ok()).then_some(info)
}

/// What we know beside the record; of a segment that a stock coordinator left, nothing.
fn growth(records: &Records<'_, '_>, segment: i64) -> Result<Growth, Stop> {
    let unknown = || Growth { has_rows: quorate::HasRows::Unknown.into(), ..Growth::default() };
    Ok(records.get(&records.keys().growth(segment))?.unwrap_or_else(unknown))
}

/// Of one thing of a command on many: a refusal is named and the others go on.
fn settle(outcomes: &mut Outcomes, segment: i64, step: Result<(), Stop>) -> Result<(), Stop> {
    match step {
        Ok(()) => outcomes.changed(segment),
        Err(stop) => outcomes.refused(segment, stop.into_refusal()?),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
