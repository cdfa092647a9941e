//! Cluster time as arithmetic: how it runs, and where the voters' clocks draw it to.
//!
//! Time here is what a monotonic clock counts, corrected at a bounded rate: no clock that is set by
//! hand makes it jump. All functions are pure; `clock_sync` brings readings and voters.

use std::time::Duration;

use statemachine::limits::{TIME_SLEW_DIVISOR, TIME_STEP_MIN_MS};

/// Microseconds since the Unix epoch. Finer than the milliseconds of the log, so that corrections
/// between two readings are not lost to rounding.
pub(crate) type Micros = i64;

/// A time that runs on a monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterTime {
    /// The time at `since`.
    base: Micros,
    /// Reading of the monotonic clock.
    since: Duration,
    /// Correction that is still to be made from `since` on.
    correction: Micros,
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

impl ClusterTime {
    pub(crate) fn starting_at(base: Micros, now: Duration) -> ClusterTime {
        ClusterTime { base, since: now, correction: 0 }
    }

    /// The time at a later reading of the monotonic clock. Never goes back.
    pub(crate) fn at(&self, now: Duration) -> Micros {
        let elapsed = micros(now.saturating_sub(self.since));
        let possible = elapsed / TIME_SLEW_DIVISOR;
        let corrected = self.correction.clamp(-possible, possible);
        self.base.saturating_add(elapsed).saturating_add(corrected)
    }

    /// From `now` on the time runs faster or slower until it has met `target`, which runs on.
    pub(crate) fn slew_to(&mut self, target: Micros, now: Duration) {
        let base = self.at(now);
        *self = ClusterTime { base, since: now, correction: target.saturating_sub(base) };
    }

    /// Nothing is known of the target: the time runs on as the monotonic clock does.
    pub(crate) fn run_free(&mut self, now: Duration) {
        *self = ClusterTime::starting_at(self.at(now), now);
    }

    /// At least `time` from now on.
    pub(crate) fn advance_to(&mut self, time: Micros, now: Duration) {
        let base = self.at(now);
        if time > base {
            *self = ClusterTime::starting_at(time, now);
        }
    }
}

/// What the voters' wall clocks say at one moment, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VoterClocks {
    /// Ascending.
    known: Vec<Micros>,
    n_voters: usize,
}

impl VoterClocks {
    /// `known` in any order; the others of `n_voters` were never heard.
    pub(crate) fn new(mut known: Vec<Micros>, n_voters: usize) -> VoterClocks {
        known.sort_unstable();
        VoterClocks { known, n_voters }
    }

    fn majority(&self) -> usize {
        self.n_voters / 2 + 1
    }

    /// Where cluster time is drawn to: the lower median of the known clocks. `None` while fewer
    /// than a majority of all voters are known.
    pub(crate) fn target(&self) -> Option<Micros> {
        if self.known.is_empty() || self.known.len() < self.majority() {
            return None;
        }
        Some(self.known[(self.known.len() - 1) / 2])
    }

    /// The latest time that a majority of all voters has reached.
    fn reached_by_majority(&self) -> Option<Micros> {
        self.known.len().checked_sub(self.majority()).map(|nth| self.known[nth])
    }

    /// Whether every voter's clock is known.
    pub(crate) fn are_complete(&self) -> bool {
        self.n_voters > 0 && self.known.len() == self.n_voters
    }

    /// The earliest of all voters' clocks; `None` while one is unknown.
    fn reached_by_all(&self) -> Option<Micros> {
        self.are_complete().then(|| self.known[0])
    }

    /// The time to step to, where `time` is far behind.
    ///
    /// A node that kept count since it last knew cluster time steps only where *all* voters say so
    /// (the machines were suspended together): clocks that two of three operators set ahead must not
    /// end time-outs that run. One that did not, because it has just started, steps where a majority
    /// says so.
    pub(crate) fn step(&self, time: Micros, kept_count: bool) -> Option<Micros> {
        let reached = if kept_count { self.reached_by_all() } else { self.reached_by_majority() };
        reached.filter(|reached| reached.saturating_sub(time) > step_min())
    }

    /// By how much `time` is ahead of what a majority of all voters says; negative where it is
    /// behind.
    pub(crate) fn ahead(&self, time: Micros) -> Option<Micros> {
        // A majority is at or below the clock in this place, which is the lower median or above it.
        let nth = self.majority().checked_sub(1)?;
        self.known.get(nth).map(|clock| time.saturating_sub(*clock))
    }
}

