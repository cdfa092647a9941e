//! What a watcher sees that starts at the compacted revision itself.

use proto::etcd;
use tests::fixture::{Fixture, kind, oracle};

use super::answer_of;
use super::operation::Operation;

fn put(value: &'static [u8]) -> Operation {
    let key = b"pods/default/foo".as_slice().into();
    Operation::Put(etcd::PutRequest { key, value: value.into(), ..Default::default() })
}

/// From `start_revision` on, with the pairs before, as Kubernetes watches.
fn watch(start_revision: i64, through: i64) -> Operation {
    Operation::Watch {
        create: etcd::WatchCreateRequest {
            key: b"pods/".as_slice().into(),
            range_end: b"pods0".as_slice().into(),
            start_revision,
            prev_kv: true,
            ..Default::default()
        },
        through,
    }
}

/// The steps of `TestWatchFromZero` of Kubernetes' storage tests: a key is written and updated, the
/// update is compacted to, and a watch from there must not show the pair before it. It is opened at
/// once: the row of that pair is deleted some seconds later.
#[test]
fn a_watch_from_the_compacted_revision_never_has_the_pair_before_it() {
    let etcd = Fixture::start_kind(oracle());
    let ours = Fixture::start_kind(kind());
    let compact = Operation::Compact(etcd::CompactionRequest { revision: 3, physical: false });
    for operation in [put(b"A"), put(b"B"), compact, put(b"C")] {
        let wanted = answer_of(&etcd, 0, &operation);
        assert_eq!(answer_of(&ours, 0, &operation), wanted);
    }
    let operation = watch(3, 4);
    let wanted = answer_of(&etcd, 0, &operation);
    assert_eq!(wanted.matches("prev_kv: None").count(), 1, "stock etcd: {wanted}");
    for node in 0..3 {
        // A linearizable read waits until the node has applied the compaction.
        let key = b"pods/default/foo".as_slice().into();
        let read = Operation::Range(etcd::RangeRequest { key, ..Default::default() });
        assert!(answer_of(&ours, node, &read).starts_with("Ok"));
        assert_eq!(answer_of(&ours, node, &operation), wanted, "node {node}");
    }
}
