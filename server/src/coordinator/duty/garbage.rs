//! Removes files and records that nothing needs any more: files first, records last, so that
//! whatever is interrupted is found again by the next pass, on whichever node that runs.
//!
//! A *sweep* looks at records only: dropped segments, indexes and builds whose time is over. A
//! *scan* lists the object store and removes files that no record names. Both take the records in
//! small portions, since a long look holds up every command; and both decide about files with the
//! records as they are after the listing, by a leader that a quorum has just confirmed.
//!
//! Invariant: no file is deleted that a replicated record names, but those of segments that are
//! dropped for good.

mod orphan;
mod path;
mod plan;
mod run;
mod scan;
mod sweep;
#[cfg(test)]
mod tests;
mod unnamed;

use std::sync::Arc;
use std::time::Duration;

use statemachine::view::Area;
use tokio::time::Instant;

use crate::coordinator::driver::Duty;
use crate::coordinator::garbage::GarbageReport;
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::{Failure, Lead};
use run::{Mode, Run};

pub(super) use path::area;
pub(crate) use unnamed::Unnamed;

/// A new leader sweeps after that long: it may finish what the old one began.
const FIRST_SWEEP: Duration = Duration::from_secs(10);
/// After a failure it is tried again this soon, unless the interval is shorter.
const RETRY: Duration = Duration::from_secs(60);

pub(crate) struct Garbage {
    sweep_at: Instant,
    scan_at: Instant,
}

impl Garbage {
    /// The first scan comes an interval after the take-over, as in stock: data nodes that had
    /// nobody to tell about their uploads have had time to.
    pub(crate) fn new(settings: &CoordinatorSettings) -> Garbage {
        let now = Instant::now();
        let interval = settings.gc_interval;
        Garbage { sweep_at: now + interval.min(FIRST_SWEEP), scan_at: now + interval }
    }
}

impl Duty for Garbage {
    const NAME: &'static str = "duty-garbage";
    const AREAS: &'static [Area] = &[Area::Garbage];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let settings = lead.settings();
        if !settings.enable_gc {
            return Ok(());
        }
        let (sweeps, scans) = (Instant::now() >= self.sweep_at, Instant::now() >= self.scan_at);
        if !(sweeps || scans) || run::is_paused(lead) {
            return Ok(());
        }
        let mode = if settings.gc_dry_run { Mode::DryRun } else { Mode::Remove };
        let mut run = Run::new(lead, mode);
        let mut outcome = Ok(());
        if sweeps {
            outcome = sweep::sweep(&mut run).await;
            self.sweep_at = next(settings.gc_interval, &outcome);
        }
        if scans && outcome.is_ok() {
            outcome = scan::scan(&mut run).await;
            self.scan_at = next(settings.gc_interval, &outcome);
        }
        run.end();
        outcome
    }
}

/// What a pass would remove now; it removes nothing.
///
/// # Errors
/// The leadership is gone, or the object store cannot be listed.
pub(crate) async fn dry_run(lead: &Arc<Lead>) -> Result<GarbageReport, Failure> {
    let mut run = Run::new(lead, Mode::DryRun);
    sweep::sweep(&mut run).await?;
    scan::scan(&mut run).await?;
    Ok(run.into_report())
}

fn next(interval: Duration, outcome: &Result<(), Failure>) -> Instant {
    let wait = if outcome.is_ok() { interval } else { interval.min(RETRY) };
    Instant::now() + wait
}
