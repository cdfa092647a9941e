//! The end of segments: dropped first, removed from the records once their files are gone.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::milvus::common::SegmentState;
use proto::milvus::data::SegmentInfo;
use proto::quorate::{
    ChannelRecord, DropChannel, DropSegments, HasRows, RemoveSegments, SegmentRef,
};

use super::lifecycle::{Step, advance};
use super::saved::check_owner;
use super::{growth, merge_logs, record, settle};
use crate::coordinator::Refusal;
use crate::coordinator::channel::{self, PendingSegments};
use crate::coordinator::keys::{DataKey, LogKind};
use crate::coordinator::records::{Outcomes, Records};
use crate::limits::{CHANNEL_SEGMENTS_DROPPED_MAX, COMPACTION_RESULTS_DROPPED_MAX};
use crate::state::draft::Stop;
use crate::view::SegmentId;

pub(super) fn drop_segments(
    records: &mut Records<'_, '_>,
    command: &DropSegments,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for of in &command.segments {
        let dropped = drop_one(records, *of, command);
        settle(&mut outcomes, of.segment, dropped)?;
    }
    Ok(outcomes)
}

/// Only what has no rows for certain, what its data node disowned, or what is dropped with its
/// partition.
fn drop_one(
    records: &mut Records<'_, '_>,
    of: SegmentRef,
    command: &DropSegments,
) -> Result<(), Stop> {
    let mut info = record(records, of)?;
    let has_rows = || Refusal::HasRows { segment: of.segment };
    match super::state_of(&info) {
        // With its partition, which nothing brings back.
        SegmentState::Flushed | SegmentState::Flushing if command.partition_dropped => {}
        // Its import never finished: nobody has seen its rows.
        SegmentState::Importing if command.importing => {}
        SegmentState::Growing | SegmentState::Sealed => {
            match growth(records, of.segment)?.has_rows() {
                HasRows::No => {}
                HasRows::Unknown if command.disowned => {}
                HasRows::Unknown | HasRows::Yes => return Err(has_rows().into()),
            }
            if info.num_of_rows != 0 {
                return Err(has_rows().into());
            }
        }
        SegmentState::None
        | SegmentState::NotExist
        | SegmentState::Flushed
        | SegmentState::Flushing
        | SegmentState::Dropped
        | SegmentState::Importing => return Err(super::refuse_state(&info).into()),
    }
    advance(&mut info, Step::Drop)?;
    info.dropped_at = command.dropped_at_ns;
    records.put(records.keys().segment(of), &info);
    records.delete(records.keys().growth(of.segment));
    Ok(())
}

/// A segment that a compaction took in is dropped with its partition, by a data node that has not
/// been told of the result: that one is what is left of the segment. So is the result of its own
/// compaction, and so on.
pub(super) fn drop_results(
    records: &mut Records<'_, '_>,
    input: SegmentRef,
    dropped_at_ns: u64,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    let segment = input.segment;
    let mut seen = BTreeSet::from([place(input)]);
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        for (of, mut info) in results_of(records, input)? {
            if !seen.insert(place(of)) {
                continue;
            }
            if seen.len() > COMPACTION_RESULTS_DROPPED_MAX {
                return Err(too_many_results(segment).into());
            }
            inputs.push(of);
            if advance(&mut info, Step::Drop).is_ok() {
                info.dropped_at = dropped_at_ns;
                records.put(records.keys().segment(of), &info);
                outcomes.changed(of.segment);
            }
        }
    }
    Ok(outcomes)
}

/// Only records that somebody wrote raw have so many.
fn too_many_results(segment: i64) -> Refusal {
    Refusal::Invalid {
        field: "segment".to_owned(),
        value: segment.to_string(),
        reason: format!(
            "its rows are in more than {COMPACTION_RESULTS_DROPPED_MAX} results of compactions"
        ),
    }
}

