//! Is the order of revisions sound: complete, written by us, each write once, and the final state?

use std::collections::BTreeMap;

use super::{Findings, Violation};
use crate::history::{Answer, Asked, History, Operation, Seen, Serial, Timeline};

/// A linearizable read of everything, after the faults.
#[derive(Clone, Copy, Debug)]
pub struct FinalState<'a> {
    pub pairs: &'a [Seen],
    pub revision: i64,
}

/// Finds revisions that no watch showed, changes that nobody asked for, writes that happened twice,
/// acknowledged writes that are not there, versions that do not follow each other, and a final
/// state that is not what the changes add up to.
#[must_use]
pub fn check(history: &History, timeline: &Timeline, state: &FinalState<'_>) -> Vec<Violation> {
    let mut findings = Findings::new("timeline");
    holes(timeline, state.revision, &mut findings);
    let writes = Writes::of(&history.operations);
    explained(history, timeline, &writes, &mut findings);
    durable(history, timeline, &mut findings);
    versions(timeline, &mut findings);
    final_state(timeline, state, &mut findings);
    findings.violations
}

/// Writes without an answer that nevertheless happened.
#[must_use]
pub fn n_unknown_applied(history: &History, timeline: &Timeline) -> usize {
    let writes = Writes::of(&history.operations);
    let serials = timeline
        .by_revision
        .values()
        .flat_map(BTreeMap::values)
        .filter_map(|change| change.put.as_ref().map(|seen| seen.serial));
    serials.filter(|it| writes.of_serial.get(it).is_some_and(|write| write.is_unknown)).count()
}

fn holes(timeline: &Timeline, final_revision: i64, findings: &mut Findings) {
    let mut expected = 2;
    for revision in timeline.by_revision.keys() {
        if *revision != expected {
            findings.add(format!("no watch showed revisions {expected} to {}", revision - 1));
        }
        expected = revision + 1;
    }
    if final_revision >= expected {
        findings.add(format!("no watch showed revisions {expected} to {final_revision}, the last"));
    }
    if final_revision < expected - 1 {
        findings.add(format!(
            "the final read is at revision {final_revision}, but a watch showed {}",
            expected - 1
        ));
    }
}

struct Write {
    key: String,
    lease: i64,
    is_unknown: bool,
}

struct Writes {
    of_serial: BTreeMap<Serial, Write>,
    /// Deletes without an answer, by key.
    n_unknown_deletes: BTreeMap<String, usize>,
}

impl Writes {
    fn of(operations: &[Operation]) -> Writes {
        let mut of_serial = BTreeMap::new();
        let mut n_unknown_deletes: BTreeMap<String, usize> = BTreeMap::new();
        for operation in operations {
            let is_unknown = operation.answer.is_none();
            let mut add = |serial: Serial, key: &String, lease: i64| {
                of_serial.insert(serial, Write { key: key.clone(), lease, is_unknown });
            };
            match &operation.asked {
                Asked::Put { key, serial, lease } => add(*serial, key, *lease),
                Asked::PutMany { puts } => puts.iter().for_each(|(key, it)| add(*it, key, 0)),
                Asked::Swap { key, serial, .. } => add(*serial, key, 0),
                Asked::Delete { key } if is_unknown => {
                    *n_unknown_deletes.entry(key.clone()).or_default() += 1;
                }
                Asked::Delete { .. } | Asked::Read { .. } | Asked::Revoke { .. } => {}
            }
        }
        Writes { of_serial, n_unknown_deletes }
    }
}

/// Every change has a cause, and no cause has two changes.
fn explained(history: &History, timeline: &Timeline, writes: &Writes, findings: &mut Findings) {
    let mut seen_at: BTreeMap<Serial, i64> = BTreeMap::new();
    let mut acknowledged_deletes: BTreeMap<(i64, &str), usize> = BTreeMap::new();
    for operation in &history.operations {
        if let (Asked::Delete { key }, Some(Answer::Deleted { revision, n_deleted })) =
            (&operation.asked, &operation.answer)
            && *n_deleted > 0
        {
            *acknowledged_deletes.entry((*revision, key)).or_default() += 1;
        }
    }
    for ((revision, key), count) in &acknowledged_deletes {
        if *count > 1 {
            findings
                .add(format!("{count} deletes of {key} were told the same revision {revision}"));
        }
    }
    let mut unknown_deletes = writes.n_unknown_deletes.clone();
    for (revision, changes) in &timeline.by_revision {
        for (key, change) in changes {
            match &change.put {
                Some(seen) => put_explained(*revision, key, seen, writes, &mut seen_at, findings),
                None => {
                    let leased = timeline.at(key, revision - 1).is_some_and(|it| it.lease != 0);
                    if leased || acknowledged_deletes.contains_key(&(*revision, key.as_str())) {
                        continue;
                    }
                    match unknown_deletes.get_mut(key) {
                        Some(count) if *count > 0 => *count -= 1,
                        Some(_) | None => findings
                            .add(format!("nobody asked for the delete of {key} at {revision}")),
                    }
                }
            }
        }
    }
}

