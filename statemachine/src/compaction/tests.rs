use proptest::prelude::*;

use super::*;
use crate::testkit::Machine;
use crate::testkit::script::command;
use crate::{digest, history, kv};

/// A history over few keys, so that versions and tombstones pile up.
fn history_of(steps: &[(u8, u8)]) -> Machine {
    let mut machine = Machine::new();
    for (nth, (key, what)) in steps.iter().enumerate() {
        let (key, other) = (format!("k{}", key % 5), format!("k{}", (key % 5 + 1) % 5));
        let line = match what % 7 {
            0 => format!("del {key}"),
            1 => format!("txn then del {key} ; put {other} {nth}"),
            2 => format!("txn then put {key} {nth} ; put {other} {nth}"),
            3 => format!(
                "txn then put {other} {nth} ; [ txn then put {key} {nth} ] ; [ txn then del {key} ]"
            ),
            _ => format!("put {key} {nth}"),
        };
        machine.run(command(&line.split_whitespace().collect::<Vec<_>>())).unwrap();
    }
    machine
}

/// Everything that a client can still see.
fn visible(machine: &Machine) -> (Vec<String>, Vec<crate::Event>, crate::HashKv) {
    let (compacted, newest) = (machine.state.compacted_revision(), machine.state.revision());
    let mut ranges = Vec::new();
    for revision in compacted.max(1)..=newest {
        let request = proto::etcd::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            revision,
            ..Default::default()
        };
        let plan = machine.state.plan_range(&request).unwrap();
        ranges.push(format!("{:?}", plan.fetch(&machine.store).unwrap()));
    }
    let budget = history::HistoryBudget { events_max: usize::MAX, bytes_max: usize::MAX };
    let events =
        history::events(&machine.store, compacted, newest, budget, &mut |_key| true).unwrap();
    let hash = digest::hash_kv(&machine.store, compacted, newest).unwrap();
    (ranges, events.events, hash)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_step_changes_what_clients_can_see(
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..60),
        compactions in prop::collection::vec((0..60_usize, 1..7_usize, 0..4_usize), 1..5),
    ) {
        let mut machine = history_of(&steps);
        for (target, changes_max, n_steps) in compactions {
            let target = i64::try_from(target).unwrap();
            let request = proto::etcd::CompactionRequest { revision: target, physical: false };
            // Refused ones change nothing and are part of the test.
            let _outcome = machine.run(proto::quorate::command::Kind::Compact(request));
            let compacted = machine.state.compacted_revision();
            let wanted = visible(&machine);
            let mut cursor = Cursor::load(&machine.store).unwrap();
            // The walk may be interrupted, by the next compaction too.
            for _ in 0..n_steps {
                if cursor.is_finished(compacted) {
                    break;
                }
                let step = step(&machine.store, compacted, cursor, changes_max).unwrap();
                machine.store.apply(&step.changes);
                cursor = step.cursor;
                prop_assert_eq!(&visible(&machine), &wanted);
                machine.check();
            }
        }
        let wanted = visible(&machine);
        machine.compact_rows(3);
        prop_assert_eq!(&visible(&machine), &wanted);
        check_garbage_is_gone(&machine);
    }
}

/// What is left below the compacted revision is exactly what reads at it see, and its tombstones.
fn check_garbage_is_gone(machine: &Machine) {
    let compacted = machine.state.compacted_revision();
    // Puts that their own transaction deleted again: no version points to them.
    let mut shadowed = std::collections::BTreeSet::new();
    for (row_key, row) in machine.store.rows(Table::Event) {
        let id = event::decode_key(row_key).unwrap();
        let sub = EventRow::parse(row).unwrap().shadowed_sub();
        shadowed.extend(sub.map(|sub| EventId { sub, ..id }));
    }
    let mut events = Vec::new();
    for (row_key, row) in machine.store.rows(Table::Event) {
        let id = event::decode_key(row_key).unwrap();
        let row = EventRow::parse(row).unwrap();
        if shadowed.remove(&id) {
            assert!(id.revision >= compacted, "{id:?}");
            continue;
        }
        events.push(id);
        if id.revision <= compacted {
            let seen = kv::past::get(&machine.store, row.key(), compacted).unwrap();
            let is_seen = seen.is_some_and(|meta| meta.event_id() == id);
            assert!(is_seen || (row.is_tombstone() && id.revision == compacted), "{id:?}");
        }
    }
    let mut versions = Vec::new();
    for (row_key, row) in machine.store.rows(Table::Version) {
        let (_, revision) = version::split_key(row_key).unwrap();
        versions.push(version::Version::decode(revision, row).unwrap().meta.event_id());
    }
    versions.sort_unstable();
    assert_eq!(versions, events, "both tables hold the same versions");
    assert!(shadowed.is_empty(), "{shadowed:?}");
}

#[test]
fn a_walk_that_is_cut_within_the_compacted_revision_leaves_no_tombstone() {
    let mut machine = Machine::new();
    machine.script("put a 1\n put b 1\n txn then del a ; del b ; put c 1\n compact 4");
    let cut = step(&machine.store, 4, Cursor::default(), 4).unwrap();
    assert_eq!(cut.cursor.next, EventId { revision: 4, sub: 2 });
    machine.store.apply(&cut.changes);
    machine.script("put c 2\n compact 5");
    machine.compact_rows(1);
    check_garbage_is_gone(&machine);
    assert_eq!(machine.store.rows(Table::Event).count(), 1);
}

#[test]
fn a_tombstone_at_the_compacted_revision_stays_until_the_next_compaction() {
    let mut machine = Machine::new();
    machine.script("put a 1\n del a\n put b 1\n compact 3");
    machine.compact_rows(1);
    let rows = |machine: &Machine| machine.store.rows(Table::Event).count();
    assert_eq!(rows(&machine), 2);
    machine.script("compact 4");
    machine.compact_rows(1);
    assert_eq!(rows(&machine), 1);
    // The newest revision was a tombstone once and is gone; the counter is not.
    machine.script("del b\n compact 5\n put c 1\n compact 6");
    machine.compact_rows(100);
    machine.check();
    assert_eq!(machine.state.revision(), 6);
}

#[test]
fn the_lowest_revision_is_found_that_frees_as_much_as_is_wanted() {
    let mut machine = Machine::new();
    machine.script("put a 1\nput b 1\nput a 2\nput a 3\ndel b\nput c 1\nput a 4\ncompact 3");
    let before = machine.state.logical_bytes();
    let reclaimable = machine.state.reclaimable();
    let all = reclaimable.bytes();
    for bytes in 0..=all + 2 {
        let revision = reclaimable.revision_that_frees(&machine.store, bytes).unwrap();
        let frees = |revision: i64| -> u64 {
            if revision <= machine.state.compacted_revision() {
                return 0;
            }
            let mut after = Machine::new();
            after.store = machine.store.clone();
            after.state = State::load(&after.store).unwrap();
            (after.index, after.epoch, after.next_seq) =
                (machine.index, machine.epoch, machine.next_seq);
            after.script(&format!("compact {revision}"));
            before - after.state.logical_bytes()
        };
        assert!(frees(revision) >= bytes.min(all), "{bytes}: {revision}");
        let lower = revision - 1;
        assert!(lower <= 3 || frees(lower) < bytes, "{bytes}: {revision} is not the lowest");
    }
}
