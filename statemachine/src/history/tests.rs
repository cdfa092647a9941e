use expect_test::expect;

use super::*;
use crate::testkit::Machine;

fn told(history: &History) -> String {
    let line = |event: &Event| {
        let (key, value) = (&event.kv.key, &event.kv.value);
        let create = if event.is_create() { " create" } else { "" };
        let (revision, sub, kind) = (event.revision, event.sub, event.kind);
        format!("r{revision}.{sub} {kind:?} {key:?} {value:?}{create}\n")
    };
    let lines: String = history.events.iter().map(line).collect();
    format!("{lines}next r{}\n", history.next_revision)
}

fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.script("put a 1\n put b 1\n txn then put a 2 ; put c 1 ; del b\n put c 2\n del * *");
    machine
}

const ALL: HistoryBudget = HistoryBudget { events_max: 1_000, bytes_max: 1_000_000 };

#[test]
fn history_repeats_what_was_applied() {
    let machine = machine();
    let history = events(&machine.store, 3, 6, ALL, &mut |_key| true).unwrap();
    expect![[r#"
        r3.0 Put b"b" b"1" create
        r4.0 Put b"a" b"2"
        r4.1 Put b"c" b"1" create
        r4.2 Delete b"b" b""
        r5.0 Put b"c" b"2"
        r6.0 Delete b"a" b""
        r6.1 Delete b"c" b""
        next r7
    "#]]
    .assert_eq(&told(&history));
    let history = events(&machine.store, 1, 4, ALL, &mut |key| key == b"b").unwrap();
    expect![[r#"
        r3.0 Put b"b" b"1" create
        r4.2 Delete b"b" b""
        next r5
    "#]]
    .assert_eq(&told(&history));
    let history = events(&machine.store, 7, 9, ALL, &mut |_key| true).unwrap();
    expect![[r#"
        next r10
    "#]]
    .assert_eq(&told(&history));
}

#[test]
fn a_budget_never_splits_a_revision() {
    let machine = machine();
    let mut from = 1;
    let mut parts = Vec::new();
    while from <= 6 {
        let budget = HistoryBudget { events_max: 3, bytes_max: 1_000 };
        let part = events(&machine.store, from, 6, budget, &mut |_key| true).unwrap();
        parts.push(told(&part));
        from = part.next_revision;
    }
    expect![[r#"
        r2.0 Put b"a" b"1" create
        r3.0 Put b"b" b"1" create
        r4.0 Put b"a" b"2"
        r4.1 Put b"c" b"1" create
        r4.2 Delete b"b" b""
        next r5
        --
        r5.0 Put b"c" b"2"
        r6.0 Delete b"a" b""
        r6.1 Delete b"c" b""
        next r7
    "#]]
    .assert_eq(&parts.join("--\n"));
    let budget = HistoryBudget { events_max: 100, bytes_max: 0 };
    let part = events(&machine.store, 4, 6, budget, &mut |_key| true).unwrap();
    assert_eq!((part.events.len(), part.next_revision), (3, 5));
    let part = events(&machine.store, 4, 6, budget, &mut |_key| false).unwrap();
    assert_eq!((part.events.len(), part.next_revision), (0, 5));
}

#[test]
fn the_pair_before_a_change_is_found_both_ways() {
    let mut machine = Machine::new();
    let mut changes = Vec::new();
    for line in ["put a 1", "put a 2", "del a", "put a 3", "txn then del a ; put b 1"] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let entry = machine.entry(vec![crate::testkit::script::command(&words)]);
        changes.extend(machine.apply(&[entry]).unwrap().events);
    }
    let mut before = Vec::new();
    for event in &changes {
        let by_key = previous(&machine.store, event.key(), event.revision, 0).unwrap();
        let by_id = replaced(&machine.store, event, 0).unwrap();
        assert_eq!(by_key, by_id);
        before.push(by_key.map(|kv| (kv.mod_revision, kv.version)));
    }
    assert_eq!(before, [None, Some((2, 1)), Some((3, 2)), None, Some((5, 1)), None]);
}

#[test]
fn the_pair_before_the_compacted_revision_is_never_shown() {
    let mut machine = Machine::new();
    let mut changes = Vec::new();
    for line in ["put a 1", "put a 2", "put a 3"] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let entry = machine.entry(vec![crate::testkit::script::command(&words)]);
        changes.extend(machine.apply(&[entry]).unwrap().events);
    }
    machine.script("compact 3");
    let seen = |machine: &Machine| -> Vec<Option<i64>> {
        let compacted = machine.state.compacted_revision();
        let mut versions = Vec::new();
        for event in &changes {
            let by_key = previous(&machine.store, event.key(), event.revision, compacted).unwrap();
            let by_id = replaced(&machine.store, event, compacted).unwrap();
            assert_eq!(by_key, by_id);
            versions.push(by_key.map(|kv| kv.version));
        }
        versions
    };
    let before_rows_go = seen(&machine);
    machine.compact_rows(100);
    assert_eq!(before_rows_go, [None, None, Some(2)]);
    assert_eq!(seen(&machine), before_rows_go, "rows that go change no answer");
}

#[test]
fn pairs_come_in_the_order_that_was_asked_whether_near_or_scattered() {
    let mut machine = Machine::new();
    let value = "v".repeat(2_000);
    let near: String = (0..100).map(|nth| format!("put near{nth:03} {value}{nth}\n")).collect();
    machine.script(&near);
    for nth in 0..20 {
        machine.script(&format!("put scattered{nth:02} {nth}"));
        machine.script(&"put other x\n".repeat(20));
    }
    machine.script("txn then put near000 1 ; put near001 1 ; put near002 1");
    let mut ids = Vec::new();
    let mut keys = Vec::new();
    machine.state.index.visit(&crate::KeyRange::ALL, &mut |key, meta| {
        keys.push(key.to_vec());
        ids.push(meta.event_id());
        ControlFlow::Continue(())
    });
    let found: Vec<_> =
        pairs(&machine.store, &ids).unwrap().into_iter().map(|kv| kv.key.to_vec()).collect();
    assert_eq!(found, keys);
    ids.reverse();
    keys.reverse();
    ids.push(ids[50]);
    keys.push(keys[50].clone());
    let found: Vec<_> =
        pairs(&machine.store, &ids).unwrap().into_iter().map(|kv| kv.key.to_vec()).collect();
    assert_eq!(found, keys);
    ids.push(EventId { revision: 50, sub: 9 });
    assert!(pairs(&machine.store, &ids).is_err());
    assert!(pairs(&machine.store, &ids[ids.len() - 1..]).is_err());
    assert!(pairs(&machine.store, &[]).unwrap().is_empty());
}
