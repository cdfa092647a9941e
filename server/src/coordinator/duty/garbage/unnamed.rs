//! Files that no record named when they were looked at, and since when.
//!
//! The clock of the store says how old a file is, and may be wrong by days. So a file is garbage only
//! after it has been seen without a name for as long as the tolerance, by the leader's own monotonic
//! clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Files that are remembered, about 150 bytes each. Those beyond it wait until some of these are gone.
const FILES_MAX: usize = 200_000;

/// Of one tenure.
#[derive(Debug, Default)]
pub(crate) struct Unnamed {
    files: BTreeMap<String, Seen>,
    pass: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Instant,
    /// The newest pass that saw it.
    pass: u64,
}

impl Unnamed {
    /// Returns the number of the pass, for its end: somebody may ask for a dry run meanwhile.
    pub(super) fn begin_pass(&mut self) -> u64 {
        self.pass += 1;
        self.pass
    }

    /// A file has no name now. Returns for how long that has been so; `None`: it is not remembered.
    pub(super) fn note(&mut self, path: &str, now: Instant) -> Option<Duration> {
        let pass = self.pass;
        if let Some(seen) = self.files.get_mut(path) {
            seen.pass = pass;
            return Some(now.saturating_duration_since(seen.since));
        }
        if self.files.len() >= FILES_MAX {
            return None;
        }
        self.files.insert(path.to_owned(), Seen { since: now, pass });
        Some(Duration::ZERO)
    }

    /// A file has a name, or is gone.
    pub(super) fn forget(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// The pass has seen all files: those that it did not see are gone.
    pub(super) fn end_pass(&mut self, pass: u64) {
        self.files.retain(|_, seen| seen.pass >= pass);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_from_when_it_was_first_seen_without_a_name() {
        let mut unnamed = Unnamed::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs());
        let pass = unnamed.begin_pass();
        assert_eq!(seconds(unnamed.note("a", at(0))), Some(0));
        assert_eq!(seconds(unnamed.note("b", at(0))), Some(0));
        assert_eq!(seconds(unnamed.note("c", at(0))), Some(0));
        unnamed.end_pass(pass);
        let pass = unnamed.begin_pass();
        assert_eq!(seconds(unnamed.note("a", at(50))), Some(50));
        unnamed.forget("b");
        unnamed.begin_pass();
        unnamed.end_pass(pass);
        unnamed.begin_pass();
        assert_eq!(seconds(unnamed.note("a", at(70))), Some(70));
        assert_eq!(seconds(unnamed.note("b", at(70))), Some(0), "it had a name");
        assert_eq!(seconds(unnamed.note("c", at(70))), Some(0), "it was gone");
    }

    #[test]
    fn no_more_files_are_remembered_than_fit() {
        let mut unnamed = Unnamed::default();
        let now = Instant::now();
        for n in 0..FILES_MAX {
            assert!(unnamed.note(&n.to_string(), now).is_some());
        }
        assert!(unnamed.note("one more", now).is_none());
        unnamed.forget("0");
        assert!(unnamed.note("one more", now).is_some());
    }
}
