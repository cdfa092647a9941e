use bytes::Bytes;
use proto::etcd;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcd::request_op::Request;
use proto::etcd::response_op::Response as Op;
use proto::quorate::command::Kind;

use super::*;
use crate::kv::check;
use crate::response::{Outcome, Response};
use crate::state::chunk::Readers;
use crate::testkit::Machine;

fn put(key: String, value: Bytes) -> Request {
    Request::RequestPut(etcd::PutRequest { key: key.into(), value, ..Default::default() })
}

fn everything() -> Request {
    let zero = Bytes::from_static(b"\0");
    let range = etcd::RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
    Request::RequestRange(range)
}

fn txn(requests: impl IntoIterator<Item = Request>) -> etcd::TxnRequest {
    let op = |request| etcd::RequestOp { request: Some(request) };
    etcd::TxnRequest { success: requests.into_iter().map(op).collect(), ..Default::default() }
}

/// Keys `k0000` and so on, with values of that size.
fn filled(n_keys: usize, value_bytes: usize) -> Machine {
    let mut machine = Machine::new();
    let value = Bytes::from(vec![b'v'; value_bytes]);
    let kinds = (0..n_keys).map(|n| {
        let key = format!("k{n:04}").into();
        Kind::Put(etcd::PutRequest { key, value: value.clone(), ..Default::default() })
    });
    for outcome in machine.run_all(kinds.collect()) {
        outcome.unwrap();
    }
    machine
}

fn refused(outcome: Outcome) -> CostBound {
    match outcome {
        Err(Rejection::TooCostly { bound }) => bound,
        other => panic!("not refused for its cost: {other:?}"),
    }
}

/// Seen: 16 KB of nested transactions, each full of reads of the whole keyspace, gave an answer of
/// 383 MB on each of three nodes.
#[test]
fn a_small_request_cannot_read_the_keyspace_over_and_over() {
    let mut machine = filled(2_000, 100);
    let before = machine.state.digests();
    let mut bomb = txn(std::iter::repeat_n(everything(), 100));
    bomb.success.push(etcd::RequestOp { request: Some(put("k0000".into(), Bytes::new())) });
    for _ in 0..7 {
        bomb = txn(std::iter::repeat_n(Request::RequestTxn(bomb), 2));
    }
    assert_eq!(
        check::txn(&bomb, limits::TXN_OPS_DEFAULT),
        Err(Rejection::TooManyOperations { given: 13_182, limit: 2_048 })
    );
    assert_eq!(
        machine.run(Kind::Txn(bomb)),
        Err(Rejection::TooManyOperations { given: 13_182, limit: 2_048 })
    );

    let mut dense = txn(std::iter::repeat_n(everything(), 126));
    dense.success.push(etcd::RequestOp { request: Some(put("k0000".into(), Bytes::new())) });
    // 252,000 keys pass: the answer is read after the commit, and where nobody waits it is not.
    let again = |dense: &etcd::TxnRequest| txn([Request::RequestTxn(dense.clone())]);
    assert!(machine.run(Kind::Txn(again(&dense))).is_ok());
    let mut beyond = again(&dense);
    beyond.failure = beyond.success.clone();
    assert!(machine.run(Kind::Txn(beyond)).is_ok(), "only the branch that runs counts");
    let mut beyond = dense;
    beyond.success.truncate(120);
    let beyond = txn([
        Request::RequestTxn(beyond.clone()),
        Request::RequestTxn(beyond),
        put("k0001".into(), Bytes::new()),
    ]);
    assert_eq!(refused(machine.run(Kind::Txn(beyond))), CostBound::ReadKeys);
    assert_ne!(machine.state.digests(), before);
    machine.check();
}

