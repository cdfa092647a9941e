//! The end of records: what a dropped index or a segment that is gone leaves behind.

use proto::milvus::common::{IndexState, SegmentState};
use proto::milvus::data::SegmentInfo;
use proto::quorate::{BuildRef, RemoveBuilds, RemoveIndexes};

use super::{build_record, definition, segment_of, settle};
use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(super) fn remove_indexes(
    records: &mut Records<'_, '_>,
    command: &RemoveIndexes,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for index in &command.indexes {
        let removed = remove_index(records, command.collection, *index);
        settle(&mut outcomes, *index, removed)?;
    }
    Ok(outcomes)
}

fn remove_index(records: &mut Records<'_, '_>, collection: i64, index: i64) -> Result<(), Stop> {
    match definition(records, collection, index)? {
        None => Err(Refusal::UnknownIndex { index }.into()),
        Some(record) if !record.deleted => Err(Refusal::IndexInUse { index }.into()),
        Some(_) => {
            records.delete(records.keys().field_index(collection, index));
            Ok(())
        }
    }
}

pub(super) fn remove_builds(
    records: &mut Records<'_, '_>,
    command: &RemoveBuilds,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for build in &command.builds {
        let removed = remove_build(records, *build);
        settle(&mut outcomes, build.build, removed)?;
    }
    Ok(outcomes)
}

/// Files of a build that is on record are kept, so the record stays as long as anybody could ask
/// for them.
fn remove_build(records: &mut Records<'_, '_>, build: BuildRef) -> Result<(), Stop> {
    let record = build_record(records, build)?;
    let is_finished = record.state() == IndexState::Finished;
    let has_index =
        definition(records, build.collection, record.index_id)?.is_some_and(|found| !found.deleted);
    let segment: Option<SegmentInfo> = records.get(&records.keys().segment(segment_of(build)))?;
    let has_segment = match segment.map(|info| info.state()) {
        None => false,
        // The inputs of a compaction are still read until their result has an index.
        Some(SegmentState::Dropped) => is_finished,
        Some(_) => true,
    };
    if has_index && has_segment && !record.deleted {
        return Err(Refusal::BuildInUse { build: build.build }.into());
    }
    records.delete(records.keys().segment_index(segment_of(build), build.build));
    Ok(())
}
