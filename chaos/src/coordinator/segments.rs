//! Flushed segments of four fields, written as a stock coordinator would have: six keys each.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use prost::Message;
use proto::etcd;
use proto::milvus::common::SegmentState;
use proto::milvus::{data, msg};
use tokio::task::JoinSet;

use super::Collection;
use crate::load::wire::{Connection, encode};
use crate::numbers::{grouped, index};
use crate::report;

const FIRST_COLLECTION: u64 = 440_000_000_000_000_000;
const FIRST_SEGMENT: u64 = 445_000_000_000_000_000;
const SEGMENTS_OF_COLLECTION: u64 = 10_000;
/// Segments in one transaction of at most 128 operations.
const AT_ONCE: u64 = 20;
const N_CLIENTS: u64 = 24;
/// Too many for a merge with others.
const ROWS: i64 = 900_000;
/// One in so many was dropped long ago, and waits for garbage collection, where they are of many
/// collections.
const DROPPED_EVERY: u64 = 10;
const N_SHARDS: usize = 4;
/// The log of statistics that a data node writes at the end, for all rows of the segment.
const WHOLE_STATISTICS: i64 = 1;

/// Writes `n` segments, into one collection that exists or into many of their own.
///
/// # Errors
/// A write failed.
pub async fn load(n: u64, into: Option<Collection>, endpoints: &[String]) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let into = Arc::new(into);
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for nth in 0..N_CLIENTS {
        let endpoint = endpoints[index(nth, endpoints.len())].clone();
        let (next, into) = (Arc::clone(&next), Arc::clone(&into));
        clients.spawn(async move {
            let connection = Connection::open(&endpoint).await?;
            let head = connection.head("/etcdserverpb.KV/Txn")?;
            loop {
                let first = next.fetch_add(AT_ONCE, Ordering::Relaxed);
                if first >= n {
                    return Ok::<(), anyhow::Error>(());
                }
                let last = (first + AT_ONCE).min(n);
                let pairs = (first..last).flat_map(|nth| match &*into {
                    Some(home) => segment(nth, home, SegmentState::Flushed),
                    None => segment(nth, &spread(nth), state_of_spread(nth)),
                });
                let success = pairs.map(put).collect();
                let request = etcd::TxnRequest { success, ..Default::default() };
                let began = Instant::now();
                let written = connection.call(&head, encode(&request)).await;
                written.with_context(|| {
                    let after = began.elapsed();
                    format!("writing segments from {first} on to {endpoint}, after {after:.1?}")
                })?;
                if first % 100_000 < AT_ONCE {
                    report::progress(format!("{} of {} segments", grouped(first), grouped(n)));
                }
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client panicked")??;
    }
    Ok(())
}

/// The collections of the segments that [`load`] writes.
pub(super) fn collections(n: u64) -> Vec<Collection> {
    let ids = (0..n.div_ceil(SEGMENTS_OF_COLLECTION)).map(|nth| FIRST_COLLECTION + nth * 10);
    ids.map(|id| Collection::of(id.cast_signed(), N_SHARDS)).collect()
}

/// Gives each segment that [`load`] writes the statistics of a flushed one, whose folder it is told:
/// a data node reads them before it watches a channel.
///
/// # Errors
/// A link could not be made.
pub fn link_statistics(n: u64, folder: &Path) -> Result<()> {
    let model = folder.file_name().context("the root is no folder of a segment")?;
    for id in (0..n).map(id) {
        let link = folder.with_file_name(id.to_string());
        symlink(model, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(())
}

/// Some of the segments that [`load`] writes.
pub(super) fn ids(n: u64) -> Vec<i64> {
    const SOME: u64 = 10_000;
    let step = usize::try_from((n / SOME).max(1)).unwrap_or(1);
    (1..n).step_by(step).map(id).collect()
}

fn id(nth: u64) -> i64 {
    (FIRST_SEGMENT + nth * 8).cast_signed()
}

fn put((key, value): (String, Vec<u8>)) -> etcd::RequestOp {
    let put = etcd::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(put)) }
}

/// The collection of a segment that is put into none in particular.
fn spread(nth: u64) -> Collection {
    let id = FIRST_COLLECTION + nth / SEGMENTS_OF_COLLECTION * 10;
    Collection::of(id.cast_signed(), N_SHARDS)
}

fn state_of_spread(nth: u64) -> SegmentState {
    match nth.is_multiple_of(DROPPED_EVERY) {
        true => SegmentState::Dropped,
        false => SegmentState::Flushed,
    }
}

/// The record of a segment and those of its logs.
fn segment(nth: u64, home: &Collection, state: SegmentState) -> Vec<(String, Vec<u8>)> {
    let Collection { id: collection, partition, channels } = home;
    let channel = &channels[index(nth, channels.len())];
    let id = id(nth);
    let position = |timestamp| msg::MsgPosition {
        channel_name: channel.clone(),
        msg_id: vec![7; 8].into(),
        timestamp,
        ..Default::default()
    };
    let info = data::SegmentInfo {
        id,
        collection_id: *collection,
        partition_id: *partition,
        insert_channel: channel.clone(),
        num_of_rows: ROWS,
        state: state.into(),
        dropped_at: if state == SegmentState::Dropped { 1 } else { 0 },
        max_row_num: ROWS,
        last_expire_time: FIRST_SEGMENT + nth,
        start_position: Some(position(FIRST_SEGMENT + nth)),
        dml_position: Some(position(FIRST_SEGMENT + nth)),
        ..Default::default()
    };
    let at =
        |area: &str| format!("by-dev/meta/datacoord-meta/{area}/{collection}/{partition}/{id}");
    let mut pairs = vec![(at("s"), info.encode_to_vec())];
    let fields = [0, 1, 100, 101].map(|field| ("binlog", field, id + field % 7 + 1));
    for (area, field_id, log_id) in fields.into_iter().chain([("statslog", 100, WHOLE_STATISTICS)])
    {
        let log = data::Binlog {
            entries_num: ROWS,
            timestamp_from: FIRST_SEGMENT,
            timestamp_to: FIRST_SEGMENT + nth,
            log_size: 16 << 20,
            log_id,
            ..Default::default()
        };
        let logs = data::FieldBinlog { field_id, binlogs: vec![log] };
        pairs.push((format!("{}/{field_id}", at(area)), logs.encode_to_vec()));
    }
    pairs
}
