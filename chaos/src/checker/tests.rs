//! Planted bugs: every checker passes the right history and fails the spoiled one.

use super::testkit::{operation, put, read, right, seen, unknown};
use super::{check, register};
use crate::history::{Answer, Asked, History, Operation, WatchBatch};

/// The texts of all violations after `spoil`.
fn violations_after(spoil: impl FnOnce(&mut History)) -> Vec<String> {
    let (mut history, final_state, final_revision) = right();
    spoil(&mut history);
    let verdict = check(&history, &final_state, final_revision);
    verdict.violations.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn must_find(part: &str, spoil: impl FnOnce(&mut History)) {
    let found = violations_after(spoil);
    assert!(found.iter().any(|text| text.contains(part)), "no `{part}` in {found:#?}");
}

fn batches(history: &mut History) -> &mut Vec<WatchBatch> {
    &mut history.watches[0].batches
}

fn second_watch(history: &mut History) -> &mut Vec<WatchBatch> {
    let copy = history.watches[0].clone();
    history.watches.push(copy);
    &mut history.watches[1].batches
}

#[test]
fn a_right_history_passes() {
    assert_eq!(violations_after(|_| ()), Vec::<String>::new());
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    must_find("lost: an acknowledged write of reg/b at revision 8", |history| {
        let answer = Answer::Written { revision: 8 };
        history.operations.push(operation(160, 170, put("reg/b", 9), answer));
    });
}

#[test]
fn an_overwritten_acknowledgement_is_found() {
    must_find("lost: reg/a at revision 2 should be Some(9)", |history| {
        let answer = Answer::Written { revision: 2 };
        history.operations.push(operation(5, 7, put("reg/a", 9), answer));
    });
}

#[test]
fn a_write_that_happens_twice_is_found() {
    must_find("serial 1 was written twice", |history| {
        if let Some(change) = batches(history)[1].changes.first_mut() {
            change.put = Some(seen("reg/a", 1, 2, 3, 2));
        }
    });
}

#[test]
fn a_write_that_nobody_asked_for_is_found() {
    must_find("nobody wrote serial 99", |history| {
        batches(history)[0].changes[0].put = Some(seen("reg/a", 99, 2, 2, 1));
    });
}

#[test]
fn a_delete_that_nobody_asked_for_is_found() {
    must_find("nobody asked for the delete of reg/a at 5", |history| {
        history.operations.retain(|it| !matches!(it.asked, Asked::Delete { .. }));
    });
}

#[test]
fn a_hole_in_the_revisions_is_found() {
    must_find("no watch showed revisions 3 to 3", |history| {
        batches(history).remove(1);
    });
}

#[test]
fn a_wrong_version_is_found() {
    must_find("(version, create, mod)", |history| {
        batches(history)[1].changes[0].put = Some(seen("reg/a", 2, 2, 3, 1));
    });
}

#[test]
fn a_wrong_final_state_is_found() {
    let (history, mut final_state, final_revision) = right();
    final_state.pop();
    let verdict = check(&history, &final_state, final_revision);
    assert!(verdict.violations.iter().any(|it| it.text.contains("m/y is missing from the final")));
}

#[test]
fn a_stale_linearizable_read_is_found() {
    must_find("stale: node 0", |history| {
        let found = vec![seen("reg/a", 1, 2, 2, 1)];
        let answer = Answer::Read { revision: 2, found };
        history.operations.push(operation(67, 69, read("reg/a"), answer));
    });
}

#[test]
fn a_stale_serializable_read_is_allowed() {
    let found = violations_after(|history| {
        let asked = Asked::Read { key: "reg/a".into(), prefix: false, serializable: true };
        let found = vec![seen("reg/a", 1, 2, 2, 1)];
        let answer = Answer::Read { revision: 2, found };
        history.operations.push(operation(67, 69, asked, answer));
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_read_that_mixes_two_revisions_is_found() {
    must_find("read", |history| {
        let asked = Asked::Read { key: "m/".into(), prefix: true, serializable: true };
        let answer = Answer::Read { revision: 4, found: vec![seen("m/x", 3, 4, 4, 1)] };
        history.operations.push(operation(86, 88, asked, answer));
    });
}

#[test]
fn a_swap_that_should_have_failed_is_found() {
    must_find("swap of reg/a from Some(7)", |history| {
        let wrong = |it: &&mut Operation| matches!(it.asked, Asked::Swap { serial: 2, .. });
        if let Some(operation) = history.operations.iter_mut().find(wrong) {
            operation.asked = Asked::Swap { key: "reg/a".into(), expected: Some(7), serial: 2 };
        }
    });
}

#[test]
fn a_watch_out_of_order_is_found() {
    must_find("came in an answer after revision", |history| second_watch(history).swap(0, 1));
}

#[test]
fn a_watch_that_shows_an_event_twice_is_found() {
    must_find("came in an answer after revision 2", |history| {
        let again = history.watches[0].batches[0].clone();
        second_watch(history).insert(1, again);
    });
}

#[test]
fn a_revision_split_over_two_answers_is_found() {
    must_find("revision 4 came in an answer after revision 4", |history| {
        let watch = second_watch(history);
        let second = watch[2].changes.split_off(1);
        let rest =
            WatchBatch { at_us: 85, header_revision: 4, compaction_asked: 0, changes: second };
        watch.insert(3, rest);
    });
}

#[test]
fn a_watch_that_misses_an_event_is_found() {
    must_find("missed m/y at 4", |history| {
        second_watch(history)[2].changes.pop();
    });
}

#[test]
fn progress_that_overtakes_an_event_is_found() {
    must_find("came after progress to 5", |history| {
        second_watch(history)[3].header_revision = 5;
    });
}

#[test]
fn progress_that_goes_back_is_found() {
    must_find("progress went back", |history| second_watch(history)[3].header_revision = 3);
}

#[test]
fn two_watches_that_disagree_are_found() {
    must_find("watches disagree on reg/a at revision 2", |history| {
        second_watch(history)[0].changes[0].put = Some(seen("reg/a", 5, 2, 2, 1));
    });
}

#[test]
fn a_wrong_previous_value_is_found() {
    must_find("before reg/a at 5 was", |history| {
        second_watch(history)[4].changes[0].previous = None;
    });
}

#[test]
fn the_pair_before_the_compacted_revision_may_be_missing() {
    let without = |asked: i64| {
        violations_after(|history| {
            let batch = &mut second_watch(history)[4];
            batch.changes[0].previous = None;
            batch.compaction_asked = asked;
        })
    };
    assert_eq!(without(5), Vec::<String>::new());
    assert!(!without(4).is_empty(), "the moment before 5 is not gone");
}

#[test]
fn a_lease_that_ends_early_is_found() {
    must_find("ended at revision 7, seen 1000 ms early", |history| {
        batches(history)[6].at_us = 1_000_145;
    });
}

#[test]
fn a_keep_alive_that_is_denied_early_is_found() {
    must_find("is gone 1000 ms early", |history| history.leases[0].denied_us = Some(1_000_145));
}

#[test]
fn a_revoked_lease_may_end_at_once() {
    let found = violations_after(|history| {
        batches(history)[6].at_us = 1_000_145;
        history.leases[0].revoke_asked = true;
    });
    assert_eq!(found, Vec::<String>::new());
}

/// What the register search says of operations on one key, from nothing to nothing.
fn registers(operations: Vec<Operation>, last: Option<u64>) -> usize {
    let history = History { operations, ..History::default() };
    let state: Vec<_> = last.map(|serial| seen("reg/a", serial, 2, 2, 1)).into_iter().collect();
    let verdict = register::check(&history, &state);
    assert_eq!(verdict.n_undecided, 0);
    verdict.violations.len()
}

fn wrote(call_us: u64, return_us: u64, serial: u64) -> Operation {
    operation(call_us, return_us, put("reg/a", serial), Answer::Written { revision: 0 })
}

fn saw(call_us: u64, return_us: u64, serial: Option<u64>) -> Operation {
    let found = serial.map(|serial| seen("reg/a", serial, 0, 0, 0)).into_iter().collect();
    operation(call_us, return_us, read("reg/a"), Answer::Read { revision: 0, found })
}

#[test]
fn concurrent_writes_may_come_in_either_order() {
    let writes = || vec![wrote(0, 10, 1), wrote(0, 10, 2)];
    assert_eq!(registers(writes(), Some(1)), 0);
    assert_eq!(registers(writes(), Some(2)), 0);
    assert_eq!(registers(writes(), None), 1);
}

#[test]
fn a_register_that_goes_back_is_found() {
    let back = vec![wrote(0, 1, 1), wrote(2, 3, 2), saw(4, 5, Some(1)), saw(6, 7, Some(2))];
    assert_eq!(registers(back, Some(2)), 1);
    let flips = vec![wrote(0, 9, 1), wrote(0, 9, 2), saw(1, 2, Some(1)), saw(3, 4, Some(2))];
    assert_eq!(registers(flips, Some(2)), 0);
    let flips_back = vec![
        wrote(0, 9, 1),
        wrote(0, 9, 2),
        saw(1, 2, Some(1)),
        saw(3, 4, Some(2)),
        saw(5, 6, Some(1)),
    ];
    assert_eq!(registers(flips_back, Some(1)), 1);
}

#[test]
fn an_unknown_write_may_come_late_or_never() {
    let base = || vec![unknown(0, put("reg/a", 1)), wrote(10, 20, 2)];
    assert_eq!(registers(base(), Some(2)), 0);
    assert_eq!(registers(base(), Some(1)), 0);
    let mut before_its_call = vec![saw(0, 1, Some(7)), unknown(5, put("reg/a", 7))];
    assert_eq!(registers(std::mem::take(&mut before_its_call), Some(7)), 1);
}

#[test]
fn a_long_history_with_many_unknown_writes_is_decided() {
    let mut operations = Vec::new();
    for round in 0..400_u64 {
        let at = round * 100;
        operations.push(wrote(at, at + 50, round * 2));
        operations.push(saw(at + 60, at + 70, Some(round * 2)));
        if round % 20 == 0 {
            operations.push(unknown(at + 5, put("reg/a", round * 2 + 1)));
        }
    }
    assert_eq!(registers(operations, Some(798)), 0);
}
