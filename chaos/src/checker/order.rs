//! Does every answer fit the order of revisions, and does that order fit real time?
//!
//! A write stands at its revision, a read just after the revision in its header. If every answer
//! equals the state at its place, and no operation stands before one that had returned when it was
//! called, the history is strictly serializable, transactions and prefix reads included.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Findings, Violation};
use crate::history::{Answer, Asked, History, Operation, Seen, Timeline};

/// Finds answers that do not equal the state at their revision, and answers that are too old.
#[must_use]
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut findings = Findings::new("order");
    for operation in &history.operations {
        fits(operation, timeline, &mut findings);
    }
    real_time(history, &mut findings);
    findings.violations
}

fn fits(operation: &Operation, timeline: &Timeline, findings: &mut Findings) {
    match (&operation.asked, &operation.answer) {
        (Asked::Read { key, prefix, .. }, Some(Answer::Read { revision, found })) => {
            let expected: Vec<&Seen> = if *prefix {
                timeline.all_at(key, *revision)
            } else {
                timeline.at(key, *revision).into_iter().collect()
            };
            if !found.iter().eq(expected.iter().copied()) {
                findings.add(format!(
                    "node {} read {found:?} under {key} at revision {revision}, not {expected:?}",
                    operation.node
                ));
            }
        }
        (
            Asked::Swap { key, expected, serial },
            Some(Answer::Swapped { revision, succeeded, found }),
        ) => {
            let before = if *succeeded { revision - 1 } else { *revision };
            let held = timeline.at(key, before);
            let equal = held.map(|seen| seen.serial) == *expected;
            if equal != *succeeded {
                findings.add(format!(
                    "swap of {key} from {expected:?} to {serial} at {revision}: it held {held:?}, \
                     but succeeded is {succeeded}"
                ));
            }
            if !succeeded && found.as_ref() != held {
                findings.add(format!("a failed swap of {key} at {revision} read {found:?}"));
            }
        }
        (Asked::Delete { key }, Some(Answer::Deleted { revision, n_deleted: 0 })) => {
            if let Some(held) = timeline.at(key, *revision) {
                findings
                    .add(format!("a delete of {key} at {revision} found nothing, not {held:?}"));
            }
        }
        _ => {}
    }
}

/// Twice the revision for what changes something, one more for what only looked.
fn place(operation: &Operation) -> Option<i64> {
    let place = match (&operation.asked, operation.answer.as_ref()?) {
        (Asked::Read { serializable: true, .. }, _) => return None,
        // A revoke that found no keys has no revision of its own.
        (Asked::Revoke { .. }, Answer::Written { revision }) => revision * 2 + 1,
        (_, Answer::Written { revision }) => revision * 2,
        (_, Answer::Swapped { revision, succeeded, .. }) => revision * 2 + i64::from(!*succeeded),
        (_, Answer::Deleted { revision, n_deleted }) => revision * 2 + i64::from(*n_deleted == 0),
        (_, Answer::Read { revision, .. }) => revision * 2 + 1,
    };
    Some(place)
}

fn real_time(history: &History, findings: &mut Findings) {
    let mut operations: Vec<(i64, &Operation)> =
        history.operations.iter().filter_map(|it| Some((place(it)?, it))).collect();
    operations.sort_by_key(|(_, operation)| operation.call_us);
    // Returned operations raise the floor; those that have not returned yet wait by their return.
    let mut pending: BinaryHeap<Reverse<(u64, i64)>> = BinaryHeap::new();
    let mut floor = 0;
    for (place, operation) in operations {
        while let Some(Reverse((return_us, returned))) = pending.peek().copied() {
            if return_us >= operation.call_us {
                break;
            }
            floor = floor.max(returned);
            pending.pop();
        }
        if place < floor {
            findings.add(format!(
                "stale: node {} answered {:?} at revision {} though revision {} had been \
                 acknowledged before it was asked (called at {} us)",
                operation.node,
                operation.asked,
                place / 2,
                floor / 2,
                operation.call_us
            ));
        }
        pending.push(Reverse((operation.return_us, place)));
    }
}
