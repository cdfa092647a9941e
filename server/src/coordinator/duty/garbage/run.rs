//! One pass: what it may do, how fast, and what it did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use raft::View;
use statemachine::State;
use tokio::time::Instant;

use crate::coordinator::garbage::GarbageReport;
use crate::coordinator::objects::{ObjectError, Objects};
use crate::coordinator::{Failure, Lead};

/// A store that refuses so many deletions in a row is left alone until the next pass.
const FAILURES_IN_A_ROW_MAX: u32 = 16;
/// How long a quorum may take to confirm the leadership.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);
/// Deletions that were not used may be caught up with for that long.
const BURST: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Remove,
    DryRun,
}

/// What a file is, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Log,
    Orphan,
    Index,
}

/// A file that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) path: String,
    pub(super) size_bytes: u64,
    pub(super) kind: Kind,
    /// The segment whose record must stay while the file does.
    pub(super) segment: i64,
    /// Folders above it that go with their last file.
    pub(super) folders: usize,
}

pub(super) struct Run<'l> {
    pub(super) lead: &'l Arc<Lead>,
    pub(super) mode: Mode,
    pub(super) report: GarbageReport,
    began: Instant,
    /// Spent looking at the records.
    looked: Duration,
    pace: Pace,
    failures_in_a_row: u32,
}

impl<'l> Run<'l> {
    pub(super) fn new(lead: &'l Arc<Lead>, mode: Mode) -> Run<'l> {
        let report = GarbageReport {
            began_at_ms: lead.now_ms(),
            is_dry_run: mode == Mode::DryRun,
            ..GarbageReport::default()
        };
        let pace = Pace::new(lead.settings().gc_removes_per_s);
        Run {
            lead,
            mode,
            report,
            began: Instant::now(),
            looked: Duration::ZERO,
            pace,
            failures_in_a_row: 0,
        }
    }

    pub(super) fn into_report(mut self) -> GarbageReport {
        self.report.took_ms = millis(self.began.elapsed());
        self.report
    }

    /// Notes what was done.
    pub(super) fn end(self) {
        let lead = Arc::clone(self.lead);
        lead.coordinator.counts.garbage_planning.add_time(self.looked);
        let report = self.into_report();
        if !report.is_idle() {
            tracing::info!(
                segments = report.segments,
                indexes = report.indexes,
                builds = report.builds,
                log_files = report.logs.files,
                log_bytes = report.logs.bytes,
                orphan_files = report.orphans.files,
                orphan_bytes = report.orphans.bytes,
                index_files = report.index_files.files,
                index_bytes = report.index_files.bytes,
                failures = report.failures,
                dry_run = report.is_dry_run,
                took_ms = report.took_ms,
                "garbage collected"
            );
        }
        lead.coordinator.garbage.note(report);
    }

    /// Looks at the state for a moment, and notes how long that was.
    pub(super) fn look<T>(&mut self, look: impl FnOnce(&State) -> T) -> T {
        let began = Instant::now();
        let seen = self.lead.local().read(look);
        let took = began.elapsed();
        self.looked += took;
        self.report.planning_ms_max = self.report.planning_ms_max.max(millis(took));
        seen
    }

    /// The state after this moment, seen by a leader that a quorum confirmed after this moment.
    ///
    /// # Errors
    /// This node does not lead any more, or the collection was paused.
    pub(super) async fn confirmed(&self) -> Result<View, Failure> {
        let node = self.lead.node();
        node.confirm_leadership(Instant::now() + CONFIRM_TIMEOUT).await?;
        let view = self.lead.view().await?;
        if self.lead.tenure.cancel.is_cancelled() {
            return Err(Failure::NotLeader);
        }
        if self.mode == Mode::Remove && view.read(|state| is_paused_at(state, self.lead.now_ms())) {
            return Err(Failure::Unavailable("garbage collection was paused".to_owned()));
        }
        Ok(view)
    }

    pub(super) fn keep(&mut self, why: &'static str) {
        *self.report.kept.entry(why).or_default() += 1;
    }

    pub(super) fn note_failure(&mut self, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        // One warning for a store that is down, not one for each file.
        if self.report.failures == 0 {
            tracing::warn!(error = text, "object store delays garbage collection");
        }
        self.report.failures += 1;
        self.report.last_failure = Some(text);
    }

    /// Deletes files, some at once. Returns the segments of which some may still be there.
    ///
    /// # Errors
    /// The store refuses one after the other.
    pub(super) async fn delete(&mut self, files: Vec<Doomed>) -> Result<BTreeSet<i64>, Failure> {
        let mut left = BTreeSet::new();
        if self.mode == Mode::DryRun {
            for file in &files {
                self.count(file);
            }
            return Ok(left);
        }
        let objects = self.lead.coordinator.objects().clone();
        let at_once = self.lead.settings().gc_remove_concurrent.max(1);
        let mut files = files.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < at_once
                && let Some(file) = files.next()
            {
                self.pace.wait().await;
                under_way.push(delete(&objects, file));
            }
            let Some((file, outcome)) = under_way.next().await else { return Ok(left) };
            match outcome {
                Ok(()) => {
                    self.failures_in_a_row = 0;
                    self.count(&file);
                }
                Err(error) => {
                    left.insert(file.segment);
                    self.note_failure(&error);
                    self.failures_in_a_row += 1;
                    if self.failures_in_a_row >= FAILURES_IN_A_ROW_MAX {
                        let reason = "the object store does not delete".to_owned();
                        return Err(Failure::Unavailable(reason));
                    }
                }
            }
        }
    }

    fn count(&mut self, file: &Doomed) {
        let freed = match file.kind {
            Kind::Log => &mut self.report.logs,
            Kind::Orphan => &mut self.report.orphans,
            Kind::Index => &mut self.report.index_files,
        };
        freed.add(file.size_bytes);
    }
}

async fn delete(objects: &Objects, file: Doomed) -> (Doomed, Result<(), ObjectError>) {
    let outcome = objects.delete(&file.path).await;
    if outcome.is_ok() {
        objects.delete_empty_folders(&file.path, file.folders).await;
    }
    (file, outcome)
}

pub(super) fn is_paused(lead: &Lead) -> bool {
    lead.local().read(|state| is_paused_at(state, lead.now_ms()))
}

fn is_paused_at(state: &State, now_ms: u64) -> bool {
    state.settings().garbage_held || state.views().garbage().holds_at(now_ms)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Lets so many through in a second.
struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_s: u32) -> Pace {
        Pace { gap: Duration::from_secs(1) / per_s.max(1), next: Instant::now() }
    }

    async fn wait(&mut self) {
        let now = Instant::now();
        if self.next > now {
            tokio::time::sleep_until(self.next).await;
        }
        let floor = now.checked_sub(BURST).unwrap_or(now);
        self.next = self.next.max(floor) + self.gap;
    }
}