#[test]
fn rows_do_not_depend_on_who_waits_for_an_answer() {
    let mut machine = filled(100, 100);
    let large = etcd::PutRequest {
        key: "k0000".into(),
        value: vec![b'w'; 9_000].into(),
        prev_kv: true,
        ..Default::default()
    };
    let delete =
        etcd::DeleteRangeRequest { key: "k0000".into(), range_end: "k0050".into(), prev_kv: true };
    let Request::RequestRange(range) = everything() else { panic!("everything is a range") };
    let past = etcd::RangeRequest { revision: 5, ..range };
    let kinds = vec![
        Kind::Put(large.clone()),
        Kind::Put(large),
        Kind::Txn(txn([everything(), Request::RequestDeleteRange(delete), everything()])),
        Kind::Txn(txn([Request::RequestRange(past), put("z".into(), Bytes::new())])),
        Kind::Compact(etcd::CompactionRequest { revision: 104, physical: false }),
    ];
    let n_deferred = |outcomes: &[(crate::RequestId, Outcome)]| {
        let is_deferred = |outcome: &Outcome| matches!(outcome, Ok(Response::Deferred(_)));
        outcomes.iter().filter(|(_, outcome)| is_deferred(outcome)).count()
    };
    let entry = machine.entry(kinds);
    let all =
        machine.state.prepare(&machine.store, std::slice::from_ref(&entry), Readers::All).unwrap();
    let none = machine
        .state
        .prepare(&machine.store, std::slice::from_ref(&entry), Readers::Of(99))
        .unwrap();
    let rows =
        |prepared: &crate::Prepared| format!("{:?}", prepared.changes().iter().collect::<Vec<_>>());
    assert_eq!(rows(&all), rows(&none));
    assert_eq!((n_deferred(&all.outcomes), n_deferred(&none.outcomes)), (3, 0));
    assert!(all.has_deferred() && !none.has_deferred());
    assert_eq!(none.outcomes[1].1, Err(Rejection::OutcomeTooLarge));

    // Read after the commit, an answer is what it would have been at that moment.
    let applied = machine.apply(&[entry]).unwrap();
    let outcomes: Vec<_> = applied.outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let Ok(Response::Put(second)) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert_eq!(second.prev_kv.as_ref().unwrap().value.len(), 9_000);
    let Ok(Response::Txn(answer)) = &outcomes[2] else { panic!("{:?}", outcomes[2]) };
    let counts = answer.responses.iter().map(|response| match &response.response {
        Some(Op::ResponseRange(range)) => (range.count, range.kvs.len()),
        Some(Op::ResponseDeleteRange(delete)) => (delete.deleted, delete.prev_kvs.len()),
        other => panic!("{other:?}"),
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(100, 100), (50, 50), (50, 50)]);
    let Ok(Response::Txn(answer)) = &outcomes[3] else { panic!("{:?}", outcomes[3]) };
    let Some(Op::ResponseRange(past)) = &answer.responses[0].response else { panic!() };
    assert_eq!((past.count, past.kvs.len()), (4, 4));
    machine.check();

    // The same again: it took effect once, and its answer is gone.
    machine.next_seq -= 5;
    let put = etcd::PutRequest { key: "k0000".into(), ..Default::default() };
    let again = machine.run_all(vec![Kind::Put(put.clone()), Kind::Put(put)]);
    assert!(again[0].is_ok());
    assert_eq!(again[1], Err(Rejection::OutcomeTooLarge));
}

#[test]
fn comparisons_read_no_value_that_a_length_decides_and_no_more_than_the_bound() {
    let mut machine = filled(17, 1 << 20);
    let zero = Bytes::from_static(b"\0");
    let compare = |result: CompareResult, value: Bytes| etcd::Compare {
        result: result.into(),
        target: CompareTarget::Value.into(),
        key: zero.clone(),
        range_end: zero.clone(),
        target_union: Some(TargetUnion::Value(value)),
    };
    let mut succeeded = |compare| {
        let mut request = txn([put("other".into(), Bytes::new())]);
        request.compare = vec![compare];
        request.failure = request.success.clone();
        match machine.run(Kind::Txn(request)) {
            Ok(Response::Txn(response)) => Ok(response.succeeded),
            outcome => Err(refused(outcome)),
        }
    };
    let short = || Bytes::from_static(b"a");
    assert_eq!(succeeded(compare(CompareResult::NotEqual, short())), Ok(true));
    assert_eq!(succeeded(compare(CompareResult::Equal, short())), Ok(false));
    let too_many = Err(CostBound::ComparedBytes);
    assert_eq!(succeeded(compare(CompareResult::Greater, short())), too_many);
}

#[test]
fn puts_that_keep_values_keep_a_bounded_number_of_bytes() {
    let mut machine = filled(17, 1 << 20);
    let keep = |n: usize| {
        Request::RequestPut(etcd::PutRequest {
            key: format!("k{n:04}").into(),
            ignore_value: true,
            ..Default::default()
        })
    };
    assert!(machine.run(Kind::Txn(txn((0..16).map(keep)))).is_ok());
    let beyond = machine.run(Kind::Txn(txn((0..17).map(keep))));
    assert_eq!(refused(beyond), CostBound::KeptBytes);
    machine.check();
}

#[test]
fn an_answer_beyond_its_bound_is_refused_before_anything_is_read() {
    let mut machine = filled(65, 1 << 20);
    let delete = |range_end: &str| {
        Kind::DeleteRange(etcd::DeleteRangeRequest {
            key: "k".into(),
            range_end: range_end.to_owned().into(),
            prev_kv: true,
        })
    };
    assert_eq!(refused(machine.run(delete("l"))), CostBound::AnswerBytes);
    let Ok(Response::DeleteRange(answer)) = machine.run(delete("k0063")) else { panic!() };
    assert_eq!(answer.prev_kvs.len(), 63);
    machine.check();
}

#[test]
fn every_bound_is_named_with_its_limit_and_survives_the_wire() {
    for bound in CostBound::ALL {
        let rejection = Rejection::TooCostly { bound };
        assert!(rejection.to_string().contains(&bound.limit().to_string()), "{rejection}");
        let wire = crate::outcome_to_wire(Err(rejection.clone()));
        assert_eq!(crate::outcome_from_wire(wire), Some(Err(rejection)));
    }
    let mut cost = Cost::default();
    cost.delete_keys(usize::try_from(limits::COMMAND_DELETED_KEYS_MAX).unwrap()).unwrap();
    assert!(cost.delete_keys(1).is_err());
    assert!(cost.delete_keys(1).is_err());
}
