//! When a snapshot is due, and how much of the log stays behind it. All limits are in bytes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[derive(Clone, Copy, Debug)]
pub struct RetentionPolicy {
    /// A snapshot is due after so much applied log, so many entries, or, where anything was
    /// applied at all, so much time.
    pub snapshot_log_bytes: u64,
    pub snapshot_entries: u64,
    pub snapshot_age: Duration,
    /// Log that stays behind the newest snapshot, for followers that are a little late.
    pub keep_log_bytes: u64,
    /// The log is purged beyond a snapshot that is being sent only when it is larger than this.
    pub sending_log_bytes_max: u64,
    /// While no snapshot can be built the log is purged without one when it is larger than this.
    pub unsnapshotted_log_bytes_max: u64,
    /// The log is purged beyond what a follower that answers still needs only when it is larger
    /// than this; that follower gets a snapshot then.
    pub lagging_log_bytes_max: u64,
}

impl Default for RetentionPolicy {
    fn default() -> RetentionPolicy {
        RetentionPolicy {
            snapshot_log_bytes: 256 << 20,
            snapshot_entries: 500_000,
            snapshot_age: Duration::from_secs(15 * 60),
            keep_log_bytes: 256 << 20,
            sending_log_bytes_max: 4 << 30,
            unsnapshotted_log_bytes_max: 2 << 30,
            lagging_log_bytes_max: 1 << 30,
        }
    }
}

/// Applied since the newest snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Debt {
    bytes: u64,
    entries: u64,
    since: Option<Instant>,
}

pub(crate) struct Retention {
    pub(crate) policy: RetentionPolicy,
    debt: Mutex<Debt>,
    /// Snapshots that are being sent, by their last index.
    pins: Mutex<BTreeMap<u64, usize>>,
    /// Up to where the state was made durable because no snapshot could be built.
    stand_in: Mutex<Option<u64>>,
}

impl Retention {
    pub(crate) fn new(policy: RetentionPolicy) -> Retention {
        Retention {
            policy,
            debt: Mutex::default(),
            pins: Mutex::default(),
            stand_in: Mutex::default(),
        }
    }

    pub(crate) fn applied(&self, bytes: u64, entries: u64) {
        let mut debt = self.debt.lock();
        debt.bytes += bytes;
        debt.entries += entries;
        debt.since.get_or_insert_with(Instant::now);
    }

    pub(crate) fn debt(&self) -> Debt {
        *self.debt.lock()
    }

    /// A snapshot was built that holds at least what `covered` counted.
    pub(crate) fn built(&self, covered: Debt) {
        let mut debt = self.debt.lock();
        debt.bytes = debt.bytes.saturating_sub(covered.bytes);
        debt.entries = debt.entries.saturating_sub(covered.entries);
        debt.since = (debt.entries > 0).then(Instant::now);
        *self.stand_in.lock() = None;
    }

    /// No snapshot could be built, and the state is durable up to `index`.
    pub(crate) fn stood_in(&self, index: u64) {
        *self.stand_in.lock() = Some(index);
    }

    pub(crate) fn newest_stand_in(&self) -> Option<u64> {
        *self.stand_in.lock()
    }

    pub(crate) fn installed(&self) {
        *self.debt.lock() = Debt::default();
    }

    pub(crate) fn snapshot_is_due(&self) -> bool {
        let debt = self.debt();
        let policy = &self.policy;
        debt.bytes >= policy.snapshot_log_bytes
            || debt.entries >= policy.snapshot_entries
            || debt.since.is_some_and(|since| since.elapsed() >= policy.snapshot_age)
    }

    pub(crate) fn pin(&self, index: u64) {
        *self.pins.lock().entry(index).or_default() += 1;
    }

    pub(crate) fn unpin(&self, index: u64) {
        let mut pins = self.pins.lock();
        if let Some(n) = pins.get_mut(&index) {
            *n -= 1;
            if *n == 0 {
                pins.remove(&index);
            }
        }
    }

    pub(crate) fn lowest_pin(&self) -> Option<u64> {
        self.pins.lock().first_key_value().map(|(index, _)| *index)
    }
}

/// One mark is set about every so many bytes.
const MARK_STEP_BYTES: u64 = 1 << 20;

/// Remembers roughly at which index how many bytes of log had been written.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Index of an entry, and the bytes up to and with it, ascending.
    marks: VecDeque<(u64, u64)>,
    /// Bytes up to the last entry.
    total: u64,
    /// Bytes up to the first entry.
    start: u64,
}

impl Ledger {
    pub(crate) fn append(&mut self, index: u64, bytes: u64) {
        self.total += bytes;
        let marked = self.marks.back().map_or(self.start, |(_, bytes)| *bytes);
        if self.total - marked >= MARK_STEP_BYTES {
            self.marks.push_back((index, self.total));
        }
    }

    /// Entries from `index` on are gone.
    pub(crate) fn truncate(&mut self, index: u64) {
        while self.marks.back().is_some_and(|(marked, _)| *marked >= index) {
            self.marks.pop_back();
        }
        // What follows the last mark is less than a step: forgotten.
        self.total = self.marks.back().map_or(self.start, |(_, bytes)| *bytes);
    }

    /// Entries up to `index` are gone.
    pub(crate) fn purge(&mut self, index: u64) {
        while let Some((marked, bytes)) = self.marks.front().copied()
            && marked <= index
        {
            self.start = bytes;
            self.marks.pop_front();
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.total - self.start
    }

    /// The highest index such that at least `bytes` of log lie between it and `upto`.
    pub(crate) fn index_before(&self, upto: u64, bytes: u64) -> Option<u64> {
        let behind = self.marks.iter().rev().find(|(index, _)| *index <= upto)?.1;
        let (index, _) = self.marks.iter().rev().find(|(_, at)| at + bytes <= behind)?;
        Some(*index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_finds_where_so_many_bytes_begin() {
        let mut ledger = Ledger::default();
        for index in 0..100 {
            ledger.append(index, 1 << 20);
        }
        assert_eq!(ledger.size_bytes(), 100 << 20);
        assert_eq!(ledger.index_before(99, 10 << 20), Some(89));
        assert_eq!(ledger.index_before(50, 10 << 20), Some(40));
        assert_eq!(ledger.index_before(5, 10 << 20), None);
        ledger.purge(40);
        assert_eq!(ledger.size_bytes(), 59 << 20);
        assert_eq!(ledger.index_before(99, 58 << 20), Some(41));
        assert_eq!(ledger.index_before(99, 70 << 20), None);
        ledger.truncate(90);
        assert_eq!(ledger.size_bytes(), 49 << 20);
        assert_eq!(ledger.index_before(99, 10 << 20), Some(79));
    }

    #[test]
    fn a_snapshot_is_due_by_bytes_and_what_came_meanwhile_counts_on() {
        let retention =
            Retention::new(RetentionPolicy { snapshot_log_bytes: 100, ..Default::default() });
        retention.applied(99, 1);
        assert!(!retention.snapshot_is_due());
        retention.applied(1, 1);
        assert!(retention.snapshot_is_due());
        let covered = retention.debt();
        retention.applied(60, 1);
        retention.built(covered);
        assert!(!retention.snapshot_is_due());
        retention.applied(40, 1);
        assert!(retention.snapshot_is_due());
    }
}
