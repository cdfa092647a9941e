//! Random commands over a keyspace so small that everything collides.
//!
//! Revisions are chosen before the history that they point into is known, so a strategy yields
//! them relative to it: `bind` turns them into absolute ones when the command's turn comes.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use proto::etcd;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcd::request_op::Request;
use proto::quorate::command::Kind;
use proto::quorate::{ChangeSettings, ExpireLeases};

/// One step of a random history.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Command(Kind),
    /// A read, which is not replicated.
    Range(etcd::RangeRequest),
    /// Deletes the rows that compaction made unreachable, so many at a time.
    CompactRows {
        changes_max: usize,
    },
}

/// Revisions that relative ones are taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

/// A relative revision is encoded as: 0 for itself, 1.. counted back from two past the newest,
/// 1001.. counted up from one below the compacted one.
fn relative_revision() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => Just(0),
        4 => 1i64..12,
        1 => 12i64..60,
        2 => 1001i64..1005,
    ]
}

impl Clock {
    fn bind(self, relative: &mut i64) {
        let absolute = match *relative {
            0 => 0,
            back if back < 1000 => self.revision + 3 - back,
            up => self.compacted + up - 1002,
        };
        *relative = absolute.max(0);
    }

    fn bind_range(self, range: &mut etcd::RangeRequest) {
        self.bind(&mut range.revision);
        self.bind(&mut range.min_mod_revision);
        self.bind(&mut range.max_mod_revision);
        self.bind(&mut range.min_create_revision);
        self.bind(&mut range.max_create_revision);
    }

    fn bind_txn(self, txn: &mut etcd::TxnRequest) {
        for compare in &mut txn.compare {
            match &mut compare.target_union {
                Some(
                    TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision),
                ) => {
                    self.bind(revision);
                }
                Some(TargetUnion::Version(_) | TargetUnion::Value(_) | TargetUnion::Lease(_))
                | None => {}
            }
        }
        for operation in txn.success.iter_mut().chain(&mut txn.failure) {
            match &mut operation.request {
                Some(Request::RequestRange(range)) => self.bind_range(range),
                Some(Request::RequestTxn(nested)) => self.bind_txn(nested),
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
            }
        }
    }

    /// Makes the step's revisions absolute.
    pub(crate) fn bind_step(self, mut step: Step) -> Step {
        match &mut step {
            Step::Range(range) => self.bind_range(range),
            Step::Command(Kind::Txn(txn)) => self.bind_txn(txn),
            Step::Command(Kind::Compact(compact)) => self.bind(&mut compact.revision),
            Step::Command(_) | Step::CompactRows { .. } => {}
        }
        step
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    let keys: Vec<&'static [u8]> =
        vec![b"a", b"aa", b"ab", b"a\0", b"b", b"ba", b"c", b"\0", b"\xff", b"\xff\xff"];
    prop_oneof![
        60 => select(keys).prop_map(Bytes::from_static),
        1 => Just(Bytes::new()),
    ]
}

/// Start and end.
fn key_range() -> impl Strategy<Value = (Bytes, Bytes)> {
    let end = prop_oneof![
        4 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(b"\0")),
        4 => key(),
        1 => Just(Bytes::from_static(b"b")),
    ];
    prop_oneof![
        9 => (key(), end),
        1 => Just((Bytes::from_static(b"\0"), Bytes::from_static(b"\0"))),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    let values: Vec<&'static [u8]> = vec![b"", b"x", b"y", b"yy", b"\0"];
    select(values).prop_map(Bytes::from_static)
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 2 => 1i64..5]
}

fn weighted(probability: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(probability)
}

pub(crate) fn put() -> impl Strategy<Value = etcd::PutRequest> {
    (key(), value(), lease(), any::<bool>(), weighted(0.1), weighted(0.1), weighted(0.95)).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease, sane)| {
            let value = if ignore_value && sane { Bytes::new() } else { value };
            let lease = if ignore_lease && sane { 0 } else { lease };
            etcd::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
        },
    )
}

