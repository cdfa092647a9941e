//! Commands on indexes: what is defined, and what is built for which segment.
//!
//! A build's record is Milvus's `index.SegmentIndex`; its version counts the attempts. An attempt
//! is on record before the index node hears of it, and only the attempt on record can end.

mod build;
mod definition;
mod removal;
pub mod view;

use proto::milvus::index::{FieldIndex, SegmentIndex};
use proto::quorate::index_command::Kind;
use proto::quorate::{self, BuildRef, SegmentRef};

use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(crate) fn apply(
    records: &mut Records<'_, '_>,
    command: quorate::IndexCommand,
) -> Result<Outcomes, Stop> {
    let Some(kind) = command.kind else {
        return Err(Refusal::unknown_command("index").into());
    };
    match kind {
        Kind::Create(command) => definition::create(records, command),
        Kind::Drop(command) => definition::drop_indexes(records, &command),
        Kind::AddBuilds(command) => build::add(records, &command),
        Kind::Start(command) => build::start(records, &command),
        Kind::Finish(command) => build::finish(records, command),
        Kind::Retry(command) => build::retry(records, command),
        Kind::RemoveIndexes(command) => removal::remove_indexes(records, &command),
        Kind::RemoveBuilds(command) => removal::remove_builds(records, &command),
    }
}

pub(crate) fn segment_of(build: BuildRef) -> SegmentRef {
    let BuildRef { collection, partition, segment, build: _ } = build;
    SegmentRef { collection, partition, segment }
}

/// # Errors
/// Refused where the command names none.
fn named(build: Option<BuildRef>) -> Result<BuildRef, Refusal> {
    build.ok_or(Refusal::UnknownBuild { build: 0 })
}

/// The record of a definition, deleted ones included.
fn definition(
    records: &Records<'_, '_>,
    collection: i64,
    index: i64,
) -> Result<Option<FieldIndex>, Stop> {
    records.get(&records.keys().field_index(collection, index))
}

/// The record of a build.
///
/// # Errors
/// Refused where nothing is on record, or something that names another build.
fn build_record(records: &Records<'_, '_>, build: BuildRef) -> Result<SegmentIndex, Stop> {
    let key = records.keys().segment_index(segment_of(build), build.build);
    let Some(record) = records.get::<SegmentIndex>(&key)? else {
        return Err(Refusal::UnknownBuild { build: build.build }.into());
    };
    let BuildRef { collection, partition, segment, build } = build;
    let names = (record.collection_id, record.partition_id, record.segment_id, record.build_id);
    if names != (collection, partition, segment, build) {
        let reason = "it names another build".to_owned();
        return Err(Refusal::Undecodable { key, reason }.into());
    }
    Ok(record)
}

/// Of one thing of a command on many: a refusal is named and the others go on.
fn settle(outcomes: &mut Outcomes, id: i64, step: Result<(), Stop>) -> Result<(), Stop> {
    match step {
        Ok(()) => outcomes.changed(id),
        Err(stop) => outcomes.refused(id, stop.into_refusal()?),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
