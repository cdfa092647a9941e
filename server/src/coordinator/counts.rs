//! What the coordinator counts for operators.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Counts {
    sessions_lost: AtomicU64,
    tenures: AtomicU64,
    /// From the plan to its end.
    pub(crate) compactions: Latencies,
    /// From the seal of a segment with rows to its being written.
    pub(crate) flushes: Latencies,
    /// Answers to AssignSegmentID.
    pub(crate) assignments: Latencies,
}

impl Counts {
    /// The session key was not ours any more though this node leads.
    pub(super) fn session_lost(&self) {
        self.sessions_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// This node began to serve as the coordinator.
    pub(super) fn took_over(&self) {
        self.tenures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn n_sessions_lost(&self) -> u64 {
        self.sessions_lost.load(Ordering::Relaxed)
    }

    pub(crate) fn n_tenures(&self) -> u64 {
        self.tenures.load(Ordering::Relaxed)
    }
}

/// Milvus's buckets: 1, 2, 4 … 131072 ms; one more holds what took longer.
const BUCKETS: usize = 19;

/// Times in milliseconds.
#[derive(Default)]
pub(crate) struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Latencies {
    pub(crate) fn add(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bound_ms = us.div_ceil(1000).max(1).checked_next_power_of_two();
        let place =
            bound_ms.map_or(BUCKETS, |ms| usize::try_from(ms.trailing_zeros()).unwrap_or(0));
        self.buckets[place.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Upper bounds in milliseconds with their counts, then how many took longer than all of them.
    pub(crate) fn buckets(&self) -> (Vec<(u64, u64)>, u64) {
        let count = |place: usize| self.buckets[place].load(Ordering::Relaxed);
        let bounded = (0..BUCKETS - 1).map(|place| (1 << place, count(place))).collect();
        (bounded, count(BUCKETS - 1))
    }

    pub(crate) fn sum_ms(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        let times = Latencies::default();
        for us in [0, 999, 1000, 1001, 4000, 131_072_000, 131_073_000] {
            times.add(Duration::from_micros(us));
        }
        let (bounded, longer) = times.buckets();
        let filled: Vec<(u64, u64)> = bounded.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!((filled, longer), (vec![(1, 3), (2, 1), (4, 1), (131_072, 1)], 1));
    }
}
