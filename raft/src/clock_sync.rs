//! Cluster time on this node: what the leader stamps into the log, and what a follower knows of it.
//!
//! Every answer to a heartbeat or a vote carries the answering node's wall clock, and every heartbeat
//! the leader's cluster time. So a leader knows the clocks of the voters that elected it, and a
//! follower that takes over goes on from the time of its last heartbeat. The arithmetic is
//! `cluster_time`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::cluster_time::{ClusterTime, Micros, VoterClocks};

/// A call that took longer says too little about the other clock, unless nothing else does.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

/// A node that has just started waits so long for the clocks of all voters before it takes what a
/// majority says for good.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// A reading of cluster time. The epoch counts how often the time was set back: a stamp of an earlier
/// epoch must not advance the time of a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at_ms: u64,
    pub(crate) epoch: u64,
}

pub(crate) struct ClockSync {
    node: u64,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

struct Inner {
    time: ClusterTime,
    epoch: u64,
    /// This node has known cluster time without a gap since a leader, or the voters, gave it.
    kept_count: bool,
    /// Since when a majority's clocks were known to this node after its start.
    settling_since: Option<Duration>,
    /// Wall clock minus this node's monotonic clock, of other nodes as they were last heard.
    offsets: BTreeMap<u64, Micros>,
    voters: Vec<u64>,
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

fn from_ms(ms: u64) -> Micros {
    Micros::try_from(ms).unwrap_or(Micros::MAX).saturating_mul(1_000)
}

fn to_ms(micros: Micros) -> u64 {
    u64::try_from(micros / 1_000).unwrap_or(0)
}

impl ClockSync {
    pub(crate) fn new(node: u64, clock: Arc<dyn Clock>) -> Arc<ClockSync> {
        let time = ClusterTime::starting_at(0, clock.monotonic());
        let inner = Inner {
            time,
            epoch: 0,
            kept_count: false,
            settling_since: None,
            offsets: BTreeMap::new(),
            voters: Vec::new(),
        };
        Arc::new(ClockSync { node, clock, inner: Mutex::new(inner) })
    }

    /// Whose clocks count.
    pub(crate) fn set_voters(&self, voters: &[u64]) {
        let mut inner = self.inner.lock();
        if inner.voters != voters {
            inner.voters = voters.to_vec();
        }
    }

    /// This node's own wall clock, as answers to peers carry it.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// Reading of the monotonic clock to give to [`ClockSync::heard`].
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// A node answered a call that began at `sent` with its wall clock; 0 where it said none.
    pub(crate) fn heard(&self, node: u64, wall_ms: u64, sent: Duration) {
        if wall_ms == 0 {
            return;
        }
        let now = self.clock.monotonic();
        let round_trip = now.saturating_sub(sent);
        let mut inner = self.inner.lock();
        if round_trip <= ROUND_TRIP_MAX || !inner.offsets.contains_key(&node) {
            let taken_at = sent + round_trip / 2;
            inner.offsets.insert(node, from_ms(wall_ms) - micros(taken_at));
        }
    }

    /// The leader's time, from its heartbeat.
    pub(crate) fn follow(&self, stamp: Stamp) {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        if stamp.at_ms == 0 || stamp.epoch < inner.epoch {
            return;
        }
        inner.epoch = stamp.epoch;
        inner.time = ClusterTime::starting_at(from_ms(stamp.at_ms), now);
        inner.kept_count = true;
    }

    /// This node's state has come to a time; a later epoch than the known one sets it back.
    pub(crate) fn applied(&self, stamp: Stamp) {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        if stamp.epoch > inner.epoch {
            inner.epoch = stamp.epoch;
            inner.time = ClusterTime::starting_at(from_ms(stamp.at_ms), now);
        } else if stamp.epoch == inner.epoch {
            inner.time.advance_to(from_ms(stamp.at_ms), now);
        }
    }

    /// The leader's time for an entry or a heartbeat, after it was drawn towards the voters' clocks.
    pub(crate) fn stamp(&self) -> Stamp {
        let now = self.clock.monotonic();
        let wall = from_ms(self.clock.unix_ms());
        let mut inner = self.inner.lock();
        let clocks = inner.voter_clocks(self.node, wall, now);
        inner.steer(&clocks, now);
        Stamp { at_ms: to_ms(inner.time.at(now)), epoch: inner.epoch }
    }

    /// Cluster time as this node knows it.
    pub(crate) fn now_ms(&self) -> u64 {
        let now = self.clock.monotonic();
        to_ms(self.inner.lock().time.at(now))
    }

    /// By how many milliseconds this node's wall clock is ahead of cluster time; negative behind.
    pub(crate) fn own_skew_ms(&self) -> i64 {
        let now = self.clock.monotonic();
        let wall = from_ms(self.clock.unix_ms());
        (wall - self.inner.lock().time.at(now)) / 1_000
    }

    /// By how many milliseconds cluster time is ahead of what a majority of all voters says. `None`
    /// while their clocks are not known. Meaningful on the leader.
    pub(crate) fn ahead_ms(&self) -> Option<i64> {
        let now = self.clock.monotonic();
        let wall = from_ms(self.clock.unix_ms());
        let inner = self.inner.lock();
        let clocks = inner.voter_clocks(self.node, wall, now);
        clocks.ahead(inner.time.at(now)).map(|ahead| ahead / 1_000)
    }
}

impl Inner {
    fn voter_clocks(&self, own: u64, wall: Micros, now: Duration) -> VoterClocks {
        let known = self.voters.iter().filter_map(|voter| match *voter == own {
            true => Some(wall),
            false => self.offsets.get(voter).map(|offset| offset.saturating_add(micros(now))),
        });
        VoterClocks::new(known.collect(), self.voters.len())
    }

