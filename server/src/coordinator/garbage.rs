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

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let verb = if self.is_dry_run { "would go" } else { "removed" };
        let files = |what: &str, freed: Freed| {
            format!("{} {what}, {} bytes, {verb}", freed.files, freed.bytes)
        };
        let mut lines = vec![
            format!(
                "records of {} segments, {} indexes, {} index builds {verb}",
                self.segments, self.indexes, self.builds
            ),
            files("files of dropped segments", self.logs),
            files("files that no record names", self.orphans),
            files("index files", self.index_files),
        ];
        let stays = |what: &str, counts: &BTreeMap<&'static str, u64>| {
            let line = |(why, n): (&&str, &u64)| format!("{n} {what} stay: {why}");
            counts.iter().map(line).collect::<Vec<_>>()
        };
        lines.extend(stays("dropped segments", &self.waiting));
        lines.extend(stays("files", &self.kept));
        if let Some(failure) = &self.last_failure {
            lines.push(format!("{} failures, the last: {failure}", self.failures));
        }
        lines
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
    /// The last pass and the sum of all.
    pub(crate) fn read(&self) -> (Option<GarbageReport>, GarbageReport) {
        let inner = self.inner.lock();
        (inner.last.clone(), inner.total.clone())
    }

    pub(crate) fn note(&self, report: GarbageReport) {
        let mut inner = self.inner.lock();
        inner.total.merge(&report);
        inner.last = Some(report);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_report_tells_what_went_and_why_the_rest_stays() {
        let mut report = GarbageReport { segments: 2, ..GarbageReport::default() };
        report.logs.add(70);
        report.logs.add(30);
        report.waiting.insert("checkpoint", 3);
        report.kept.insert("younger than the tolerance", 4);
        expect![[r#"
            records of 2 segments, 0 indexes, 0 index builds removed
            2 files of dropped segments, 100 bytes, removed
            0 files that no record names, 0 bytes, removed
            0 index files, 0 bytes, removed
            3 dropped segments stay: checkpoint
            4 files stay: younger than the tolerance"#]]
        .assert_eq(&report.lines().join("\n"));
    }
}