fn step_min() -> Micros {
    Micros::try_from(TIME_STEP_MIN_MS).unwrap_or(Micros::MAX).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;
    const DAY: Micros = 86_400 * SECOND;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_a_correction_it_runs_as_the_monotonic_clock() {
        let time = ClusterTime::starting_at(7 * SECOND, s(100));
        assert_eq!(time.at(s(100)), 7 * SECOND);
        assert_eq!(time.at(s(160)), 67 * SECOND);
        assert_eq!(time.at(s(0)), 7 * SECOND, "a reading from before changes nothing");
    }

    #[test]
    fn a_correction_takes_ten_times_its_length_and_stops_at_the_target() {
        for (target, halfway) in [(SECOND, 5_500_000), (-SECOND, 4_500_000)] {
            let mut time = ClusterTime::starting_at(0, s(0));
            time.slew_to(target, s(0));
            assert_eq!(time.at(s(5)), halfway);
            assert_eq!(time.at(s(10)), 10 * SECOND + target);
            assert_eq!(time.at(s(1_000)), 1_000 * SECOND + target);
        }
    }

    #[test]
    fn it_never_goes_back_and_small_steps_correct_as_large_ones() {
        let mut time = ClusterTime::starting_at(DAY, s(0));
        let mut last = time.at(s(0));
        for ms in 1..=10_000_u64 {
            let now = Duration::from_millis(ms);
            // The target runs, a day behind.
            time.slew_to(micros(now), now);
            assert!(time.at(now) > last);
            last = time.at(now);
        }
        // But for the first millisecond, before the first correction.
        assert_eq!(last, DAY + 9 * SECOND + 100);
    }

    #[test]
    fn the_target_is_the_lower_median_of_a_known_majority() {
        let target = |known: &[Micros], n| VoterClocks::new(known.to_vec(), n).target();
        assert_eq!(target(&[DAY, 1, 2], 3), Some(2), "one that is ahead has no say");
        assert_eq!(target(&[-DAY, 1, 2], 3), Some(1), "nor one that is behind");
        assert_eq!(target(&[DAY, 1], 3), Some(1), "with one unknown, the lower of two");
        assert_eq!(target(&[DAY, DAY, 1], 3), Some(DAY));
        assert_eq!(target(&[1], 3), None);
        assert_eq!(target(&[], 0), None);
        assert_eq!(target(&[5], 1), Some(5));
        assert_eq!(target(&[1, 2, 3, 4], 5), Some(2));
    }

    #[test]
    fn a_node_that_has_just_started_steps_where_a_majority_is_ahead() {
        let step = |known: &[Micros], n| VoterClocks::new(known.to_vec(), n).step(0, false);
        assert_eq!(step(&[DAY, DAY + 1, DAY + 2], 3), Some(DAY + 1));
        assert_eq!(step(&[DAY, 0, 1], 3), None, "one clock a day ahead moves nothing");
        assert_eq!(step(&[DAY, DAY + 5], 3), Some(DAY));
        assert_eq!(step(&[DAY], 3), None, "no majority is known");
        assert_eq!(step(&[9 * SECOND; 3], 3), None, "that little is slewed");
        assert_eq!(step(&[DAY], 1), Some(DAY));
    }

    #[test]
    fn a_node_that_kept_count_steps_only_where_all_are_ahead() {
        let step = |known: &[Micros], n| VoterClocks::new(known.to_vec(), n).step(0, true);
        assert_eq!(step(&[DAY, DAY, 0], 3), None, "two of three were set ahead");
        assert_eq!(step(&[DAY, DAY], 3), None, "and the third is silent");
        assert_eq!(step(&[DAY, DAY + 1, DAY + 2], 3), Some(DAY), "all were suspended");
    }

    #[test]
    fn a_time_is_ahead_where_a_majority_says_so() {
        let ahead = |known: &[Micros], n| VoterClocks::new(known.to_vec(), n).ahead(DAY);
        assert_eq!(ahead(&[0, 0, DAY], 3), Some(DAY));
        assert_eq!(ahead(&[0, DAY, DAY], 3), Some(0));
        assert_eq!(ahead(&[0], 3), None);
        assert_eq!(ahead(&[2 * DAY, 3 * DAY, 0], 3), Some(-DAY));
    }
}
