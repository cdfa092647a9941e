use expect_test::{Expect, expect};
use proto::etcd;
use proto::etcd::request_op::Request;
use proto::quorate::command::Kind;

use crate::limits;
use crate::response::Rejection;
use crate::testkit::Machine;
use crate::testkit::script::command;

fn check(script: &str, told: Expect) {
    let mut machine = Machine::new();
    told.assert_eq(&machine.script(script));
    machine.check();
}

#[test]
fn a_put_counts_revisions_and_versions() {
    check(
        "
        put a 1
        put a 2 prev
        put b 1 prev
        get a
        del a
        put a 3
        get a
        put * nul
        get *
        ",
        expect![[r#"
            put a 1
              r2
            put a 2 prev
              r3 before: a=1 (c2 m2 v1)
            put b 1 prev
              r4
            get a
              r4 count 1 a=2 (c2 m3 v2)
            del a
              r5 deleted 1
            put a 3
              r6
            get a
              r6 count 1 a=3 (c6 m6 v1)
            put * nul
              r7
            get *
              r7 count 1 \x00=nul (c7 m7 v1)
        "#]],
    );
}

#[test]
fn a_put_may_keep_the_old_value_or_lease() {
    check(
        "
        put a ignore_value
        put a ignore_lease
        grant 7 60
        put a 1 lease=7
        put a ignore_value
        get a
        put a 2 lease=7
        put a 3 ignore_lease
        get a
        put a 3 ignore_value
        put a 3 lease=7 ignore_lease
        put a lease=8 ignore_value
        get a
        ",
        expect![[r#"
            put a ignore_value
              refused: key does not exist, so its value or lease cannot stay
            put a ignore_lease
              refused: key does not exist, so its value or lease cannot stay
            grant 7 60
              r1 lease 7 for 60 s
            put a 1 lease=7
              r2
            put a ignore_value
              r3
            get a
              r3 count 1 a=1 (c2 m3 v2)
            put a 2 lease=7
              r4
            put a 3 ignore_lease
              r5
            get a
              r5 count 1 a=3 (c2 m5 v4 l7)
            put a 3 ignore_value
              refused: value is provided together with ignore_value
            put a 3 lease=7 ignore_lease
              refused: lease 7 is provided together with ignore_lease
            put a lease=8 ignore_value
              refused: lease 8 does not exist
            get a
              r5 count 1 a=3 (c2 m5 v4 l7)
        "#]],
    );
}

#[test]
fn deleting_a_range_is_one_revision() {
    check(
        "
        put a 1
        put b 2
        put c 3
        del x
        del b a
        del a c prev
        get * *
        del * *
        del * *
        put c 4
        get c
        ",
        expect![[r#"
            put a 1
              r2
            put b 2
              r3
            put c 3
              r4
            del x
              r4 deleted 0
            del b a
              r4 deleted 0
            del a c prev
              r5 deleted 2 a=1 (c2 m2 v1) b=2 (c3 m3 v1)
            get * *
              r5 count 1 c=3 (c4 m4 v1)
            del * *
              r6 deleted 1
            del * *
              r6 deleted 0
            put c 4
              r7
            get c
              r7 count 1 c=4 (c7 m7 v1)
        "#]],
    );
}

#[test]
fn a_range_sorts_filters_and_limits() {
    check(
        "
        put a 3
        put b 1
        put c 2
        put a 4
        put d 1
        get a d
        get * * limit=2
        get * * limit=4
        get b * limit=1 keys
        get * * count
        get * * count limit=1
        get * * desc limit=2
        get * * sort=mod limit=2
        get * * sort=mod desc limit=1
        get * * sort=version desc
        get * * sort=create desc limit=3
        get * * sort=value
        get * * sort=value desc limit=1 keys
        get * * minmod=4
        get * * minmod=4 limit=1
        get * * maxmod=4
        get * * mincreate=3 maxcreate=4
        get * * minmod=9
        get c b
        get a a
        ",
        expect![[r#"
            put a 3
              r2
            put b 1
              r3
            put c 2
              r4
            put a 4
              r5
            put d 1
              r6
            get a d
              r6 count 3 a=4 (c2 m5 v2) b=1 (c3 m3 v1) c=2 (c4 m4 v1)
            get * * limit=2
              r6 count 4 more a=4 (c2 m5 v2) b=1 (c3 m3 v1)
            get * * limit=4
              r6 count 4 a=4 (c2 m5 v2) b=1 (c3 m3 v1) c=2 (c4 m4 v1) d=1 (c6 m6 v1)
            get b * limit=1 keys
              r6 count 3 more b= (c3 m3 v1)
            get * * count
              r6 count 4
            get * * count limit=1
              r6 count 4
            get * * desc limit=2
              r6 count 4 more d=1 (c6 m6 v1) c=2 (c4 m4 v1)
            get * * sort=mod limit=2
              r6 count 4 more b=1 (c3 m3 v1) c=2 (c4 m4 v1)
            get * * sort=mod desc limit=1
              r6 count 4 more d=1 (c6 m6 v1)
            get * * sort=version desc
              r6 count 4 a=4 (c2 m5 v2) b=1 (c3 m3 v1) c=2 (c4 m4 v1) d=1 (c6 m6 v1)
            get * * sort=create desc limit=3
              r6 count 4 more d=1 (c6 m6 v1) c=2 (c4 m4 v1) b=1 (c3 m3 v1)
            get * * sort=value
              r6 count 4 b=1 (c3 m3 v1) d=1 (c6 m6 v1) c=2 (c4 m4 v1) a=4 (c2 m5 v2)
            get * * sort=value desc limit=1 keys
              r6 count 4 more a= (c2 m5 v2)
            get * * minmod=4
              r6 count 4 a=4 (c2 m5 v2) c=2 (c4 m4 v1) d=1 (c6 m6 v1)
            get * * minmod=4 limit=1
              r6 count 4 more a=4 (c2 m5 v2)
            get * * maxmod=4
              r6 count 4 b=1 (c3 m3 v1) c=2 (c4 m4 v1)
            get * * mincreate=3 maxcreate=4
              r6 count 4 b=1 (c3 m3 v1) c=2 (c4 m4 v1)
            get * * minmod=9
              r6 count 4
            get c b
              r6 count 0
            get a a
              r6 count 0
        "#]],
    );
}

#[test]
fn the_past_can_be_read_until_it_is_compacted() {
    check(
        "
        put a 1
        put b 1
        put a 2
        del b
        put b 2
        get * * rev=2
        get * * rev=3
        get * * rev=4 limit=1
        get * * rev=5
        get * * rev=3 desc limit=1
        get b rev=4
        get b rev=5
        get * * rev=6
        get * * rev=1
        get a rev=7
        compact 4
        get a rev=3
        get * * rev=4
        compact 4
        compact 7
        get * * rev=5 count
        ",
        expect![[r#"
            put a 1
              r2
            put b 1
              r3
            put a 2
              r4
            del b
              r5 deleted 1
            put b 2
              r6
            get * * rev=2
              r6 count 1 a=1 (c2 m2 v1)
            get * * rev=3
              r6 count 2 a=1 (c2 m2 v1) b=1 (c3 m3 v1)
            get * * rev=4 limit=1
              r6 count 2 more a=2 (c2 m4 v2)
            get * * rev=5
              r6 count 1 a=2 (c2 m4 v2)
            get * * rev=3 desc limit=1
              r6 count 2 more b=1 (c3 m3 v1)
            get b rev=4
              r6 count 1 b=1 (c3 m3 v1)
            get b rev=5
              r6 count 0
            get * * rev=6
              r6 count 2 a=2 (c2 m4 v2) b=2 (c6 m6 v1)
            get * * rev=1
              r6 count 0
            get a rev=7
              refused: revision 7 is in the future, the newest is 6
            compact 4
              r6 compacted
            get a rev=3
              refused: revision 3 is compacted, the oldest is 4
            get * * rev=4
              r6 count 2 a=2 (c2 m4 v2) b=1 (c3 m3 v1)
            compact 4
              refused: revision 4 is compacted, the oldest is 4
            compact 7
              refused: revision 7 is in the future, the newest is 6
            get * * rev=5 count
              r6 count 1
        "#]],
    );
}

#[test]
fn a_transaction_takes_one_branch_and_one_revision() {
    check(
        "
        txn version a = 0 then put a 1 ; put b 1 ; get * * else get a
        txn version a = 0 then put a 2 else get a ; get x
        txn value a = 1 ; mod b > 1 then del a ; get * *
        txn then put c 1 ; get c ; del b ; get * * ; get * * rev=3
        txn then get c rev=5
        txn then get c rev=4
        txn
        txn then del x
        get * *
        ",
        expect![[r#"
            txn version a = 0 then put a 1 ; put b 1 ; get * * else get a
              r2 then: r2; r2; r2 count 2 a=1 (c2 m2 v1) b=1 (c2 m2 v1)
            txn version a = 0 then put a 2 else get a ; get x
              r2 else: r2 count 1 a=1 (c2 m2 v1); r2 count 0
            txn value a = 1 ; mod b > 1 then del a ; get * *
              r3 then: r3 deleted 1; r3 count 1 b=1 (c2 m2 v1)
            txn then put c 1 ; get c ; del b ; get * * ; get * * rev=3
              r4 then: r4; r4 count 1 c=1 (c4 m4 v1); r4 deleted 1; r4 count 1 c=1 (c4 m4 v1); r4 count 1 b=1 (c2 m2 v1)
            txn then get c rev=5
              refused: revision 5 is in the future, the newest is 4
            txn then get c rev=4
              r4 then: r4 count 1 c=1 (c4 m4 v1)
            txn
              r4 then: 
            txn then del x
              r4 then: r4 deleted 0
            get * *
              r4 count 1 c=1 (c4 m4 v1)
        "#]],
    );
}

#[test]
fn comparisons_cover_every_target_and_ranges() {
    check(
        "
        grant 7 60
        put a 1 lease=7
        put b 2
        put b 3
        txn value a = 1 ; version b = 2 ; create b = 3 ; mod b = 4 ; lease a = 7 then get a
        txn value a != 1 then get a else get b
        txn value x != 1 then get a else get b
        txn value x = 1 then get a else get b
        txn version x = 0 ; create x = 0 ; mod x = 0 ; lease x = 0 ; version x > -1 then get a
        txn version a c > 0 then get a else get b
        txn version a c > 1 then get a else get b
        txn value a c < 4 then get a else get b
        txn value a c < 3 then get a else get b
        txn version x z = 0 then get a
        txn value x z = 0 then get a else get b
        txn mod * * < 5 then get a
        ",
        expect![[r#"
            grant 7 60
              r1 lease 7 for 60 s
            put a 1 lease=7
              r2
            put b 2
              r3
            put b 3
              r4
            txn value a = 1 ; version b = 2 ; create b = 3 ; mod b = 4 ; lease a = 7 then get a
              r4 then: r4 count 1 a=1 (c2 m2 v1 l7)
            txn value a != 1 then get a else get b
              r4 else: r4 count 1 b=3 (c3 m4 v2)
            txn value x != 1 then get a else get b
              r4 else: r4 count 1 b=3 (c3 m4 v2)
            txn value x = 1 then get a else get b
              r4 else: r4 count 1 b=3 (c3 m4 v2)
            txn version x = 0 ; create x = 0 ; mod x = 0 ; lease x = 0 ; version x > -1 then get a
              r4 then: r4 count 1 a=1 (c2 m2 v1 l7)
            txn version a c > 0 then get a else get b
              r4 then: r4 count 1 a=1 (c2 m2 v1 l7)
            txn version a c > 1 then get a else get b
              r4 else: r4 count 1 b=3 (c3 m4 v2)
            txn value a c < 4 then get a else get b
              r4 then: r4 count 1 a=1 (c2 m2 v1 l7)
            txn value a c < 3 then get a else get b
              r4 else: r4 count 1 b=3 (c3 m4 v2)
            txn version x z = 0 then get a
              r4 then: r4 count 1 a=1 (c2 m2 v1 l7)
            txn value x z = 0 then get a else get b
              r4 else: r4 count 1 b=3 (c3 m4 v2)
            txn mod * * < 5 then get a
              r4 then: r4 count 1 a=1 (c2 m2 v1 l7)
        "#]],
    );
}

#[test]
fn nested_transactions_compare_against_the_state_before() {
    check(
        "
        put a 1
        txn then put a 2 ; [ txn value a = 1 then put b inner else put b outer ] ; get * *
        txn then [ txn then [ txn then put c 1 ] ; get c ] ; get c
        txn then [ txn value a = 9 then put d 1 else put d 2 ] ; get d
        get * *
        ",
        expect![[r#"
            put a 1
              r2
            txn then put a 2 ; [ txn value a = 1 then put b inner else put b outer ] ; get * *
              r3 then: r3; [r0 then: r3]; r3 count 2 a=2 (c2 m3 v2) b=inner (c3 m3 v1)
            txn then [ txn then [ txn then put c 1 ] ; get c ] ; get c
              r4 then: [r0 then: [r0 then: r4]; r4 count 1 c=1 (c4 m4 v1)]; r4 count 1 c=1 (c4 m4 v1)
            txn then [ txn value a = 9 then put d 1 else put d 2 ] ; get d
              r5 then: [r0 else: r5]; r5 count 1 d=2 (c5 m5 v1)
            get * *
              r5 count 4 a=2 (c2 m3 v2) b=inner (c3 m3 v1) c=1 (c4 m4 v1) d=2 (c5 m5 v1)
        "#]],
    );
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let mut machine = Machine::new();
    machine.script("put a 1");
    let before = (machine.state.revision(), machine.state.digests().content);
    let told = machine.script(
        "
        txn then put b 1 ; put b 2
        txn then put b 1 ; del a c
        txn then del a c ; del b d
        txn then put b 1 ; [ txn then put b 2 ]
        txn then put b 1 ; [ txn then del * * ]
        txn then [ txn then del c ] ; [ txn then put c 1 ]
        txn then put c 1 lease=9
        txn then del a ; put x ignore_value
        txn then put c 1 ; get a rev=9
        txn then put c 1 ; get a rev=4
        txn then put c 1 ; put d 1 lease=9 ; get a rev=9
        ",
    );
    expect![[r#"
        txn then put b 1 ; put b 2
          refused: transaction names key b twice
        txn then put b 1 ; del a c
          refused: transaction names key b twice
        txn then del a c ; del b d
          r3 then: r3 deleted 1; r3 deleted 0
        txn then put b 1 ; [ txn then put b 2 ]
          refused: transaction names key b twice
        txn then put b 1 ; [ txn then del * * ]
          refused: transaction names key b twice
        txn then [ txn then del c ] ; [ txn then put c 1 ]
          refused: transaction names key c twice
        txn then put c 1 lease=9
          refused: lease 9 does not exist
        txn then del a ; put x ignore_value
          refused: key does not exist, so its value or lease cannot stay
        txn then put c 1 ; get a rev=9
          refused: revision 9 is in the future, the newest is 3
        txn then put c 1 ; get a rev=4
          refused: revision 4 is in the future, the newest is 3
        txn then put c 1 ; put d 1 lease=9 ; get a rev=9
          refused: lease 9 does not exist
    "#]]
    .assert_eq(&told);
    machine.check();
    assert_eq!(machine.state.revision(), before.0 + 1, "only the two deletions took effect");
    expect![[r#"
        put a 1
          r4
        get * *
          r4 count 1 a=1 (c4 m4 v1)
    "#]]
    .assert_eq(&machine.script("put a 1\n get * *"));
}

/// etcd 3.4 and 3.7 take this order and refuse the other one.
#[test]
fn a_nested_transaction_may_delete_what_an_earlier_one_put() {
    let mut machine = Machine::new();
    let told = machine.script(
        "
        grant 7 60
        put a 0
        put b 0
        txn then [ txn then put a 1 prev lease=7 ] ; get * * ; [ txn then del a prev ] ; get * *
        txn then [ txn then put c 1 ; put cc 1 ] ; [ txn then del b d prev ] ; get * * count
        get * *
        get a rev=4
        get * * rev=3
        put c 2
        revoke 7
        ",
    );
    expect![[r#"
        grant 7 60
          r1 lease 7 for 60 s
        put a 0
          r2
        put b 0
          r3
        txn then [ txn then put a 1 prev lease=7 ] ; get * * ; [ txn then del a prev ] ; get * *
          r4 then: [r0 then: r4 before: a=0 (c2 m2 v1)]; r4 count 2 a=1 (c2 m4 v2 l7) b=0 (c3 m3 v1); [r0 then: r4 deleted 1 a=1 (c2 m4 v2 l7)]; r4 count 1 b=0 (c3 m3 v1)
        txn then [ txn then put c 1 ; put cc 1 ] ; [ txn then del b d prev ] ; get * * count
          r5 then: [r0 then: r5; r5]; [r0 then: r5 deleted 3 b=0 (c3 m3 v1) c=1 (c5 m5 v1) cc=1 (c5 m5 v1)]; r5 count 0
        get * *
          r5 count 0
        get a rev=4
          r5 count 0
        get * * rev=3
          r5 count 2 a=0 (c2 m2 v1) b=0 (c3 m3 v1)
        put c 2
          r6
        revoke 7
          r6 revoked
    "#]].assert_eq(&told);
    machine.check();
    let events = |machine: &Machine, from| {
        let budget = crate::history::HistoryBudget { events_max: 100, bytes_max: 1 << 20 };
        let history = crate::history::events(&machine.store, from, 6, budget, &mut |_| true);
        let events = history.unwrap().events;
        events.iter().map(|event| (event.revision, event.sub, event.kind)).collect::<Vec<_>>()
    };
    let (put, delete) = (crate::EventKind::Put, crate::EventKind::Delete);
    assert_eq!(events(&machine, 4)[..2], [(4, 0, put), (4, 1, delete)]);
    let previous = |key: &[u8], revision| {
        crate::history::previous(&machine.store, key, revision, 0).unwrap().map(|kv| kv.value)
    };
    assert_eq!(previous(b"a", 4), Some("0".into()), "the pair before the transaction");
    assert_eq!(previous(b"c", 5), None);

    // A put that its own transaction deleted again leaves no row behind.
    machine.script("compact 6");
    machine.compact_rows(1);
    machine.check();
    assert_eq!(events(&machine, 0), [(6, 0, put)]);
}

#[test]
fn both_branches_of_a_nested_transaction_may_put_the_same_key() {
    check(
        "
        txn then [ txn version a = 0 then put a 1 else put a 2 ] ; put b 1
        txn then [ txn version a = 0 then put a 1 else del a ] ; put b 1
        get * *
        ",
        expect![[r#"
            txn then [ txn version a = 0 then put a 1 else put a 2 ] ; put b 1
              r2 then: [r0 then: r2]; r2
            txn then [ txn version a = 0 then put a 1 else del a ] ; put b 1
              r3 then: [r0 else: r3 deleted 1]; r3
            get * *
              r3 count 1 b=1 (c2 m3 v2)
        "#]],
    );
}

#[test]
fn shapes_are_refused_whatever_the_state() {
    let mut machine = Machine::new();
    let op = |request| etcd::RequestOp { request };
    let put = |key: &str| {
        op(Some(Request::RequestPut(etcd::PutRequest {
            key: key.to_owned().into(),
            ..Default::default()
        })))
    };
    let txn = |success: Vec<etcd::RequestOp>| etcd::TxnRequest { success, ..Default::default() };
    let many = |n: usize| (0..n).map(|nth| put(&format!("k{nth}"))).collect::<Vec<_>>();
    let mut run = |request: etcd::TxnRequest| machine.run(Kind::Txn(request)).map(|_| ());

    assert_eq!(run(txn(many(128))), Ok(()));
    assert_eq!(run(txn(many(129))), Err(Rejection::TooManyOperations { given: 129, limit: 128 }));
    // A nested transaction has what the outer one leaves.
    let nested = |n: usize| op(Some(Request::RequestTxn(txn(many(n)))));
    assert_eq!(run(txn(vec![nested(127)])), Ok(()));
    assert_eq!(
        run(txn(vec![nested(128)])),
        Err(Rejection::TooManyOperations { given: 129, limit: 128 })
    );
    // Nesting is bounded by what a log entry can hold.
    let deep = |depth: u32| {
        let nest = |inner, _| txn(vec![op(Some(Request::RequestTxn(inner)))]);
        (1..depth).fold(txn(vec![put("deep")]), nest)
    };
    assert_eq!(run(deep(limits::TXN_DEPTH_MAX)), Ok(()));
    assert_eq!(
        run(deep(limits::TXN_DEPTH_MAX + 1)),
        Err(Rejection::TooManyOperations { given: 33, limit: 32 })
    );
    assert_eq!(run(txn(vec![put("")])), Err(Rejection::EmptyKey));
    assert_eq!(run(txn(vec![op(None)])), Err(Rejection::EmptyOperation));
    let compare = etcd::TxnRequest { compare: vec![Default::default()], ..Default::default() };
    assert_eq!(run(compare), Err(Rejection::EmptyKey));
    // As in etcd, an unknown relation or target is no reason to refuse.
    let odd = etcd::Compare { key: "a".into(), result: 9, target: 9, ..Default::default() };
    let compare = etcd::TxnRequest { compare: vec![odd], ..Default::default() };
    assert_eq!(run(compare), Ok(()));
    assert_eq!(machine.run(Kind::Put(etcd::PutRequest::default())), Err(Rejection::EmptyKey));
    let delete = Kind::DeleteRange(etcd::DeleteRangeRequest::default());
    assert_eq!(machine.run(delete), Err(Rejection::EmptyKey));
    let odd = etcd::RangeRequest { key: "a".into(), sort_target: 9, ..Default::default() };
    assert_eq!(
        machine.state.plan_range(&odd).map(|_| ()),
        Err(Rejection::UnknownOption { value: 9 })
    );
}

#[test]
fn a_read_only_transaction_answers_the_same_off_the_lock() {
    let mut machine = Machine::new();
    machine.script("put a 1\n put b 2\n put b 3\n put c 3\n del c\n compact 3");
    for script in [
        "txn value a = 1 then get * * else get a",
        "txn value a c > 2 then get * * else get a limit=1",
        "txn version * * > 0 ; mod b = 4 then get b ; get b rev=3 ; [ txn value x = 1 else get a ]",
        "txn value x y = 1 then get a else get * * sort=mod desc",
        "txn then get a rev=2",
        "txn version a = 0 then get a rev=2 else get a rev=9",
        "txn",
    ] {
        let words: Vec<&str> = script.split_whitespace().collect();
        let Kind::Txn(request) = command(&words) else { panic!("a transaction was written") };
        assert!(crate::check::is_read_only(&request));
        let planned = machine.state.plan_txn(&request).unwrap().fetch(&machine.store).unwrap();
        let applied = machine.run(Kind::Txn(request));
        match (planned, applied) {
            (Ok(planned), Ok(crate::Response::Txn(applied))) => assert_eq!(planned, applied),
            (Err(planned), Err(applied)) => assert_eq!(planned, applied),
            (planned, applied) => panic!("{script}: {planned:?} {applied:?}"),
        }
    }
}

/// Everything above happens in one entry a command; here all commands are in one chunk, so that
/// each sees what the others only prepared.
#[test]
fn a_chunk_answers_as_its_commands_one_by_one() {
    let script = "
        put a 1
        grant 7 60
        put b 2 lease=7
        put a 2 prev
        txn value a = 2 then put c 1 ; get * * ; get * * rev=3 ; get a rev=2 else get a
        del a prev
        put a 3 lease=7
        txn then get * * rev=4 ; get * * rev=6 ; get a rev=5 ; get * * rev=2 count
        compact 4
        txn then get a rev=3
        txn then get * * rev=4
        put b 3 ignore_lease prev
        del b c prev
        revoke 7
        txn then get * *
        put a 4
        ";
    let commands = || {
        let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| command(&line.split_whitespace().collect::<Vec<_>>()))
    };
    let mut single = Machine::new();
    let one_by_one: Vec<_> = commands().map(|kind| single.run(kind)).collect();
    let mut together = Machine::new();
    let entries: Vec<_> = commands().map(|kind| together.entry(vec![kind])).collect();
    let applied = together.apply(&entries).unwrap();
    let outcomes: Vec<_> = applied.outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, one_by_one);
    assert_eq!(together.store, single.store);
    assert_eq!(together.state.digests(), single.state.digests());
    together.check();
    single.check();
}
