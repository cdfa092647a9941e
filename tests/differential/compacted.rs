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
/// update is compacted to, and a watch from there must not tell the pair before it. Rows go in the
/// background, so it is asked at once and once more when they have gone.
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
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(7);
    while std::time::Instant::now() < deadline {
        for node in 0..3 {
            assert_eq!(answer_of(&ours, node, &operation), wanted, "node {node}");
        }
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
}
