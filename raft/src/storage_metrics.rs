//! What the storage measures about itself; the server exports it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Buckets double from 16 us: the last one ends at about 67 s.
const BUCKETS: usize = 23;
const FIRST_BUCKET_US: u64 = 16;

/// Durations in buckets whose bounds double.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut bucket = 0;
        let mut bound = FIRST_BUCKET_US;
        while us > bound && bucket + 1 < BUCKETS {
            bucket += 1;
            bound *= 2;
        }
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// Upper bound and count of each bucket, not cumulative; the last one has no real bound.
    pub fn buckets(&self) -> Vec<(Duration, u64)> {
        let mut bound = FIRST_BUCKET_US;
        let mut buckets = Vec::with_capacity(BUCKETS);
        for bucket in &self.buckets {
            buckets.push((Duration::from_micros(bound), bucket.load(Ordering::Relaxed)));
            bound *= 2;
        }
        buckets
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us.load(Ordering::Relaxed))
    }

    /// Upper bound of the bucket that holds the given share (0 to 1000 per mille).
    pub fn quantile_per_mille(&self, per_mille: u64) -> Duration {
        let rank = (self.count() * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bound, count) in self.buckets() {
            seen += count;
            if seen >= rank {
                return bound;
            }
        }
        Duration::ZERO
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Knows whether an operation is running, and since when.
#[derive(Debug, Default)]
pub struct Stopwatch {
    /// Microseconds since [`epoch`], plus one; zero while nothing runs.
    started_us: AtomicU64,
}

impl Stopwatch {
    pub(crate) fn start(&self) {
        self.started_us.store(now_us() + 1, Ordering::Release);
    }

    pub(crate) fn stop(&self) {
        self.started_us.store(0, Ordering::Release);
    }

    /// Age of the operation that runs now, zero where none does.
    pub fn running(&self) -> Duration {
        match self.started_us.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            started => Duration::from_micros((now_us() + 1).saturating_sub(started)),
        }
    }
}

fn now_us() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = EPOCH.get_or_init(Instant::now);
    u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// All of it. Sizes are bytes.
#[derive(Debug, Default)]
pub struct StorageMetrics {
    // --- log
    /// A write of the log that reached the disk: batch, write and sync.
    pub log_sync: Histogram,
    /// The write that runs now; a long one is a stalled disk.
    pub log_sync_now: Stopwatch,
    pub log_entries: Counter,
    pub log_bytes: Counter,
    pub log_batches: Counter,
    /// Given to the log and not yet durable.
    pub log_queue_bytes: Gauge,
    pub log_tail_bytes: Gauge,
    /// Entries of a leader that the engine was given and that are not yet durable here.
    pub append_held_bytes: Gauge,
    /// Entries that had to be read from the disk, because the tail cache no longer held them.
    pub log_entries_read: Counter,
    // --- state
    /// One chunk of entries: evaluate, write, make visible.
    pub apply_chunk: Histogram,
    /// The part of it that holds readers off.
    pub apply_commit: Histogram,
    /// The chunk that is applied now; a long one is a stalled apply.
    pub apply_now: Stopwatch,
    /// Proposed by this leader and not yet applied by it.
    pub apply_waiting_bytes: Gauge,
    pub apply_entries: Counter,
    pub apply_bytes: Counter,
    pub applied_index: Gauge,
    pub state_flush: Histogram,
    pub state_unflushed_bytes: Gauge,
    pub compaction_steps: Counter,
    pub compaction_rows: Counter,
    pub scrubs: Counter,
    // --- snapshots
    pub snapshot_build: Histogram,
    pub snapshot_build_failures: Counter,
    pub snapshot_verify: Histogram,
    pub snapshot_install: Histogram,
    pub snapshot_size_bytes: Gauge,
    pub snapshot_index: Gauge,
    pub snapshot_received_bytes: Counter,
}

impl StorageMetrics {
    /// How long the disk of the log has been at one write; zero while idle.
    pub fn log_stall(&self) -> Duration {
        self.log_sync_now.running()
    }

    /// How long apply has been at one chunk; zero while it is idle.
    pub fn apply_stall(&self) -> Duration {
        self.apply_now.running()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_the_bound_of_the_bucket() {
        let histogram = Histogram::default();
        for _ in 0..99 {
            histogram.record(Duration::from_micros(100));
        }
        histogram.record(Duration::from_millis(100));
        assert_eq!(histogram.quantile_per_mille(500), Duration::from_micros(128));
        assert_eq!(histogram.quantile_per_mille(1000), Duration::from_micros(131_072));
        assert_eq!(histogram.count(), 100);
        assert_eq!(histogram.max(), Duration::from_millis(100));
    }
}
