//! Builds: an index over one segment, from the wish to the files.

use proto::milvus::common::{IndexState, SegmentState};
use proto::milvus::index::SegmentIndex;
use proto::quorate::{
    AddBuilds, BuildRef, BuildResult, FinishBuild, NewBuild, RetryBuild, StartBuild,
};

use super::{build_record, definition, named, segment_of, settle};
use crate::coordinator::records::{Outcomes, Records};
use crate::coordinator::{Refusal, segment};
use crate::state::draft::Stop;

pub(super) fn add(records: &mut Records<'_, '_>, command: &AddBuilds) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for new in &command.builds {
        let id = new.build.map_or(0, |build| build.build);
        let added = add_one(records, new);
        settle(&mut outcomes, id, added)?;
    }
    Ok(outcomes)
}

fn add_one(records: &mut Records<'_, '_>, new: &NewBuild) -> Result<(), Stop> {
    let build = named(new.build)?;
    check_index(records, build.collection, new.index)?;
    let of = segment_of(build);
    let info = segment::record(records, of)?;
    // Flushing is a short moment of a stock coordinator on the way to Flushed.
    if !matches!(info.state(), SegmentState::Flushed | SegmentState::Flushing) {
        let state = i64::from(info.state);
        return Err(Refusal::SegmentState { segment: info.id, state }.into());
    }
    let present = records.scan::<SegmentIndex>(&records.keys().segment_indexes(of))?;
    let is_there = |old: &SegmentIndex| {
        old.build_id == build.build || (old.index_id == new.index && !old.deleted)
    };
    if let Some((_, old)) = present.iter().find(|(_, old)| is_there(old)) {
        return Err(Refusal::BuildExists { build: old.build_id }.into());
    }
    let state = if new.finished { IndexState::Finished } else { IndexState::Unissued };
    let record = SegmentIndex {
        collection_id: build.collection,
        partition_id: build.partition,
        segment_id: build.segment,
        num_rows: info.num_of_rows,
        index_id: new.index,
        build_id: build.build,
        state: state.into(),
        // As Milvus writes it: the id of the segment, which has the shape of a timestamp.
        create_time: build.segment.unsigned_abs(),
        ..SegmentIndex::default()
    };
    records.put(records.keys().segment_index(of, build.build), &record);
    Ok(())
}

/// # Errors
/// Refused where the definition is missing or deleted.
fn check_index(records: &Records<'_, '_>, collection: i64, index: i64) -> Result<(), Stop> {
    match definition(records, collection, index)? {
        Some(definition) if !definition.deleted => Ok(()),
        Some(_) | None => Err(Refusal::UnknownIndex { index }.into()),
    }
}

pub(super) fn start(records: &mut Records<'_, '_>, command: &StartBuild) -> Result<Outcomes, Stop> {
    let build = named(command.build)?;
    let mut record = attempt(records, build, command.expect_version)?;
    if is_ended(&record) || record.state() == IndexState::InProgress {
        return Err(refuse_state(&record).into());
    }
    check_index(records, build.collection, record.index_id)?;
    let info = segment::record(records, segment_of(build))?;
    if info.state() == SegmentState::Dropped {
        let state = i64::from(info.state);
        return Err(Refusal::SegmentState { segment: info.id, state }.into());
    }
    record.set_state(IndexState::InProgress);
    record.index_version += 1;
    record.node_id = command.node;
    record.fail_reason.clear();
    Ok(put(records, build, &record))
}

pub(super) fn finish(
    records: &mut Records<'_, '_>,
    command: FinishBuild,
) -> Result<Outcomes, Stop> {
    let build = named(command.build)?;
    let mut record = attempt(records, build, command.version)?;
    let BuildResult { failure, file_keys, size_bytes, engine_version } =
        command.result.unwrap_or_default();
    let is_running = record.state() == IndexState::InProgress;
    let needs_nothing = failure.is_empty() && file_keys.is_empty();
    if is_ended(&record) || !(is_running || needs_nothing) {
        return Err(refuse_state(&record).into());
    }
    record.set_state(if failure.is_empty() { IndexState::Finished } else { IndexState::Failed });
    record.fail_reason = failure;
    record.index_file_keys = file_keys;
    record.serialize_size = size_bytes;
    record.current_index_version = engine_version;
    Ok(put(records, build, &record))
}

pub(super) fn retry(records: &mut Records<'_, '_>, command: RetryBuild) -> Result<Outcomes, Stop> {
    let build = named(command.build)?;
    let mut record = attempt(records, build, command.version)?;
    if record.state() != IndexState::InProgress {
        return Err(refuse_state(&record).into());
    }
    // The node stays on record: its job goes before the next attempt.
    record.set_state(IndexState::Unissued);
    record.fail_reason = command.reason;
    Ok(put(records, build, &record))
}

/// The record of a build, at the version that the command is about.
///
/// # Errors
/// Refused where another attempt is on record.
fn attempt(
    records: &Records<'_, '_>,
    build: BuildRef,
    expected: i64,
) -> Result<SegmentIndex, Stop> {
    let record = build_record(records, build)?;
    if record.index_version != expected {
        let version = record.index_version;
        return Err(Refusal::StaleBuild { build: build.build, version, expected }.into());
    }
    Ok(record)
}

fn is_ended(record: &SegmentIndex) -> bool {
    record.deleted || matches!(record.state(), IndexState::Finished | IndexState::Failed)
}

fn refuse_state(record: &SegmentIndex) -> Refusal {
    Refusal::BuildState { build: record.build_id, state: i64::from(record.state) }
}

fn put(records: &mut Records<'_, '_>, build: BuildRef, record: &SegmentIndex) -> Outcomes {
    records.put(records.keys().segment_index(segment_of(build), build.build), record);
    let mut outcomes = Outcomes::default();
    outcomes.changed(build.build);
    outcomes
}
