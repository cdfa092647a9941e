//! What the coordinator counts for operators.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Counts {
    sessions_lost: AtomicU64,
    tenures: AtomicU64,
    stored_rows: AtomicU64,
    indexes_created: AtomicU64,
    indexes_refused: AtomicU64,
    /// Files of each segment that was flushed, by kind.
    pub(crate) flushed_files: [(&'static str, Histogram); 3],
    /// Bytes of each result of a compaction.
    pub(crate) compacted: Histogram,
    /// From the plan to its end.
    pub(crate) compactions: Histogram,
    /// From the seal of a segment with rows to its being written.
    pub(crate) flushes: Histogram,
    /// One look at everything for what is worth a compaction.
    pub(crate) planning: Histogram,
    /// The same for what is garbage.
    pub(crate) garbage_planning: Histogram,
    /// Answers to AssignSegmentID.
    pub(crate) assignments: Histogram,
}

impl Default for Counts {
    fn default() -> Counts {
        // Milvus's labels.
        let kinds = ["insert_file", "delete_file", "stat_file"];
        Counts {
            sessions_lost: AtomicU64::default(),
            tenures: AtomicU64::default(),
            stored_rows: AtomicU64::default(),
            indexes_created: AtomicU64::default(),
            indexes_refused: AtomicU64::default(),
            flushed_files: kinds.map(|kind| (kind, Histogram::default())),
            compacted: Histogram::default(),
            compactions: Histogram::default(),
            flushes: Histogram::default(),
            planning: Histogram::default(),
            garbage_planning: Histogram::default(),
            assignments: Histogram::default(),
        }
    }
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

    /// A segment with so many rows, and so many insert, delete and statistics files, is written.
    pub(crate) fn segment_flushed(&self, rows: i64, files: [u32; 3]) {
        self.stored_rows.fetch_add(u64::try_from(rows).unwrap_or(0), Ordering::Relaxed);
        for ((_, histogram), files) in self.flushed_files.iter().zip(files) {
            histogram.add(u64::from(files));
        }
    }

    pub(crate) fn index_asked(&self, is_created: bool) {
        let counter = if is_created { &self.indexes_created } else { &self.indexes_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn n_stored_rows(&self) -> u64 {
        self.stored_rows.load(Ordering::Relaxed)
    }

    /// Requests for indexes that succeeded and that failed.
    pub(crate) fn n_indexes_asked(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.indexes_created), count(&self.indexes_refused))
    }

    pub(crate) fn n_sessions_lost(&self) -> u64 {
        self.sessions_lost.load(Ordering::Relaxed)
    }

    pub(crate) fn n_tenures(&self) -> u64 {
        self.tenures.load(Ordering::Relaxed)
    }
}

/// Milvus's buckets: 1, 2, 4 … 131072; one more holds what is larger.
const BUCKETS: usize = 19;

/// Sizes, or times in milliseconds.
#[derive(Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_thousandths: AtomicU64,
}

impl Histogram {
    pub(crate) fn add_time(&self, time: Duration) {
        self.add_thousandths(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&self, value: u64) {
        self.add_thousandths(value.saturating_mul(1000));
    }

    fn add_thousandths(&self, thousandths: u64) {
        let bound = thousandths.div_ceil(1000).max(1).checked_next_power_of_two();
        let place = bound
            .map_or(BUCKETS, |bound| usize::try_from(bound.trailing_zeros()).unwrap_or(BUCKETS));
        self.buckets[place.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_thousandths.fetch_add(thousandths, Ordering::Relaxed);
    }

    /// Upper bounds with their counts, then how many were larger than all of them.
    pub(crate) fn buckets(&self) -> (Vec<(u64, u64)>, u64) {
        let count = |place: usize| self.buckets[place].load(Ordering::Relaxed);
        let bounded = (0..BUCKETS - 1).map(|place| (1 << place, count(place))).collect();
        (bounded, count(BUCKETS - 1))
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum_thousandths.load(Ordering::Relaxed) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        let times = Histogram::default();
        for us in [0, 999, 1000, 1001, 4000, 131_072_000, 131_073_000] {
            times.add_time(Duration::from_micros(us));
        }
        let (bounded, longer) = times.buckets();
        let filled: Vec<(u64, u64)> = bounded.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!((filled, longer), (vec![(1, 3), (2, 1), (4, 1), (131_072, 1)], 1));
    }
}
