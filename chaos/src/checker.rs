//! Checkers: pure functions from a history to what is wrong with it.
//!
//! The order of revisions that the watches showed is the witness. [`timeline`] says whether the
//! witness itself is sound, [`order`] whether every answer fits it in real time, [`watch`] whether
//! every single watch kept the promises of the API, [`lease`] whether a lease ended early, and
//! [`register`] searches, without any revision, for an order of its own.

pub mod lease;
pub mod order;
pub mod register;
pub mod timeline;
pub mod watch;

#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::history::{History, Seen, Timeline};

/// One thing that must not be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The checker that found it.
    pub checker: &'static str,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.text)
    }
}

/// Collects what one checker finds.
#[derive(Debug)]
pub struct Findings {
    checker: &'static str,
    pub violations: Vec<Violation>,
}

impl Findings {
    #[must_use]
    pub fn new(checker: &'static str) -> Findings {
        Findings { checker, violations: Vec::new() }
    }

    pub fn add(&mut self, text: String) {
        self.violations.push(Violation { checker: self.checker, text });
    }
}

/// What all checkers say, and how much they looked at.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub n_revisions: usize,
    pub n_answered: usize,
    pub n_unknown: usize,
    pub n_unknown_applied: usize,
    pub n_watch_events: usize,
    pub n_leases_checked: usize,
    pub n_register_keys: usize,
    /// Keys whose search was given up. Not a pass.
    pub n_undecided: usize,
}

/// Runs every checker. `final_state` is a linearizable read of everything after the faults.
#[must_use]
pub fn check(history: &History, final_state: &[Seen], final_revision: i64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut conflicts = Findings::new("timeline");
    let timeline = Timeline::build(&history.watches, |text| conflicts.add(text));
    verdict.violations.append(&mut conflicts.violations);
    let mut complaints = Findings::new("workload");
    history.complaints.iter().for_each(|text| complaints.add(text.clone()));
    verdict.violations.append(&mut complaints.violations);
    let state = timeline::FinalState { pairs: final_state, revision: final_revision };
    verdict.violations.extend(timeline::check(history, &timeline, &state));
    verdict.violations.extend(order::check(history, &timeline));
    verdict.violations.extend(watch::check(&history.watches, &timeline));
    let leases = lease::check(history, &timeline);
    verdict.violations.extend(leases.violations);
    verdict.n_leases_checked = leases.n_checked;
    let registers = register::check(history, final_state);
    verdict.violations.extend(registers.violations);
    verdict.n_register_keys = registers.n_keys;
    verdict.n_undecided = registers.n_undecided;
    verdict.n_revisions = timeline.by_revision.len();
    verdict.n_answered = history.operations.iter().filter(|it| it.answer.is_some()).count();
    verdict.n_unknown = history.operations.len() - verdict.n_answered;
    verdict.n_unknown_applied = timeline::n_unknown_applied(history, &timeline);
    verdict.n_watch_events =
        history.watches.iter().flat_map(|it| &it.batches).map(|it| it.changes.len()).sum();
    verdict
}
