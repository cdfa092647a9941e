//! Setting cluster time back, where clocks that were ahead had drawn it there.
//!
//! What was recorded meanwhile lies in the future: a time-out counted from it would not end until
//! then. Such times are clipped to the new one, some records at a time.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use proto::milvus::common::SegmentState;
use proto::milvus::data::SegmentInfo;
use proto::quorate::{self, CompactionTask, GarbageControl, Growth, SegmentRef};

use crate::coordinator::records::Records;
use crate::limits;
use crate::response::{Rejection, Response};
use crate::state::chunk::Chunk;
use crate::state::draft::Stop;
use crate::view::SegmentId;

const NS_PER_MS: u64 = 1_000_000;

impl Chunk<'_> {
    /// # Errors
    /// No time was given, or a fault of the storage.
    pub(crate) fn set_time(&mut self, request: &quorate::SetTime) -> Result<Response, Stop> {
        if request.at_ms == 0 {
            let (name, value) = ("time".to_owned(), "0".to_owned());
            return Err(Rejection::InvalidSetting { name, value }.into());
        }
        let before_ms = self.counters.at_ms;
        let at_ms = request.at_ms.min(before_ms);
        let (mut clipped, mut more) = (0, false);
        // With the role off the records are another coordinator's.
        if self.settings().coordinator {
            let mut records = Records::new(self);
            (clipped, more) = clip_records(&mut records, at_ms, before_ms)?;
            let writes = records.into_writes();
            self.absorb(writes);
        }
        if at_ms < before_ms {
            self.counters.at_ms = at_ms;
            self.counters.time_epoch += 1;
        }
        Ok(Response::TimeSet { at_ms, clipped, more })
    }
}

/// How many records were clipped, and whether some are left.
fn clip_records(
    records: &mut Records<'_, '_>,
    at_ms: u64,
    before_ms: u64,
) -> Result<(u32, bool), Stop> {
    clip_pause(records, at_ms, before_ms)?;
    let growths = records.scan_keys(&records.keys().growths());
    let tasks = records.scan_keys(&records.keys().compactions());
    let all = [
        (growths, clipped_growth as Clip),
        (tasks, clipped_task),
        (dropped_keys(records, at_ms), clipped_segment),
    ];
    let mut n_clipped = 0;
    for (keys, clip) in all {
        for key in keys {
            let Some(clipped) = clip(records, &key, at_ms)? else { continue };
            if n_clipped == limits::TIME_RECORDS_CLIPPED_MAX {
                return Ok((n_clipped, true));
            }
            records.put_bytes(key, clipped);
            n_clipped += 1;
        }
    }
    Ok((n_clipped, false))
}

/// The record of a key with its times clipped; `None` where none is ahead.
type Clip = fn(&Records<'_, '_>, &str, u64) -> Result<Option<Bytes>, Stop>;

/// A pause goes on for as long as was left of it.
fn clip_pause(records: &mut Records<'_, '_>, at_ms: u64, before_ms: u64) -> Result<(), Stop> {
    let key = records.keys().garbage_control();
    let Some(control) = records.get_if_record::<GarbageControl>(&key)? else { return Ok(()) };
    let left_ms = control.paused_until_ms.saturating_sub(before_ms);
    let paused_until_ms = at_ms.saturating_add(left_ms).min(control.paused_until_ms);
    if paused_until_ms != control.paused_until_ms {
        records.put(key, &GarbageControl { paused_until_ms });
    }
    Ok(())
}

fn clipped_growth(records: &Records<'_, '_>, key: &str, at_ms: u64) -> Result<Option<Bytes>, Stop> {
    let Some(mut growth) = records.get_if_record::<Growth>(key)? else { return Ok(None) };
    if growth.window_at_ms.max(growth.sealed_at_ms) <= at_ms {
        return Ok(None);
    }
    growth.window_at_ms = growth.window_at_ms.min(at_ms);
    growth.sealed_at_ms = growth.sealed_at_ms.min(at_ms);
    Ok(Some(growth.encode_to_vec().into()))
}

fn clipped_task(records: &Records<'_, '_>, key: &str, at_ms: u64) -> Result<Option<Bytes>, Stop> {
    let Some(mut task) = records.get_if_record::<CompactionTask>(key)? else { return Ok(None) };
    let mut is_ahead = false;
    for time in [
        &mut task.planned_at_ms,
        &mut task.sent_at_ms,
        &mut task.completed_at_ms,
        &mut task.ended_at_ms,
    ] {
        is_ahead |= *time > at_ms;
        *time = at_ms.min(*time);
    }
    Ok(is_ahead.then(|| task.encode_to_vec().into()))
}

/// Keys of segments that may have been dropped ahead of a time: there may be too many of them to read
/// them all, so the view names the committed ones.
fn dropped_keys(records: &Records<'_, '_>, at_ms: u64) -> Vec<String> {
    let at_ns = at_ms.saturating_mul(NS_PER_MS);
    let dropped = records.committed().views().segments().dropped_after(SegmentId(i64::MIN));
    let committed = dropped
        .filter(|(_, segment)| segment.dropped_at_ns > at_ns)
        .map(|(id, segment)| records.keys().segment(segment.reference(id)));
    let pending = records.pending(&records.keys().all_segments()).into_keys();
    let pending = pending.filter_map(|key| String::from_utf8(key.to_vec()).ok());
    committed.chain(pending).collect::<BTreeSet<String>>().into_iter().collect()
}

fn clipped_segment(
    records: &Records<'_, '_>,
    key: &str,
    at_ms: u64,
) -> Result<Option<Bytes>, Stop> {
    let Some(mut info) = records.get_if_record::<SegmentInfo>(key)? else { return Ok(None) };
    let at_ns = at_ms.saturating_mul(NS_PER_MS);
    let of = SegmentRef {
        collection: info.collection_id,
        partition: info.partition_id,
        segment: info.id,
    };
    // What the view does not take for a dropped segment is none here either.
    let is_dropped = info.state == i32::from(SegmentState::Dropped);
    if info.dropped_at <= at_ns || !is_dropped || records.keys().segment(of) != key {
        return Ok(None);
    }
    info.dropped_at = at_ns;
    Ok(Some(info.encode_to_vec().into()))
}

#[cfg(test)]
mod tests;
