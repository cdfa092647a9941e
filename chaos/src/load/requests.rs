//! The unary operations of the load generator.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use proto::etcd;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::wire::{Connection, Head, encode};
use super::{Latencies, Meter, Op, latencies};

/// Keys of puts and gets, 8 bytes each.
const N_KEYS: u64 = 10_000;
pub(super) const VALUE_BYTES: usize = 256;
/// Keys in the range that is listed.
const N_RANGE: u64 = 1_000;
const RANGE_PREFIX: &str = "range/";
const N_TXN_OPS: usize = 10;
/// etcd takes at most 128 operations in a transaction.
const LOAD_OPS: u64 = 100;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";

fn key(number: u64) -> Bytes {
    format!("k{number:07}").into()
}

fn value() -> Bytes {
    vec![b'v'; VALUE_BYTES].into()
}

fn put(key: Bytes, value: Bytes) -> etcd::PutRequest {
    etcd::PutRequest { key, value, ..Default::default() }
}

fn txn(puts: impl IntoIterator<Item = etcd::PutRequest>) -> etcd::TxnRequest {
    let success = puts
        .into_iter()
        .map(|it| etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(it)) })
        .collect();
    etcd::TxnRequest { success, ..Default::default() }
}

/// Writes what the operation reads.
pub(super) async fn prepare(connections: &[Connection], op: Op) -> Result<()> {
    let keys: Vec<Bytes> = match op {
        Op::Get | Op::GetSerializable => (0..N_KEYS).map(key).collect(),
        Op::Range => {
            (0..N_RANGE).map(|number| format!("{RANGE_PREFIX}{number:06}").into()).collect()
        }
        Op::Put | Op::Txn | Op::Watch | Op::KeepAlive => return Ok(()),
    };
    let connection = &connections[0];
    let head = connection.head(TXN)?;
    for batch in keys.chunks(usize::try_from(LOAD_OPS)?) {
        let request = txn(batch.iter().map(|key| put(key.clone(), value())));
        connection.call(&head, encode(&request)).await?;
    }
    // The serializable reads of a node that lags would find nothing.
    for connection in connections {
        let last = keys.last().cloned().unwrap_or_default();
        let request = etcd::RangeRequest { key: last, ..Default::default() };
        connection.call(&connection.head(RANGE)?, encode(&request)).await?;
    }
    Ok(())
}

/// The calls of one client.
pub(super) struct Calls {
    op: Op,
    number: usize,
    random: SmallRng,
    value: Bytes,
}

impl Calls {
    pub(super) fn new(op: Op, number: usize) -> Calls {
        let seed = u64::try_from(number).unwrap_or(0);
        Calls { op, number, random: SmallRng::seed_from_u64(seed), value: value() }
    }

    fn path(&self) -> &'static str {
        match self.op {
            Op::Put => PUT,
            Op::Txn => TXN,
            Op::Get | Op::GetSerializable | Op::Range | Op::Watch | Op::KeepAlive => RANGE,
        }
    }

    /// Less than this in an answer is a wrong answer.
    fn answer_bytes_min(&self) -> usize {
        match self.op {
            Op::Get | Op::GetSerializable => VALUE_BYTES,
            Op::Range => VALUE_BYTES * usize::try_from(N_RANGE).unwrap_or(0),
            Op::Txn => N_TXN_OPS,
            Op::Put | Op::Watch | Op::KeepAlive => 1,
        }
    }

    fn random_key(&mut self) -> Bytes {
        key(self.random.random_range(0..N_KEYS))
    }

    fn next(&mut self) -> Bytes {
        match self.op {
            Op::Put => encode(&put(self.random_key(), self.value.clone())),
            Op::Get | Op::GetSerializable => encode(&etcd::RangeRequest {
                key: self.random_key(),
                serializable: self.op == Op::GetSerializable,
                ..Default::default()
            }),
            Op::Range | Op::Watch | Op::KeepAlive => encode(&etcd::RangeRequest {
                key: RANGE_PREFIX.into(),
                range_end: crate::client::prefix_end(RANGE_PREFIX),
                ..Default::default()
            }),
            Op::Txn => {
                // One key twice would be refused.
                let first = self.random.random_range(0..N_KEYS);
                let step = N_KEYS / 10;
                let keys = (0..N_TXN_OPS as u64).map(|at| key((first + at * step) % N_KEYS));
                encode(&txn(keys.map(|key| put(key, self.value.clone()))))
            }
        }
    }
}

/// One client: the next call when the last one is answered, on the next connection in turn, as the
/// balancer of etcd's own client does.
pub(super) async fn run(
    mut calls: Calls,
    connections: Arc<Vec<Connection>>,
    meter: Arc<Meter>,
) -> Result<Latencies> {
    let heads: Vec<Head> =
        connections.iter().map(|it| it.head(calls.path())).collect::<Result<_>>()?;
    let mut latencies = latencies();
    let mut turn = calls.number;
    let at_least = calls.answer_bytes_min();
    while meter.goes_on() {
        turn = (turn + 1) % connections.len();
        let message = calls.next();
        let began = Instant::now();
        match connections[turn].call(&heads[turn], message).await {
            Ok(answer) => {
                ensure!(
                    answer.len() >= at_least,
                    "an answer of {} bytes where at least {at_least} were due",
                    answer.len()
                );
                meter.record(&mut latencies, began);
            }
            Err(error) => meter.fail(&error).await,
        }
    }
    Ok(latencies)
}