    fn steer(&mut self, clocks: &VoterClocks, now: Duration) {
        let Some(target) = clocks.target() else {
            self.time.run_free(now);
            return;
        };
        let time = self.time.at(now);
        if let Some(reached) = clocks.step(time, self.kept_count) {
            let (from_ms, to_ms) = (to_ms(time), to_ms(reached));
            tracing::warn!(from_ms, to_ms, "cluster time steps to what the voters' clocks say");
            self.time.advance_to(reached, now);
        }
        // The clocks of a majority may be the wrong ones; soon the others are heard, too.
        let since = *self.settling_since.get_or_insert(now);
        self.kept_count |= clocks.are_complete() || now.saturating_sub(since) >= SETTLE_MAX;
        self.time.slew_to(target, now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const START_MS: u64 = 1_700_000_000_000;

    #[derive(Default)]
    struct Hands {
        wall_ms: AtomicU64,
        monotonic_ms: AtomicU64,
    }

    impl Clock for Hands {
        fn unix_ms(&self) -> u64 {
            self.wall_ms.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed))
        }
    }

    /// Node 1 of voters 1, 2 and 3 with its clock.
    fn node_one(wall_ms: u64) -> (Arc<Hands>, Arc<ClockSync>) {
        let hands = Arc::new(Hands::default());
        hands.wall_ms.store(wall_ms, Ordering::Relaxed);
        let sync = ClockSync::new(1, Arc::clone(&hands) as Arc<dyn Clock>);
        sync.set_voters(&[1, 2, 3]);
        (hands, sync)
    }

    fn pass(hands: &Hands, ms: u64) {
        hands.wall_ms.fetch_add(ms, Ordering::Relaxed);
        hands.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }

    #[test]
    fn a_new_leader_begins_with_what_the_majority_that_elected_it_says() {
        for own in [START_MS + DAY_MS, START_MS - DAY_MS] {
            let (_hands, sync) = node_one(own);
            assert!(sync.stamp().at_ms < 1_000, "its own clock is not enough");
            sync.heard(2, START_MS, Duration::ZERO);
            let earlier = own.min(START_MS);
            assert_eq!(sync.stamp().at_ms, earlier, "of two the one that no clock is behind");
            assert_eq!(sync.stamp(), sync.stamp());
        }
    }

    #[test]
    fn a_leader_that_is_behind_steps_as_soon_as_it_hears_the_third() {
        let (hands, sync) = node_one(START_MS - DAY_MS);
        sync.heard(2, START_MS, Duration::ZERO);
        assert_eq!(sync.stamp().at_ms, START_MS - DAY_MS);
        sync.heard(3, START_MS, Duration::ZERO);
        assert_eq!(sync.stamp().at_ms, START_MS, "two of three say so");
        // From here on it keeps count.
        sync.heard(3, START_MS + DAY_MS, Duration::ZERO);
        sync.heard(2, START_MS + DAY_MS, Duration::ZERO);
        assert_eq!(sync.stamp().at_ms, START_MS, "drawn towards them from this stamp on");
        pass(&hands, 1_000);
        assert_eq!(sync.stamp().at_ms, START_MS + 1_100);
    }

    #[test]
    fn a_follower_goes_on_from_its_last_heartbeat_whatever_its_clock_says() {
        let (hands, sync) = node_one(START_MS + DAY_MS);
        sync.follow(Stamp { at_ms: START_MS, epoch: 0 });
        pass(&hands, 60_000);
        assert_eq!(sync.now_ms(), START_MS + 60_000);
        sync.heard(2, START_MS + DAY_MS + 60_000, hands.monotonic());
        // It leads now, with a majority a day ahead and the third silent: nothing jumps.
        let before = sync.stamp().at_ms;
        pass(&hands, 10_000);
        assert_eq!(sync.stamp().at_ms, before + 11_000, "a tenth faster, no more");
    }

    #[test]
    fn a_wall_clock_that_is_set_moves_no_time() {
        let (hands, sync) = node_one(START_MS);
        sync.heard(2, START_MS, Duration::ZERO);
        sync.heard(3, START_MS, Duration::ZERO);
        assert_eq!(sync.stamp().at_ms, START_MS);
        hands.wall_ms.fetch_add(DAY_MS, Ordering::Relaxed);
        pass(&hands, 5_000);
        assert_eq!(sync.stamp().at_ms, START_MS + 5_000);
        assert_eq!(sync.own_skew_ms(), i64::try_from(DAY_MS).unwrap());
        hands.wall_ms.fetch_sub(2 * DAY_MS, Ordering::Relaxed);
        pass(&hands, 5_000);
        assert_eq!(sync.stamp().at_ms, START_MS + 10_000);
    }

    #[test]
    fn what_was_stamped_before_a_time_was_set_back_advances_nothing() {
        let (hands, sync) = node_one(START_MS);
        sync.applied(Stamp { at_ms: START_MS + DAY_MS, epoch: 0 });
        sync.heard(2, START_MS, Duration::ZERO);
        assert_eq!(sync.ahead_ms(), Some(i64::try_from(DAY_MS).unwrap()));
        sync.applied(Stamp { at_ms: START_MS, epoch: 1 });
        assert_eq!(sync.stamp(), Stamp { at_ms: START_MS, epoch: 1 });
        sync.applied(Stamp { at_ms: START_MS + DAY_MS, epoch: 0 });
        sync.follow(Stamp { at_ms: START_MS + DAY_MS, epoch: 0 });
        pass(&hands, 1_000);
        assert_eq!(sync.now_ms(), START_MS + 1_000);
        assert_eq!(sync.ahead_ms(), Some(0));
    }
}
