//! Is every register linearizable by the values alone? Revisions are not looked at here, so a
//! server that numbers its revisions well but answers wrongly is caught all the same.
//!
//! The search is that of Wing and Gong with Lowe's memory of visited states: try what may come
//! next, go back where nothing fits. Linearizability is local, so each key is searched alone.

use std::collections::{BTreeMap, HashSet};

use super::{Findings, Violation};
use crate::history::{Answer, Asked, History, NEVER_US, REGISTERS, Seen, Serial};

/// Choices after which the search of one key is given up.
const STEPS_MAX: usize = 3_000_000;

/// What the search says.
#[derive(Debug)]
pub struct RegisterVerdict {
    pub violations: Vec<Violation>,
    pub n_keys: usize,
    pub n_undecided: usize,
}

type State = Option<Serial>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Write(Serial),
    /// Succeeded: it held what was expected.
    Swap(State, Serial),
    /// Failed: it held something else, which was read.
    SwapFailed {
        expected: State,
        found: State,
    },
    /// `None`: nobody knows whether there was something to delete.
    Delete(Option<bool>),
    Read(State),
}

#[derive(Clone, Copy, Debug)]
struct Event {
    call_us: u64,
    return_us: u64,
    step: Step,
}

impl Event {
    /// An operation of unknown fate need not have happened.
    fn is_required(&self) -> bool {
        self.return_us != NEVER_US
    }
}

/// Searches every register. The final state counts as a read after everything else.
#[must_use]
pub fn check(history: &History, final_state: &[Seen]) -> RegisterVerdict {
    let mut findings = Findings::new("register");
    let mut by_key = events_by_key(history);
    let end_us = by_key
        .values()
        .flatten()
        .flat_map(|event| [event.call_us, event.return_us])
        .filter(|at_us| *at_us != NEVER_US)
        .max()
        .unwrap_or(0);
    for (key, events) in &mut by_key {
        let held = final_state.iter().find(|seen| seen.key == *key).map(|seen| seen.serial);
        let (call_us, return_us) = (end_us + 1, end_us + 2);
        events.push(Event { call_us, return_us, step: Step::Read(held) });
    }
    let mut n_undecided = 0;
    for (key, events) in &mut by_key {
        events.sort_by_key(|event| event.call_us);
        match search(events) {
            Found::Order => {}
            Found::GaveUp => n_undecided += 1,
            Found::Nothing { n_placed } => findings.add(format!(
                "{key} is not linearizable: of {} operations at most {n_placed} can be ordered",
                events.len()
            )),
        }
    }
    RegisterVerdict { violations: findings.violations, n_keys: by_key.len(), n_undecided }
}

fn events_by_key(history: &History) -> BTreeMap<String, Vec<Event>> {
    let mut by_key: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for operation in &history.operations {
        let serial_of = |found: &Option<Seen>| found.as_ref().map(|seen| seen.serial);
        let (key, step) = match (&operation.asked, &operation.answer) {
            (Asked::Put { key, serial, .. }, _) => (key, Step::Write(*serial)),
            (
                Asked::Swap { key, expected, .. },
                Some(Answer::Swapped { succeeded: false, found, .. }),
            ) => (key, Step::SwapFailed { expected: *expected, found: serial_of(found) }),
            (Asked::Swap { key, expected, serial }, _) => (key, Step::Swap(*expected, *serial)),
            (Asked::Delete { key }, Some(Answer::Deleted { n_deleted, .. })) => {
                (key, Step::Delete(Some(*n_deleted > 0)))
            }
            (Asked::Delete { key }, _) => (key, Step::Delete(None)),
            (
                Asked::Read { key, prefix: false, serializable: false },
                Some(Answer::Read { found, .. }),
            ) => (key, Step::Read(found.first().map(|seen| seen.serial))),
            (Asked::Read { .. } | Asked::PutMany { .. } | Asked::Revoke { .. }, _) => continue,
        };
        if key.starts_with(REGISTERS) {
            let (call_us, return_us) = (operation.call_us, operation.return_us);
            by_key.entry(key.clone()).or_default().push(Event { call_us, return_us, step });
        }
    }
    by_key
}

/// The state after the step, or `None` where it cannot come now.
fn apply(step: Step, state: State) -> Option<State> {
    match step {
        Step::Write(serial) => Some(Some(serial)),
        Step::Swap(expected, serial) => (state == expected).then_some(Some(serial)),
        Step::SwapFailed { expected, found } => {
            (state == found && state != expected).then_some(state)
        }
        Step::Delete(None) => Some(None),
        Step::Delete(Some(found)) => (state.is_some() == found).then_some(None),
        Step::Read(found) => (state == found).then_some(state),
    }
}

enum Found {
    Order,
    Nothing { n_placed: usize },
    GaveUp,
}

struct Placed {
    at: usize,
    before: State,
}

fn search(events: &[Event]) -> Found {
    let n_required = events.iter().filter(|event| event.is_required()).count();
    let mut done = vec![0_u64; events.len().div_ceil(64)];
    let mut visited: HashSet<(Vec<u64>, State)> = HashSet::new();
    let mut placed: Vec<Placed> = Vec::new();
    let mut state: State = None;
    let (mut n_left, mut n_placed_max) = (n_required, 0);
    let mut after: Option<usize> = None;
    for _ in 0..STEPS_MAX {
        if n_left == 0 {
            return Found::Order;
        }
        let choice = candidates(events, &done, after).find_map(|at| {
            let next = apply(events[at].step, state)?;
            let mut with = done.clone();
            with[at / 64] |= 1 << (at % 64);
            visited.insert((with, next)).then_some((at, next))
        });
        if let Some((at, next)) = choice {
            done[at / 64] |= 1 << (at % 64);
            n_left -= usize::from(events[at].is_required());
            placed.push(Placed { at, before: state });
            n_placed_max = n_placed_max.max(placed.len());
            state = next;
            after = None;
        } else {
            let Some(last) = placed.pop() else {
                return Found::Nothing { n_placed: n_placed_max };
            };
            done[last.at / 64] &= !(1 << (last.at % 64));
            n_left += usize::from(events[last.at].is_required());
            state = last.before;
            after = Some(last.at);
        }
    }
    Found::GaveUp
}

/// What may come next: every operation that was called before the first return of those that are
/// still to come. Required ones first, for those lead to the end; `after` is the one tried last.
fn candidates(
    events: &[Event],
    done: &[u64],
    after: Option<usize>,
) -> impl Iterator<Item = usize> + use<> {
    let mut first_return_us = u64::MAX;
    let mut open: Vec<usize> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        if done[at / 64] >> (at % 64) & 1 == 1 {
            continue;
        }
        if event.call_us > first_return_us {
            break;
        }
        first_return_us = first_return_us.min(event.return_us);
        open.push(at);
    }
    open.sort_by_key(|at| (!events[*at].is_required(), *at));
    let skip = after.and_then(|last| open.iter().position(|at| *at == last)).map_or(0, |at| at + 1);
    open.into_iter().skip(skip)
}
