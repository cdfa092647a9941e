//! Requests that are well formed and cost far more than they weigh.

use bytes::Bytes;
use prost::Message;
use proto::etcd;
use proto::etcd::request_op::Request as Op;
use rand::Rng;
use rand::rngs::StdRng;

use super::attack::Target;
use crate::client::{prefix_end, within};

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// What huge reads and deletes are made on.
const PREFIX: &str = "hostile/";
const KEYS: u64 = 2_000;

fn everything() -> etcd::RangeRequest {
    etcd::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    }
}

fn op(request: Op) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

fn put(key: String, value: usize) -> etcd::PutRequest {
    etcd::PutRequest { key: key.into(), value: vec![b'v'; value].into(), ..Default::default() }
}

/// Transactions within transactions, each with as many operations as one may have.
pub(super) async fn bombs(target: Target, mut rng: StdRng) {
    const NAME: &str = "bombs of nested transactions";
    while !target.is_over() {
        let width = rng.random_range(1..=100);
        let depth = rng.random_range(1..=3);
        let mut txn = leaf(&mut rng, width);
        for _ in 0..depth {
            // Each level once more than is polite, within what a request may weigh.
            let n_copies = (100 / txn.encoded_len().div_ceil(10_000).max(1)).max(1);
            let copies = vec![op(Op::RequestTxn(txn.clone())); n_copies];
            txn = etcd::TxnRequest { success: copies, ..Default::default() };
            txn.failure.clone_from(&txn.success);
            if txn.encoded_len() > 700_000 {
                break;
            }
        }
        // One write makes it a command of the log.
        txn.success.push(op(Op::RequestPut(put(format!("{PREFIX}bomb"), 10))));
        let mut kv = target.client(&mut rng).kv();
        target.note(NAME, within(PATIENCE, kv.txn(txn)).await).await;
    }
}

fn leaf(rng: &mut StdRng, width: usize) -> etcd::TxnRequest {
    let kind = rng.random_range(0..3);
    let ops = (0..width).map(|n| match kind {
        0 => op(Op::RequestRange(everything())),
        1 => op(Op::RequestPut(put(format!("{PREFIX}{n:06}"), 1))),
        _ => op(Op::RequestDeleteRange(etcd::DeleteRangeRequest {
            key: format!("{PREFIX}a{n:06}").into(),
            range_end: format!("{PREFIX}b{n:06}").into(),
            prev_kv: true,
        })),
    });
    let success = ops.collect();
    let compare = etcd::Compare {
        key: PREFIX.into(),
        range_end: prefix_end(PREFIX),
        target: etcd::compare::CompareTarget::Value.into(),
        target_union: Some(etcd::compare::TargetUnion::Value(vec![b'v'; 10].into())),
        ..Default::default()
    };
    etcd::TxnRequest { compare: vec![compare], success, ..Default::default() }
}

/// Fills a prefix, reads all of it in every costly way, and deletes it in one go.
pub(super) async fn huge(target: Target, mut rng: StdRng) {
    const NAME: &str = "huge ranges and deletes";
    while !target.is_over() {
        let client = target.client(&mut rng);
        for first in (0..KEYS).step_by(100) {
            if target.is_over() {
                return;
            }
            let ops = (first..first + 100)
                .map(|n| op(Op::RequestPut(put(format!("{PREFIX}{n:06}"), 1_000))))
                .collect();
            let fill = etcd::TxnRequest { success: ops, ..Default::default() };
            target.note(NAME, within(PATIENCE, client.kv().txn(fill)).await).await;
        }
        for _ in 0..5 {
            let read = etcd::RangeRequest {
                sort_order: etcd::range_request::SortOrder::Descend.into(),
                sort_target: etcd::range_request::SortTarget::Value.into(),
                max_mod_revision: i64::MAX,
                serializable: rng.random(),
                ..everything()
            };
            target.note(NAME, client.range(read, PATIENCE).await).await;
        }
        let delete = etcd::DeleteRangeRequest {
            key: PREFIX.into(),
            range_end: prefix_end(PREFIX),
            prev_kv: true,
        };
        target.note(NAME, within(PATIENCE, client.kv().delete_range(delete)).await).await;
    }
}

/// Two bytes on the wire for each element, a hundred and more in memory.
pub(super) async fn empty_elements(target: Target, mut rng: StdRng) {
    const NAME: &str = "empty elements";
    while !target.is_over() {
        let n_elements = rng.random_range(100_000..700_000);
        let txn = etcd::TxnRequest {
            compare: vec![etcd::Compare::default(); n_elements],
            ..Default::default()
        };
        let mut kv = target.client(&mut rng).kv();
        target.note(NAME, within(PATIENCE, kv.txn(txn)).await).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sessions of Milvus that no Milvus wrote.
pub(super) async fn forged_sessions(target: Target, mut rng: StdRng) {
    const NAME: &str = "forged session keys";
    let roles = ["datanode", "indexnode", "rootcoord", "datacoord", "proxy", "querynode", "", "id"];
    while !target.is_over() {
        let role = roles[rng.random_range(0..roles.len())];
        let id: i64 = rng.random();
        let key = format!("by-dev/meta/session/{role}-{id}");
        let value = match rng.random_range(0..4) {
            0 => format!(
                r#"{{"ServerID":{id},"ServerName":"{role}","Address":"127.0.0.1:1","Version":"2.3.5"}}"#
            ),
            1 => format!(r#"{{"ServerID":"{id}","Address":{{}}}}"#),
            2 => "[".repeat(20_000),
            _ => (0..rng.random_range(0..2_000)).map(|_| char::from(rng.random::<u8>())).collect(),
        };
        let client = target.client(&mut rng);
        target.note(NAME, client.put(key.clone(), value, PATIENCE).await).await;
        if rng.random_bool(0.7) {
            let delete = etcd::DeleteRangeRequest { key: key.into(), ..Default::default() };
            target.note(NAME, within(PATIENCE, client.kv().delete_range(delete)).await).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Refusals that repeat what was sent would not fit their headers.
pub(super) async fn long_keys(target: Target, mut rng: StdRng) {
    const NAME: &str = "errors that name long keys";
    while !target.is_over() {
        let key = "k".repeat(rng.random_range(9_000..200_000));
        let twice = vec![op(Op::RequestPut(put(key, 1))); 2];
        let txn = etcd::TxnRequest { success: twice, ..Default::default() };
        let mut kv = target.client(&mut rng).kv();
        target.note(NAME, within(PATIENCE, kv.txn(txn)).await).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Each reads every version of every key.
pub(super) async fn hashes(target: Target, mut rng: StdRng) {
    const NAME: &str = "hashes of everything";
    while !target.is_over() {
        let mut maintenance = target.client(&mut rng).maintenance();
        let hash = maintenance.hash_kv(etcd::HashKvRequest::default());
        target.note(NAME, within(PATIENCE, hash).await).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
