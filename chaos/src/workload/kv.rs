//! Registers, swaps, deletes, transactions and reads of both kinds.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::etcd;
use rand::Rng;
use rand::rngs::StdRng;

use super::{PATIENCE, Setting, any_node};
use crate::client::{Client, never_sent, prefix_end, within};
use crate::history::{Answer, Asked, NEVER_US, Operation, REGISTERS, Seen, Serial, value_of};

/// Registers are renewed this often, so that the search of each one stays short.
const EPOCH_US: u64 = 4_000_000;
const REGISTERS_PER_EPOCH: u64 = 8;
const MANY: &str = "many/";
const MANY_KEYS: u64 = 12;

/// One client until the run drains.
pub async fn run(mut setting: Setting, number: usize, think: Duration, mut random: StdRng) {
    let mut known: BTreeMap<String, Option<Serial>> = BTreeMap::new();
    let home = number % setting.nodes.len();
    while setting.phase.is_running() {
        let node = if random.random_ratio(4, 5) { home } else { any_node(&setting, &mut random) };
        let asked = ask(&setting, &known, &mut random);
        // Some large ones, so that logs are purged and snapshots are due within seconds.
        let large = random.random_ratio(1, 5);
        let n_bytes = random.random_range(if large { 4000..16_000 } else { 10..300 });
        let call_us = setting.recorder.now_us();
        let result = perform(&setting.nodes[node], &asked, n_bytes).await;
        let return_us = setting.recorder.now_us();
        match result {
            Ok(answer) => {
                remember(&mut known, &asked, &answer);
                let answer = Some(answer);
                setting.recorder.operation(Operation { node, call_us, return_us, asked, answer });
                setting.phase.pause(think).await;
            }
            Err(status) => {
                if !never_sent(&status) && !matches!(asked, Asked::Read { .. }) {
                    let return_us = NEVER_US;
                    let operation = Operation { node, call_us, return_us, asked, answer: None };
                    setting.recorder.operation(operation);
                }
                setting.phase.pause(Duration::from_millis(50)).await;
            }
        }
        if known.len() > 64 {
            known.pop_first();
        }
    }
}

fn ask(setting: &Setting, known: &BTreeMap<String, Option<Serial>>, random: &mut StdRng) -> Asked {
    let serial = || setting.recorder.serial();
    let epoch = setting.recorder.now_us() / EPOCH_US;
    let register = random.random_range(0..REGISTERS_PER_EPOCH);
    let key = format!("{REGISTERS}{epoch:05}/{register}");
    match random.random_range(0..100) {
        0..25 => Asked::Put { key, serial: serial(), lease: 0 },
        25..40 => {
            let expected = known.get(&key).copied().unwrap_or(None);
            Asked::Swap { key, expected, serial: serial() }
        }
        40..46 => Asked::Delete { key },
        46..65 => Asked::Read { key, prefix: false, serializable: false },
        65..70 => Asked::Read { key, prefix: false, serializable: true },
        70..84 => {
            let first = random.random_range(0..MANY_KEYS);
            let n_puts = random.random_range(2..5);
            let puts = (0..n_puts)
                .map(|at| (format!("{MANY}{:02}", (first + at * 2) % MANY_KEYS), serial()))
                .collect();
            Asked::PutMany { puts }
        }
        84..86 => Asked::Delete { key: format!("{MANY}{:02}", random.random_range(0..MANY_KEYS)) },
        86..94 => Asked::Read { key: MANY.to_owned(), prefix: true, serializable: false },
        _ => Asked::Read { key: MANY.to_owned(), prefix: true, serializable: true },
    }
}

/// What a client believes about a register, so that its swaps succeed now and then.
fn remember(known: &mut BTreeMap<String, Option<Serial>>, asked: &Asked, answer: &Answer) {
    let (key, value) = match (asked, answer) {
        (Asked::Put { key, serial, .. }, _) => (key, Some(*serial)),
        (Asked::Swap { key, serial, .. }, Answer::Swapped { succeeded: true, .. }) => {
            (key, Some(*serial))
        }
        (Asked::Swap { key, .. }, Answer::Swapped { found, .. }) => {
            (key, found.as_ref().map(|seen| seen.serial))
        }
        (Asked::Delete { key }, _) => (key, None),
        (Asked::Read { key, prefix: false, .. }, Answer::Read { found, .. }) => {
            (key, found.first().map(|seen| seen.serial))
        }
        _ => return,
    };
    known.insert(key.clone(), value);
}

