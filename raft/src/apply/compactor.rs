//! Deletes, a little at a time, the rows that compaction made unreachable on this node.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use statemachine::Fault;
use statemachine::compaction::{self, Cursor};

use crate::failure::Area;

use super::Core;

/// Keeps deletion from competing with writes and reads.
#[derive(Clone, Copy, Debug)]
pub struct CompactionPace {
    /// Changes that one step looks at.
    pub step_changes_max: usize,
    /// The thread rests this many times as long as a step took.
    pub rest_factor: u32,
    /// Rows stay this long after their revision was compacted: whoever looks up the value before
    /// an event that is just passing still finds it.
    pub delay: Duration,
}

impl Default for CompactionPace {
    fn default() -> CompactionPace {
        CompactionPace { step_changes_max: 500, rest_factor: 4, delay: Duration::from_secs(1) }
    }
}

/// How often the compacted revision is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.lock()
    }

    /// Whether to go on after this much time.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, time);
        }
        !*stopped
    }
}

/// The loop of the compacting thread.
pub(crate) fn run(core: &Core, pace: &CompactionPace, stop: &Stop) {
    let mut finished: Option<(u64, i64)> = None;
    while stop.rest(LOOK_INTERVAL) {
        let generation = core.current.load_full();
        let compacted = generation.state.read().compacted_revision();
        let seen = (generation.number, compacted);
        if finished == Some(seen) {
            continue;
        }
        drop(generation);
        if !stop.rest(pace.delay) {
            return;
        }
        match walk(core, seen, pace, stop) {
            Ok(true) => finished = Some(seen),
            Ok(false) => {}
            Err(fault) => {
                core.on_failure.report(Area::State, fault.to_string());
                return;
            }
        }
    }
}

/// Steps up to `compacted`; whether the end was reached.
fn walk(
    core: &Core,
    (number, compacted): (u64, i64),
    pace: &CompactionPace,
    stop: &Stop,
) -> Result<bool, Fault> {
    let mut cursor: Option<Cursor> = None;
    loop {
        let generation = core.current.load_full();
        if generation.number != number {
            return Ok(false);
        }
        let tables = generation.tables.as_ref();
        let from = match cursor {
            Some(cursor) => cursor,
            None => Cursor::load(tables)?,
        };
        if from.is_finished(compacted) {
            return Ok(true);
        }
        let started = Instant::now();
        let step = compaction::step(tables, compacted, from, pace.step_changes_max)?;
        tables.write_changes(&step.changes)?;
        core.metrics.compaction_steps.add(1);
        core.metrics.compaction_rows.add(step.changes.len() as u64);
        cursor = Some(step.cursor);
        drop(generation);
        if !stop.rest(started.elapsed() * pace.rest_factor) {
            return Ok(false);
        }
    }
}
