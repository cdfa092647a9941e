//! Operations of the etcd v3 API, drawn at random.

use proto::etcd;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcd::range_request::{SortOrder, SortTarget};
use proto::etcd::request_op::Request;
use rand::Rng;
use rand::rngs::StdRng;

const KEYS: [&[u8]; 10] =
    [b"a", b"a/", b"a/1", b"a/2", b"a/3", b"b", b"b\0", b"c/long/path", b"\xff", b"\xff\xff"];
const ENDS: [&[u8]; 6] = [b"", b"\0", b"b", b"a0", b"c/m", b"\xff\xff\xff"];
const LEASES: std::ops::RangeInclusive<i64> = 1..=6;

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Range(etcd::RangeRequest),
    Put(etcd::PutRequest),
    Delete(etcd::DeleteRangeRequest),
    Txn(etcd::TxnRequest),
    Compact(etcd::CompactionRequest),
    Grant(etcd::LeaseGrantRequest),
    Revoke(etcd::LeaseRevokeRequest),
    TimeToLive(etcd::LeaseTimeToLiveRequest),
    Leases,
    /// A watch from a past revision, read until the event of `through`.
    Watch {
        create: etcd::WatchCreateRequest,
        through: i64,
    },
}

impl Operation {
    /// Answered from what one node has applied.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Operation::Range(range) => range.serializable,
            // Without a range that asks for more, etcd answers a reading one from local state.
            Operation::Txn(txn) => txn.success.is_empty() && txn.failure.is_empty(),
            Operation::TimeToLive(_) | Operation::Leases => true,
            Operation::Put(_)
            | Operation::Delete(_)
            | Operation::Compact(_)
            | Operation::Grant(_)
            | Operation::Revoke(_)
            | Operation::Watch { .. } => false,
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        match self {
            Operation::Txn(_) => !self.is_local(),
            Operation::Put(_)
            | Operation::Delete(_)
            | Operation::Compact(_)
            | Operation::Grant(_)
            | Operation::Revoke(_) => true,
            Operation::Range(_)
            | Operation::TimeToLive(_)
            | Operation::Leases
            | Operation::Watch { .. } => false,
        }
    }
}

/// Draws operations, and knows roughly which revisions exist.
pub(crate) struct Draw {
    revision: i64,
    compacted: i64,
    n_values: u64,
}

impl Default for Draw {
    fn default() -> Draw {
        Draw { revision: 1, compacted: 0, n_values: 0 }
    }
}

impl Draw {
    pub(crate) fn next(&mut self, random: &mut StdRng) -> Operation {
        match random.random_range(0..100) {
            0..34 => Operation::Put(self.put(random)),
            34..60 => Operation::Range(self.range(random)),
            60..68 => Operation::Delete(delete(random)),
            68..84 => Operation::Txn(self.txn(random, 2)),
            84..88 => Operation::Txn(self.undoing_txn(random)),
            88..92 => Operation::Grant(etcd::LeaseGrantRequest {
                id: random.random_range(LEASES),
                ttl: [3_600, 100_000, 9_000_000_000, 9_000_000_001][random.random_range(0..4)],
            }),
            92..94 => {
                Operation::Revoke(etcd::LeaseRevokeRequest { id: random.random_range(LEASES) })
            }
            94..97 => Operation::TimeToLive(etcd::LeaseTimeToLiveRequest {
                id: random.random_range(LEASES),
                keys: random.random_bool(0.8),
            }),
            97..98 => Operation::Leases,
            _ => Operation::Compact(etcd::CompactionRequest {
                revision: random.random_range(self.compacted - 3..=self.revision + 2),
                physical: random.random_bool(0.3),
            }),
        }
    }

