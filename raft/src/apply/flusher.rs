//! Decides when the state is made durable: how much of the log a restart has to apply again.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::failure::{Area, Failure};

use super::Core;

/// A flush is due when any bound is passed.
#[derive(Clone, Copy, Debug)]
pub struct FlushPolicy {
    /// Of applied log that is not durable.
    pub bytes_max: usize,
    pub entries_max: u64,
    /// Age of the oldest such entry. Below `few_bytes` it does not count: a few rows are quicker
    /// applied again than flushed.
    pub age_max: Duration,
    pub few_bytes: usize,
    /// As `age_max`, however little it is.
    pub age_max_few: Duration,
}

impl Default for FlushPolicy {
    fn default() -> FlushPolicy {
        FlushPolicy {
            bytes_max: 16 << 20,
            entries_max: 50_000,
            age_max: Duration::from_secs(2),
            few_bytes: 1 << 20,
            age_max_few: Duration::from_secs(60),
        }
    }
}

/// A flush that found no room waits so long.
const FULL_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Unflushed {
    bytes: usize,
    entries: u64,
    since: Option<Instant>,
    stop: bool,
}

pub(crate) struct Flusher {
    policy: FlushPolicy,
    unflushed: Mutex<Unflushed>,
    changed: Condvar,
    /// One flush at a time.
    flushing: Mutex<()>,
}

impl Flusher {
    pub(crate) fn new(policy: FlushPolicy) -> Flusher {
        Flusher {
            policy,
            unflushed: Mutex::default(),
            changed: Condvar::new(),
            flushing: Mutex::new(()),
        }
    }

    pub(super) fn wrote(&self, bytes: usize, entries: u64) {
        let mut unflushed = self.unflushed.lock();
        unflushed.bytes += bytes;
        unflushed.entries += entries;
        let first = unflushed.since.is_none();
        unflushed.since.get_or_insert_with(Instant::now);
        if first || self.due_in(&unflushed).is_zero() {
            self.changed.notify_one();
        }
    }

    /// The state was replaced by a durable one.
    pub(super) fn reset(&self) {
        let mut unflushed = self.unflushed.lock();
        let stop = unflushed.stop;
        *unflushed = Unflushed { stop, ..Unflushed::default() };
    }

    pub(crate) fn stop(&self) {
        self.unflushed.lock().stop = true;
        self.changed.notify_one();
    }

    fn due_in(&self, unflushed: &Unflushed) -> Duration {
        let Some(since) = unflushed.since else {
            return Duration::MAX;
        };
        let policy = &self.policy;
        if unflushed.bytes >= policy.bytes_max || unflushed.entries >= policy.entries_max {
            return Duration::ZERO;
        }
        let few = unflushed.bytes < policy.few_bytes;
        let age_max = if few { policy.age_max_few } else { policy.age_max };
        age_max.saturating_sub(since.elapsed())
    }

    /// The loop of the flushing thread.
    pub(crate) fn run(&self, core: &Core) {
        loop {
            {
                let mut unflushed = self.unflushed.lock();
                loop {
                    if unflushed.stop {
                        return;
                    }
                    let due_in = self.due_in(&unflushed);
                    if due_in.is_zero() {
                        break;
                    }
                    // Bounds may be passed without a signal; look again now and then.
                    let wait = due_in.min(Duration::from_millis(500));
                    self.changed.wait_for(&mut unflushed, wait);
                }
            }
            // Without room it would fail, and with it the node. The log holds all of it.
            if !core.room.allows_flush(self.unflushed.lock().bytes as u64) {
                std::thread::sleep(FULL_PAUSE);
                continue;
            }
            if self.flush_now(core).is_err() {
                return;
            }
        }
    }

    pub(crate) fn flush_now(&self, core: &Core) -> Result<(), Failure> {
        let _one = self.flushing.lock();
        let started = Instant::now();
        let taken = {
            let mut unflushed = self.unflushed.lock();
            let taken = (unflushed.bytes, unflushed.entries);
            unflushed.since = None;
            taken
        };
        core.current
            .load_full()
            .tables
            .flush()
            .map_err(|error| core.on_failure.report(Area::State, error.to_string()))?;
        let mut unflushed = self.unflushed.lock();
        unflushed.bytes = unflushed.bytes.saturating_sub(taken.0);
        unflushed.entries = unflushed.entries.saturating_sub(taken.1);
        core.metrics.state_unflushed_bytes.set(unflushed.bytes as u64);
        core.metrics.state_flush.record(started.elapsed());
        Ok(())
    }
}
