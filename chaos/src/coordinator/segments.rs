//! Flushed segments of four fields, written as a stock coordinator would have: six keys each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use prost::Message;
use proto::etcd;
use proto::milvus::{common, data, msg};
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
/// One in so many was dropped long ago, and waits for garbage collection.
const DROPPED_EVERY: u64 = 10;
const N_SHARDS: usize = 4;

/// Writes `n` segments.
///
/// # Errors
/// A write failed.
pub async fn load(n: u64, endpoints: &[String]) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for nth in 0..N_CLIENTS {
        let endpoint = endpoints[index(nth, endpoints.len())].clone();
        let next = Arc::clone(&next);
        clients.spawn(async move {
            let connection = Connection::open(&endpoint).await?;
            let head = connection.head("/etcdserverpb.KV/Txn")?;
            loop {
                let first = next.fetch_add(AT_ONCE, Ordering::Relaxed);
                if first >= n {
                    return Ok::<(), anyhow::Error>(());
                }
                let last = (first + AT_ONCE).min(n);
                let success = (first..last).flat_map(segment).map(put).collect();
                let request = etcd::TxnRequest { success, ..Default::default() };
                connection.call(&head, encode(&request)).await.context("writing segments")?;
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

/// The record of a segment and those of its logs.
fn segment(nth: u64) -> Vec<(String, Vec<u8>)> {
    let home = Collection::of(
        (FIRST_COLLECTION + nth / SEGMENTS_OF_COLLECTION * 10).cast_signed(),
        N_SHARDS,
    );
    let (collection, partition) = (home.id, home.partition());
    let channel = &home.channels[index(nth, home.channels.len())];
    let id = id(nth);
    let is_dropped = nth.is_multiple_of(DROPPED_EVERY);
    let state = match is_dropped {
        true => common::SegmentState::Dropped,
        false => common::SegmentState::Flushed,
    };
    let position = |timestamp| msg::MsgPosition {
        channel_name: channel.clone(),
        msg_id: vec![7; 8].into(),
        timestamp,
        ..Default::default()
    };
    let info = data::SegmentInfo {
        id,
        collection_id: collection,
        partition_id: partition,
        insert_channel: channel.clone(),
        num_of_rows: ROWS,
        state: state.into(),
        dropped_at: if is_dropped { 1 } else { 0 },
        max_row_num: ROWS,
        last_expire_time: FIRST_SEGMENT + nth,
        start_position: Some(position(FIRST_SEGMENT + nth)),
        dml_position: Some(position(FIRST_SEGMENT + nth)),
        ..Default::default()
    };
    let at =
        |area: &str| format!("by-dev/meta/datacoord-meta/{area}/{collection}/{partition}/{id}");
    let mut pairs = vec![(at("s"), info.encode_to_vec())];
    let fields = [0, 1, 100, 101].map(|field| ("binlog", field));
    for (area, field_id) in fields.into_iter().chain([("statslog", 100)]) {
        let log = data::Binlog {
            entries_num: ROWS,
            timestamp_from: FIRST_SEGMENT,
            timestamp_to: FIRST_SEGMENT + nth,
            log_size: 16 << 20,
            log_id: id + field_id % 7 + 1,
            ..Default::default()
        };
        let logs = data::FieldBinlog { field_id, binlogs: vec![log] };
        pairs.push((format!("{}/{field_id}", at(area)), logs.encode_to_vec()));
    }
    pairs
}