    /// Takes the revision out of an answer, which is the only place where it is known.
    pub(crate) fn learn(&mut self, operation: &Operation, answer: &str) {
        if let Some((_, rest)) = answer.split_once("revision: ") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            self.revision = digits.parse().unwrap_or(self.revision).max(self.revision);
        }
        if let Operation::Compact(compact) = operation
            && answer.starts_with("Ok")
        {
            self.compacted = compact.revision;
        }
    }

    /// All keys now, and every event that is kept, in the shapes in which they can be asked for.
    pub(crate) fn whole_history(&self) -> Vec<Operation> {
        let all = etcd::RangeRequest {
            key: b"\0".as_slice().into(),
            range_end: b"\0".as_slice().into(),
            ..Default::default()
        };
        let watch = |filters: Vec<i32>, prev_kv: bool| Operation::Watch {
            create: etcd::WatchCreateRequest {
                key: b"\0".as_slice().into(),
                range_end: b"\0".as_slice().into(),
                // Whether the tombstone at the compacted revision is kept differs between etcds.
                start_revision: self.compacted + 1,
                prev_kv,
                filters,
                ..Default::default()
            },
            through: self.revision,
        };
        let n_middle = i64::midpoint(self.compacted, self.revision);
        let past = etcd::RangeRequest { revision: n_middle, ..all.clone() };
        // The previous pair of the first kept revision may be compacted: asked for without.
        vec![Operation::Range(all), Operation::Range(past), watch(vec![], false), {
            let Operation::Watch { mut create, through } = watch(vec![], true) else {
                unreachable!("made as a watch")
            };
            create.start_revision = n_middle + 1;
            Operation::Watch { create, through }
        }]
    }

    fn put(&mut self, random: &mut StdRng) -> etcd::PutRequest {
        self.n_values += 1;
        let ignore_value = random.random_bool(0.05);
        let value = if ignore_value && random.random_bool(0.8) {
            String::new()
        } else {
            format!("value {}", self.n_values % 7)
        };
        etcd::PutRequest {
            key: key(random),
            value: value.into(),
            lease: if random.random_bool(0.2) { random.random_range(LEASES) } else { 0 },
            prev_kv: random.random_bool(0.3),
            ignore_value,
            ignore_lease: random.random_bool(0.05),
        }
    }

    fn range(&self, random: &mut StdRng) -> etcd::RangeRequest {
        let mut range = etcd::RangeRequest {
            key: key(random),
            range_end: end(random),
            limit: [0, 0, 1, 2, 5][random.random_range(0..5)],
            serializable: random.random_bool(0.2),
            keys_only: random.random_bool(0.1),
            count_only: random.random_bool(0.1),
            ..Default::default()
        };
        if random.random_bool(0.3) {
            range.revision = random.random_range(self.compacted - 2..=self.revision + 1).max(0);
        }
        if random.random_bool(0.3) {
            let targets = [
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ];
            let target = targets[random.random_range(0..5)];
            range.sort_target = target.into();
            let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
            range.sort_order = orders[random.random_range(0..3)].into();
            if target != SortTarget::Key {
                // Which of equal ones is cut is open.
                range.limit = 0;
            }
        }
        let around = |random: &mut StdRng| random.random_range(1..=self.revision + 1);
        if random.random_bool(0.1) {
            range.min_mod_revision = around(random);
        }
        if random.random_bool(0.1) {
            range.max_create_revision = around(random);
        }
        if random.random_bool(0.05) {
            range.max_mod_revision = around(random);
            range.min_create_revision = around(random);
        }
        range
    }

    fn txn(&mut self, random: &mut StdRng, depth: usize) -> etcd::TxnRequest {
        let n_compares = random.random_range(0..3);
        let compare = (0..n_compares).map(|_| self.compare(random)).collect();
        etcd::TxnRequest {
            compare,
            success: self.branch(random, depth),
            failure: self.branch(random, depth),
        }
    }

    /// Nested transactions that put and delete the same keys: in one order etcd takes them, in the
    /// other it does not.
    fn undoing_txn(&mut self, random: &mut StdRng) -> etcd::TxnRequest {
        let mut success = Vec::new();
        for _ in 0..random.random_range(2..5) {
            let mut put = self.put(random);
            put.ignore_value = false;
            put.ignore_lease = false;
            put.lease = 0;
            let mut delete = delete_inside(random);
            if random.random_bool(0.5) {
                delete.key = put.key.clone();
                delete.range_end = Default::default();
            }
            let write = match random.random_bool(0.5) {
                true => Request::RequestPut(put),
                false => Request::RequestDeleteRange(delete),
            };
            let write = vec![etcd::RequestOp { request: Some(write) }];
            let nested = match random.random_bool(0.8) {
                true => etcd::TxnRequest { success: write, ..Default::default() },
                false => etcd::TxnRequest { failure: write, ..Default::default() },
            };
            success.push(etcd::RequestOp { request: Some(Request::RequestTxn(nested)) });
        }
        etcd::TxnRequest { success, ..Default::default() }
    }

    fn branch(&mut self, random: &mut StdRng, depth: usize) -> Vec<etcd::RequestOp> {
        let n_ops = random.random_range(0..4);
        (0..n_ops).map(|_| self.op(random, depth)).collect()
    }

    fn op(&mut self, random: &mut StdRng, depth: usize) -> etcd::RequestOp {
        let request = match random.random_range(0..10) {
            0..4 => {
                let mut put = self.put(random);
                // Several faults at once could be told in another order.
                put.ignore_lease = false;
                if put.ignore_value {
                    put.value.clear();
                }
                Request::RequestPut(put)
            }
            4..7 => {
                let mut range = self.range(random);
                range.serializable = false;
                range.revision = 0;
                Request::RequestRange(range)
            }
            7..9 => Request::RequestDeleteRange(delete_inside(random)),
            _ if depth > 0 => Request::RequestTxn(self.txn(random, depth - 1)),
            _ => Request::RequestDeleteRange(delete_inside(random)),
        };
        etcd::RequestOp { request: Some(request) }
    }

    fn compare(&self, random: &mut StdRng) -> etcd::Compare {
        let results = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        let revision = random.random_range(0..=self.revision + 1);
        let (target, union) = match random.random_range(0..5) {
            0 => (CompareTarget::Version, TargetUnion::Version(random.random_range(-1..4))),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(revision)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(revision)),
            3 => (CompareTarget::Lease, TargetUnion::Lease(random.random_range(0..=6))),
            _ => {
                let value = format!("value {}", random.random_range(0..7));
                (CompareTarget::Value, TargetUnion::Value(value.into()))
            }
        };
        // What no enum knows: etcd takes any relation as true and any target as equal.
        let unknown = |random: &mut StdRng| random.random_bool(0.03);
        etcd::Compare {
            result: if unknown(random) { 7 } else { results[random.random_range(0..4)].into() },
            target: if unknown(random) { 9 } else { target.into() },
            key: key(random),
            target_union: Some(union),
            range_end: if random.random_bool(0.2) { end(random) } else { Default::default() },
        }
    }
}

fn delete(random: &mut StdRng) -> etcd::DeleteRangeRequest {
    let whole_ranges = random.random_bool(0.4);
    etcd::DeleteRangeRequest {
        key: key(random),
        range_end: if whole_ranges { end(random) } else { Default::default() },
        prev_kv: random.random_bool(0.5),
    }
}

/// A delete inside of a transaction. One to the end of the keyspace is left out: etcd does not see
/// that it covers a put of the same branch, and ours refuses the two as a duplicate key.
fn delete_inside(random: &mut StdRng) -> etcd::DeleteRangeRequest {
    let mut delete = delete(random);
    if delete.range_end.as_ref() == b"\0" || delete.range_end <= delete.key {
        delete.range_end = Default::default();
    }
    delete
}

fn key<T: From<&'static [u8]> + Default>(random: &mut StdRng) -> T {
    if random.random_bool(0.01) { T::default() } else { KEYS[random.random_range(0..10)].into() }
}

fn end<T: From<&'static [u8]>>(random: &mut StdRng) -> T {
    ENDS[random.random_range(0..6)].into()
}