/// Results of compactions that took a segment of their partition in, as the command sees them.
fn results_of(
    records: &Records<'_, '_>,
    input: SegmentRef,
) -> Result<Vec<(SegmentRef, SegmentInfo)>, Stop> {
    let committed = records.committed().views().segments().children_of(SegmentId(input.segment));
    let mut places: BTreeSet<(i64, i64, i64)> = committed.map(place).collect();
    for key in records.pending(&records.keys().all_segments()).into_keys() {
        if let Some(DataKey::Segment(of)) = records.keys().data_key(&key) {
            places.insert(place(of));
        }
    }
    let mut found = Vec::new();
    for (segment, collection, partition) in places {
        let of = SegmentRef { collection, partition, segment };
        if (collection, partition) != (input.collection, input.partition) {
            continue;
        }
        let value = records.value(&records.keys().segment(of))?;
        if let Some(info) = value.and_then(|value| super::decoded(of, value))
            && info.compaction_from.contains(&input.segment)
        {
            found.push((of, info));
        }
    }
    Ok(found)
}

/// The collection of the channel is gone: so are all its segments, and the channel itself as soon as
/// its data node has let go. The outcome names the channel once no segment is left to drop; before,
/// the command has to be repeated.
pub(super) fn drop_channel(
    records: &mut Records<'_, '_>,
    command: DropChannel,
) -> Result<Outcomes, Stop> {
    let DropChannel { channel, node, segments } = command;
    check_owner(records, &channel, node)?;
    let mut outcomes = Outcomes::default();
    for saved in segments {
        let Some(of) = saved.segment else { continue };
        if records.exists(&records.keys().segment(of)) {
            merge_logs(records, of, LogKind::Insert, saved.binlogs)?;
            merge_logs(records, of, LogKind::Stats, saved.statslogs)?;
            merge_logs(records, of, LogKind::Delta, saved.deltalogs)?;
        }
    }
    let n_max = CHANNEL_SEGMENTS_DROPPED_MAX;
    let left = PendingSegments::of(records).droppable(records, &channel, n_max + 1);
    for of in left.iter().take(n_max) {
        let mut info = record(records, *of)?;
        advance(&mut info, Step::Drop)?;
        records.put(records.keys().segment(*of), &info);
        records.delete(records.keys().growth(of.segment));
        outcomes.changed(of.segment);
    }
    if left.len() > n_max {
        return Ok(outcomes);
    }
    records.put_bytes(records.keys().removal(&channel), Bytes::from_static(b"removed"));
    if let Some(record) =
        records.get_if_record::<ChannelRecord>(&records.keys().channel(&channel))?
    {
        // Its collection is being dropped, whole.
        records.delete(records.keys().altered(record.collection));
    }
    channel::release(records, &channel)?;
    outcomes.changed_name(&channel);
    Ok(outcomes)
}

pub(super) fn remove(
    records: &mut Records<'_, '_>,
    command: &RemoveSegments,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    let mut channels = Vec::new();
    for of in &command.segments {
        let removed = remove_one(records, *of).map(|channel| channels.push(channel));
        settle(&mut outcomes, of.segment, removed)?;
    }
    channels.sort();
    channels.dedup();
    forget_checkpoints(records, channels)?;
    Ok(outcomes)
}

/// Returns the segment's channel.
fn remove_one(records: &mut Records<'_, '_>, of: SegmentRef) -> Result<String, Stop> {
    let info = record(records, of)?;
    if super::state_of(&info) != SegmentState::Dropped {
        return Err(super::refuse_state(&info).into());
    }
    for kind in LogKind::ALL {
        for key in records.scan_keys(&records.keys().logs(kind, of)) {
            records.delete(key);
        }
    }
    records.delete(records.keys().growth(of.segment));
    records.delete(records.keys().segment(of));
    Ok(info.insert_channel)
}

/// Of channels that have ended and whose last segment went. Looked up in memory: a channel may have a
/// hundred thousand segments, and a batch of removals names many channels.
fn forget_checkpoints(records: &mut Records<'_, '_>, channels: Vec<String>) -> Result<(), Stop> {
    let mut ended = Vec::new();
    for channel in channels {
        let mark = records.value(&records.keys().removal(&channel))?;
        if mark.is_none_or(|mark| mark != b"non-removed"[..]) {
            ended.push(channel);
        }
    }
    if ended.is_empty() {
        return Ok(());
    }
    let pending = PendingSegments::of(records);
    ended.retain(|channel| !pending.has_undropped(records, channel));
    for channel in ended {
        records.delete(records.keys().checkpoint(&channel));
    }
    Ok(())
}

/// In the order of the view.
fn place(of: SegmentRef) -> (i64, i64, i64) {
    (of.segment, of.collection, of.partition)
}