fn put_explained(
    revision: i64,
    key: &str,
    seen: &Seen,
    writes: &Writes,
    seen_at: &mut BTreeMap<Serial, i64>,
    findings: &mut Findings,
) {
    match writes.of_serial.get(&seen.serial) {
        Some(write) if write.key == key && write.lease == seen.lease => {}
        Some(write) => findings.add(format!(
            "serial {} was for {} with lease {:x}, but {key} got it with lease {:x} at {revision}",
            seen.serial, write.key, write.lease, seen.lease
        )),
        None => findings.add(format!("nobody wrote serial {} to {key} at {revision}", seen.serial)),
    }
    if let Some(first) = seen_at.insert(seen.serial, revision) {
        findings.add(format!(
            "serial {} was written twice: at revision {first} and again at {revision}",
            seen.serial
        ));
    }
}

/// Every acknowledged write is at the revision that its client was told.
fn durable(history: &History, timeline: &Timeline, findings: &mut Findings) {
    let mut expect = |key: &str, revision: i64, serial: Option<Serial>| {
        let change = timeline.by_revision.get(&revision).and_then(|it| it.get(key));
        match (change, serial) {
            (None, _) => findings.add(format!(
                "lost: an acknowledged write of {key} at revision {revision} is not there"
            )),
            (Some(change), serial) => {
                let found = change.put.as_ref().map(|seen| seen.serial);
                if found != serial {
                    findings.add(format!(
                        "lost: {key} at revision {revision} should be {serial:?} but is {found:?}"
                    ));
                }
            }
        }
    };
    for operation in &history.operations {
        match (&operation.asked, &operation.answer) {
            (Asked::Put { key, serial, .. }, Some(Answer::Written { revision })) => {
                expect(key, *revision, Some(*serial));
            }
            (Asked::PutMany { puts }, Some(Answer::Written { revision })) => {
                puts.iter().for_each(|(key, serial)| expect(key, *revision, Some(*serial)));
            }
            (
                Asked::Swap { key, serial, .. },
                Some(Answer::Swapped { revision, succeeded, .. }),
            ) if *succeeded => {
                expect(key, *revision, Some(*serial));
            }
            (Asked::Delete { key }, Some(Answer::Deleted { revision, n_deleted }))
                if *n_deleted > 0 =>
            {
                expect(key, *revision, None);
            }
            _ => {}
        }
    }
}

/// Create revision, version and mod revision of every put follow from what was before.
fn versions(timeline: &Timeline, findings: &mut Findings) {
    for (revision, changes) in &timeline.by_revision {
        for (key, change) in changes {
            let Some(seen) = &change.put else {
                if timeline.at(key, revision - 1).is_none() {
                    findings.add(format!("{key} was deleted at {revision} but was not there"));
                }
                continue;
            };
            let (version, created) = timeline
                .at(key, revision - 1)
                .map_or((1, *revision), |before| (before.version + 1, before.create_revision));
            let expected = (version, created, *revision);
            let found = (seen.version, seen.create_revision, seen.mod_revision);
            if expected != found {
                findings.add(format!(
                    "{key} at {revision}: (version, create, mod) is {found:?}, not {expected:?}"
                ));
            }
        }
    }
}

fn final_state(timeline: &Timeline, state: &FinalState<'_>, findings: &mut Findings) {
    let expected: BTreeMap<&str, &Seen> = timeline
        .all_at("", state.revision)
        .into_iter()
        .map(|seen| (seen.key.as_str(), seen))
        .collect();
    let found: BTreeMap<&str, &Seen> =
        state.pairs.iter().map(|seen| (seen.key.as_str(), seen)).collect();
    for (key, seen) in &expected {
        match found.get(key) {
            None => findings.add(format!("{key} is missing from the final state: {seen:?}")),
            Some(it) if it == seen => {}
            Some(it) => findings.add(format!("final state of {key}: {it:?}, not {seen:?}")),
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        findings.add(format!("{key} is in the final state but no watch showed it"));
    }
}