pub(crate) fn delete() -> impl Strategy<Value = etcd::DeleteRangeRequest> {
    (key_range(), any::<bool>()).prop_map(|((key, range_end), prev_kv)| etcd::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

pub(crate) fn range() -> impl Strategy<Value = etcd::RangeRequest> {
    let rarely = || prop_oneof![6 => Just(0i64), 1 => relative_revision()];
    (
        key_range(),
        prop_oneof![2 => Just(0i64), 2 => 1i64..5],
        relative_revision(),
        prop_oneof![2 => Just(0i32), 1 => 0i32..3],
        prop_oneof![2 => Just(0i32), 1 => 0i32..5],
        (any::<bool>(), weighted(0.2), weighted(0.1)),
        (rarely(), rarely(), rarely(), rarely()),
    )
        .prop_map(|((key, range_end), limit, revision, order, target, flags, bounds)| {
            etcd::RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order: order,
                sort_target: target,
                serializable: flags.0,
                keys_only: flags.1,
                count_only: flags.2,
                min_mod_revision: bounds.0,
                max_mod_revision: bounds.1,
                min_create_revision: bounds.2,
                max_create_revision: bounds.3,
            }
        })
}

fn compare() -> impl Strategy<Value = etcd::Compare> {
    let union = prop_oneof![
        3 => (0i64..4).prop_map(|n| (CompareTarget::Version, Some(TargetUnion::Version(n)))),
        2 => relative_revision()
            .prop_map(|n| (CompareTarget::Create, Some(TargetUnion::CreateRevision(n)))),
        2 => relative_revision()
            .prop_map(|n| (CompareTarget::Mod, Some(TargetUnion::ModRevision(n)))),
        2 => value().prop_map(|value| (CompareTarget::Value, Some(TargetUnion::Value(value)))),
        2 => lease().prop_map(|id| (CompareTarget::Lease, Some(TargetUnion::Lease(id)))),
        1 => select(vec![
            CompareTarget::Version,
            CompareTarget::Create,
            CompareTarget::Mod,
            CompareTarget::Value,
            CompareTarget::Lease,
        ])
        .prop_map(|target| (target, None)),
    ];
    let known = select(vec![
        CompareResult::Equal,
        CompareResult::NotEqual,
        CompareResult::Greater,
        CompareResult::Less,
    ]);
    let result = prop_oneof![20 => known.prop_map(i32::from), 1 => Just(7)];
    let target = prop_oneof![3 => key().prop_map(|key| (key, Bytes::new())), 1 => key_range()];
    (target, union, result, weighted(0.05)).prop_map(
        |((key, range_end), (target, union), result, is_unknown)| etcd::Compare {
            result,
            target: if is_unknown { 9 } else { target.into() },
            key,
            range_end,
            target_union: union,
        },
    )
}

/// A transaction that nests others up to `depth` times.
pub(crate) fn txn(depth: u32) -> BoxedStrategy<etcd::TxnRequest> {
    let operation = move || {
        let leaf = prop_oneof![
            4 => put().prop_map(Request::RequestPut),
            2 => delete().prop_map(Request::RequestDeleteRange),
            2 => range().prop_map(Request::RequestRange),
        ];
        let request = match depth {
            0 => leaf.boxed(),
            _ => prop_oneof![8 => leaf, 2 => txn(depth - 1).prop_map(Request::RequestTxn)].boxed(),
        };
        prop_oneof![
            80 => request.prop_map(|request| etcd::RequestOp { request: Some(request) }),
            1 => Just(etcd::RequestOp { request: None }),
        ]
    };
    (
        prop::collection::vec(compare(), 0..3),
        prop::collection::vec(operation(), 0..4),
        prop::collection::vec(operation(), 0..4),
    )
        .prop_map(|(compare, success, failure)| etcd::TxnRequest { compare, success, failure })
        .boxed()
}

/// A key that one nested transaction puts and another one deletes.
fn undoing_txn() -> impl Strategy<Value = etcd::TxnRequest> {
    let nested = |request: Request, other: bool| {
        let (mut success, failure) = (vec![etcd::RequestOp { request: Some(request) }], Vec::new());
        let mut nested = etcd::TxnRequest { failure, ..Default::default() };
        if other {
            std::mem::swap(&mut nested.failure, &mut success);
        }
        nested.success = success;
        etcd::RequestOp { request: Some(Request::RequestTxn(nested)) }
    };
    let ranges = || etcd::RequestOp {
        request: Some(Request::RequestRange(etcd::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..Default::default()
        })),
    };
    (put(), delete(), weighted(0.2), weighted(0.1), weighted(0.1)).prop_map(
        move |(put, mut delete, is_reversed, put_else, delete_else)| {
            if delete.range_end.is_empty() {
                delete.key = put.key.clone();
            }
            let mut success = vec![
                nested(Request::RequestPut(put), put_else),
                ranges(),
                nested(Request::RequestDeleteRange(delete), delete_else),
                ranges(),
            ];
            if is_reversed {
                success.swap(0, 2);
            }
            etcd::TxnRequest { success, ..Default::default() }
        },
    )
}

