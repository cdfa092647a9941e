//! What ours refuses because of its cost, and that the refusal costs nothing.

use std::time::Duration;

use chaos::client::within;
use chaos::cluster::ClusterKind;
use chaos::cluster::usage::resident_bytes;
use proto::etcd;
use proto::etcd::request_op::Request;
use tests::fixture::{Fixture, binary};
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(30);
const N_KEYS: usize = 2_000;
/// Far below what one node grew by before there were bounds, far above the noise.
const GROWTH_BYTES_MAX: u64 = 192 << 20;

const TOO_MANY: &str = "etcdserver: too many operations in txn request";
const TOO_LARGE: &str = "etcdserver: request is too large";

fn op(request: Request) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

fn put(key: String) -> Request {
    let value = vec![b'v'; 100].into();
    Request::RequestPut(etcd::PutRequest { key: key.into(), value, ..Default::default() })
}

fn everything() -> Request {
    let zero = || b"\0".as_slice().into();
    let range = etcd::RangeRequest { key: zero(), range_end: zero(), ..Default::default() };
    Request::RequestRange(range)
}

/// Nested transactions that read everything, as often as they are many.
fn reads(n_nested: usize, n_each: usize) -> etcd::TxnRequest {
    let success = std::iter::repeat_n(op(everything()), n_each).collect();
    let nested = etcd::TxnRequest { success, ..Default::default() };
    let success = std::iter::repeat_n(op(Request::RequestTxn(nested)), n_nested).collect();
    etcd::TxnRequest { success, ..Default::default() }
}

fn rss_bytes(fixture: &Fixture) -> Vec<u64> {
    let of = |pid| resident_bytes(pid).expect("the node runs");
    fixture
        .cluster
        .nodes
        .iter()
        .map(|node| of(node.process.pid().expect("the node runs")))
        .collect()
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String, String) {
    let status = answer.expect_err("it is refused");
    let detail =
        status.metadata().get("quorate-detail").map(|detail| detail.to_str().expect("it is text"));
    (status.code(), status.message().to_owned(), detail.unwrap_or_default().to_owned())
}

/// Seen before there were bounds: 16 KB of request gave an answer of 383 MB, and memory went from
/// 65 MB to 1,502, 1,132 and 892 MB on the three nodes.
#[test]
fn a_small_transaction_that_reads_everything_is_refused_and_takes_no_memory() {
    let fixture = Fixture::start_kind(ClusterKind::Quorate(binary("quorate")));
    let client = &fixture.cluster.nodes[1].client;
    let txn = |request| {
        fixture.runtime.block_on(async { within(PATIENCE, client.kv().txn(request)).await })
    };
    for first in (0..N_KEYS).step_by(100) {
        let success = (first..first + 100).map(|n| op(put(format!("key/{n:05}")))).collect();
        txn(etcd::TxnRequest { success, ..Default::default() }).unwrap();
    }
    let before = rss_bytes(&fixture);

    let mut bomb = reads(80, 20);
    bomb.success.push(op(put("bomb".into())));
    // Within what etcd counts on each path. The edge counts elements before it decodes, the state
    // machine counts operations.
    for counted in ["the limit is 2048", "more than 65536 elements"] {
        let success = std::iter::repeat_n(op(Request::RequestTxn(bomb)), 5).collect();
        bomb = etcd::TxnRequest { success, ..Default::default() };
        let (code, text, detail) = refusal(txn(bomb.clone()));
        assert_eq!((code, text.as_str()), (Code::InvalidArgument, TOO_MANY));
        assert!(detail.contains(counted), "{detail}");
    }

    let mut dense = reads(16, 110);
    let (code, text, detail) = refusal(txn(dense.clone()));
    assert_eq!((code, text.as_str()), (Code::InvalidArgument, TOO_LARGE), "{detail}");
    assert!(detail.contains("67108864 bytes"), "{detail}");
    dense.success.push(op(put("dense".into())));
    let (code, text, detail) = refusal(txn(dense));
    assert_eq!((code, text.as_str()), (Code::InvalidArgument, TOO_LARGE), "{detail}");
    assert!(detail.contains("262144 keys"), "{detail}");

    let growth =
        before.iter().zip(rss_bytes(&fixture)).map(|(before, now)| now.saturating_sub(*before));
    let growth: Vec<u64> = growth.collect();
    assert!(growth.iter().all(|growth| *growth < GROWTH_BYTES_MAX), "{growth:?} on {before:?}");
    assert_eq!(delete_everything(&fixture), N_KEYS, "nothing of what was refused was done");
}

/// By a command whose answer is too large to be kept, so that it is read after the commit. Returns
/// the number of previous pairs.
fn delete_everything(fixture: &Fixture) -> usize {
    let zero = || b"\0".as_slice().into();
    let delete = etcd::DeleteRangeRequest { key: zero(), range_end: zero(), prev_kv: true };
    let client = &fixture.cluster.nodes[2].client;
    let answer = async { within(PATIENCE, client.kv().delete_range(delete)).await };
    let answer = fixture.runtime.block_on(answer).expect("it is done");
    assert!(answer.prev_kvs.iter().all(|kv| kv.value.len() == 100));
    assert!(answer.prev_kvs.is_sorted_by(|one, other| one.key < other.key));
    assert_eq!(usize::try_from(answer.deleted), Ok(answer.prev_kvs.len()));
    answer.prev_kvs.len()
}
