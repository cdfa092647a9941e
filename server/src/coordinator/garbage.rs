//! What garbage collection freed, for whoever asks.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Freed {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Freed {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    fn merge(&mut self, other: Freed) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// One pass, or the sum of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct GarbageReport {
    /// Unix milliseconds.
    pub(crate) began_at_ms: u64,
    pub(crate) took_ms: u64,
    /// Nothing was removed: it says what would be.
    pub(crate) is_dry_run: bool,
    /// Longest time that looking at the views took, with nobody else served.
    pub(crate) planning_ms_max: u64,
    /// Records removed.
    pub(crate) segments: u64,
    pub(crate) indexes: u64,
    pub(crate) builds: u64,
    /// Of dropped segments.
    pub(crate) logs: Freed,
    /// Named by no record.
    pub(crate) orphans: Freed,
    pub(crate) index_files: Freed,
    /// Dropped segments that stay, by what they wait for.
    pub(crate) waiting: BTreeMap<&'static str, u64>,
    /// Files looked at that stay, by reason.
    pub(crate) kept: BTreeMap<&'static str, u64>,
    /// Deletions and listings that did not succeed; they are tried again.
    pub(crate) failures: u64,
    pub(crate) last_failure: Option<String>,
}

impl GarbageReport {
    /// Sums up what was removed; what stays is as the newest pass saw it.
    pub(crate) fn merge(&mut self, newer: &GarbageReport) {
        if self.began_at_ms == 0 {
            self.began_at_ms = newer.began_at_ms;
        }
        self.took_ms += newer.took_ms;
        self.is_dry_run = newer.is_dry_run;
        self.planning_ms_max = self.planning_ms_max.max(newer.planning_ms_max);
        if !newer.is_dry_run {
            self.segments += newer.segments;
            self.indexes += newer.indexes;
            self.builds += newer.builds;
            self.logs.merge(newer.logs);
            self.orphans.merge(newer.orphans);
            self.index_files.merge(newer.index_files);
        }
        if !newer.waiting.is_empty() {
            self.waiting.clone_from(&newer.waiting);
        }
        if !newer.kept.is_empty() {
            self.kept.clone_from(&newer.kept);
        }
        self.failures += newer.failures;
        self.last_failure = newer.last_failure.clone().or(self.last_failure.take());
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.segments + self.indexes + self.builds + self.failures == 0
            && self.logs.files + self.orphans.files + self.index_files.files == 0
    }
}

/// What this node removed since it started. Memory only: a new leader begins anew.
#[derive(Default)]
pub(crate) struct GarbageLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    total: GarbageReport,
    last: Option<GarbageReport>,
}

impl GarbageLog {
    pub(crate) fn note(&self, report: GarbageReport) {
        let mut inner = self.inner.lock();
        inner.total.merge(&report);
        inner.last = Some(report);
    }
}