/// Asks one node, once.
///
/// # Errors
/// The node's own, or the deadline.
pub async fn perform(
    node: &Client,
    asked: &Asked,
    n_bytes: usize,
) -> Result<Answer, tonic::Status> {
    let mut kv = node.kv();
    let revision = |header: Option<etcd::ResponseHeader>| header.map_or(0, |it| it.revision);
    match asked {
        Asked::Put { key, serial, lease } => {
            let request = put(key, *serial, *lease, n_bytes);
            let response = within(PATIENCE, kv.put(request)).await?;
            Ok(Answer::Written { revision: revision(response.header) })
        }
        Asked::PutMany { puts } => {
            let success = puts.iter().map(|(key, it)| put_op(put(key, *it, 0, n_bytes))).collect();
            let request = etcd::TxnRequest { success, ..Default::default() };
            let response = within(PATIENCE, kv.txn(request)).await?;
            Ok(Answer::Written { revision: revision(response.header) })
        }
        Asked::Swap { key, expected, serial } => {
            let request = swap(key, *expected, *serial, n_bytes);
            let response = within(PATIENCE, kv.txn(request)).await?;
            let found = response.responses.first().and_then(|op| match &op.response {
                Some(etcd::response_op::Response::ResponseRange(range)) => {
                    range.kvs.first().map(Seen::parse)
                }
                _ => None,
            });
            Ok(Answer::Swapped {
                revision: revision(response.header),
                succeeded: response.succeeded,
                found,
            })
        }
        Asked::Delete { key } => {
            let request =
                etcd::DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
            let response = within(PATIENCE, kv.delete_range(request)).await?;
            let n_deleted = response.deleted;
            Ok(Answer::Deleted { revision: revision(response.header), n_deleted })
        }
        Asked::Read { key, prefix, serializable } => {
            let range_end = if *prefix { prefix_end(key) } else { bytes::Bytes::new() };
            let request = etcd::RangeRequest {
                key: key.clone().into(),
                range_end,
                serializable: *serializable,
                ..Default::default()
            };
            let response = within(PATIENCE, kv.range(request)).await?;
            let found = response.kvs.iter().map(Seen::parse).collect();
            Ok(Answer::Read { revision: revision(response.header), found })
        }
        Asked::Revoke { lease } => {
            let request = etcd::LeaseRevokeRequest { id: *lease };
            let response = within(PATIENCE, node.lease().lease_revoke(request)).await?;
            Ok(Answer::Written { revision: revision(response.header) })
        }
    }
}

fn put(key: &str, serial: Serial, lease: i64, n_bytes: usize) -> etcd::PutRequest {
    etcd::PutRequest {
        key: key.to_owned().into(),
        value: value_of(serial, n_bytes).into(),
        lease,
        ..Default::default()
    }
}

fn put_op(request: etcd::PutRequest) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(request)) }
}

/// Values are padded to random lengths, so the comparison is of the value's beginning. A colon comes
/// after every digit and before the semicolon: all values of serial 7 lie between `79\xff` and `7;`.
fn swap(key: &str, expected: Option<Serial>, serial: Serial, n_bytes: usize) -> etcd::TxnRequest {
    use etcd::compare::{CompareResult, CompareTarget, TargetUnion};
    let compare =
        |result: CompareResult, target: CompareTarget, union: TargetUnion| etcd::Compare {
            result: result as i32,
            target: target as i32,
            key: key.to_owned().into(),
            target_union: Some(union),
            ..Default::default()
        };
    let value = |bytes: Vec<u8>| TargetUnion::Value(bytes.into());
    let compare = match expected {
        None => {
            vec![compare(CompareResult::Equal, CompareTarget::Version, TargetUnion::Version(0))]
        }
        Some(serial) => {
            let low = [serial.to_string().as_bytes(), b"9\xff"].concat();
            let high = [serial.to_string().as_bytes(), b";"].concat();
            vec![
                compare(CompareResult::Greater, CompareTarget::Value, value(low)),
                compare(CompareResult::Less, CompareTarget::Value, value(high)),
            ]
        }
    };
    let read = etcd::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    etcd::TxnRequest {
        compare,
        success: vec![put_op(put(key, serial, 0, n_bytes))],
        failure: vec![etcd::RequestOp {
            request: Some(etcd::request_op::Request::RequestRange(read)),
        }],
    }
}