/// Around the bound on the number of operations.
fn wide_txn() -> impl Strategy<Value = etcd::TxnRequest> {
    (126usize..131, 0usize..3).prop_map(|(outer, inner)| {
        let range = |n: usize| etcd::RangeRequest {
            key: Bytes::from(format!("wide{n}")),
            ..Default::default()
        };
        let operation = |n| etcd::RequestOp { request: Some(Request::RequestRange(range(n))) };
        let nested =
            etcd::TxnRequest { success: (0..inner).map(operation).collect(), ..Default::default() };
        let mut success: Vec<etcd::RequestOp> = (1..outer).map(operation).collect();
        success.push(etcd::RequestOp { request: Some(Request::RequestTxn(nested)) });
        etcd::TxnRequest { success, ..Default::default() }
    })
}

fn grant() -> impl Strategy<Value = etcd::LeaseGrantRequest> {
    let ttl = prop_oneof![20 => 1i64..100, 1 => Just(9_000_000_000), 1 => Just(9_000_000_001)];
    (1i64..5, ttl).prop_map(|(id, ttl)| etcd::LeaseGrantRequest { ttl, id })
}

/// What etcd's own clients can ask for.
pub(crate) fn etcd_command() -> impl Strategy<Value = Kind> {
    prop_oneof![
        30 => put().prop_map(Kind::Put),
        12 => delete().prop_map(Kind::DeleteRange),
        30 => txn(2).prop_map(Kind::Txn),
        4 => undoing_txn().prop_map(Kind::Txn),
        1 => wide_txn().prop_map(Kind::Txn),
        4 => relative_revision().prop_map(|revision| {
            Kind::Compact(etcd::CompactionRequest { revision, physical: false })
        }),
        8 => grant().prop_map(Kind::LeaseGrant),
        4 => (1i64..5).prop_map(|id| Kind::LeaseRevoke(etcd::LeaseRevokeRequest { id })),
    ]
}

/// Keys and values as Milvus writes them, and worse ones, below the paths that views watch.
fn meta_put() -> impl Strategy<Value = Kind> {
    let key = prop_oneof![
        "session/(datanode-[12]|rootcoord|id|x/y)",
        "channelwatch/[12a]/c[01]v0",
        "root-coord/(fields|partitions)/[12]/[12]",
        "root-coord/database/(db-info/1|collection-info/1/[12]|aliases/1/[ab])",
        "snapshots/root-coord/fields/1/[12]_ts[0-9]",
        "datacoord-meta/s/1/1/[12]",
    ];
    let root = select(vec!["by-dev/meta/", "other/meta/"]);
    let value = prop_oneof![
        Just(Bytes::from_static(br#"{"ServerID":1,"Address":"h:1"}"#)),
        Just(Bytes::from_static(b"\xE2\x9B\xBC")),
        Just(Bytes::from_static(b"\x12\x01a")),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from),
    ];
    (root, key, value, lease(), weighted(0.3)).prop_map(|(root, key, value, lease, delete)| {
        let key = Bytes::from(format!("{root}{key}"));
        if delete {
            return Kind::DeleteRange(etcd::DeleteRangeRequest { key, ..Default::default() });
        }
        Kind::Put(etcd::PutRequest { key, value, lease, ..Default::default() })
    })
}

/// Everything that a log may hold, except what registers an origin.
pub(crate) fn any_command() -> impl Strategy<Value = Kind> {
    let settings = (
        prop::option::of(select(vec!["by-dev", "other", "", "a/b"])),
        prop::option::of(select(vec![0u64, 20_000])),
        prop::option::of(0u64..5),
    );
    prop_oneof![
        60 => etcd_command(),
        20 => meta_put(),
        4 => prop::collection::vec(1i64..5, 0..4)
            .prop_map(|ids| Kind::ExpireLeases(ExpireLeases { ids })),
        2 => settings.prop_map(|(root_path, quota_bytes, retention_revisions)| {
            Kind::ChangeSettings(ChangeSettings {
                root_path: root_path.map(str::to_owned),
                quota_bytes,
                retention_revisions,
                ..Default::default()
            })
        }),
        2 => Just(Kind::CheckDigest(proto::quorate::CheckDigest {})),
        2 => (0i32..3, 0i32..3).prop_map(|(action, alarm)| {
            Kind::Alarm(etcd::AlarmRequest { action, member_id: 1, alarm })
        }),
        1 => (0u32..2).prop_map(|level| {
            Kind::RaiseLevel(proto::quorate::RaiseLevel { level })
        }),
    ]
}

/// Commands that a client of etcd could send, with reads between them.
pub(crate) fn etcd_history(n: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        60 => etcd_command().prop_map(Step::Command),
        40 => range().prop_map(Step::Range),
        1 => (1usize..5).prop_map(|changes_max| Step::CompactRows { changes_max }),
    ];
    prop::collection::vec(step, n / 2..n)
}
