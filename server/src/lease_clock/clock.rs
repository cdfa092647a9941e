//! Deadlines of leases on a monotonic clock. Time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// A lease proposed for expiry that still stands after this is proposed again.
const RETRY_AFTER: Duration = Duration::from_secs(3);
/// A time to live beyond this counts as this: some two hundred years are for ever.
const TTL_MAX: Duration = Duration::from_secs(9_000_000_000);

#[derive(Debug)]
pub(super) struct Clock {
    leases: BTreeMap<i64, Lease>,
    /// When each lease needs a look: its deadline, or the next attempt to expire it.
    due: BTreeSet<(Instant, i64)>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    due: Instant,
    /// Its time is up and its expiry proposed, or about to be.
    expiring: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Yes,
    /// Too late, or at least undecided.
    Expiring,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { leases: BTreeMap::new(), due: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Gives a lease its full time and `grace`, whatever the clock knew of its id.
    pub(super) fn arm(&mut self, id: i64, ttl_s: i64, grace: Duration, now: Instant) {
        let ttl = ttl_of(ttl_s);
        self.put(id, Lease { ttl, due: now + ttl + grace, expiring: false });
    }

    /// The lease exists in the state and its holder is there.
    pub(super) fn renew(&mut self, id: i64, ttl_s: i64, now: Instant) -> Renewed {
        match self.leases.get(&id).copied() {
            None => {
                self.arm(id, ttl_s, Duration::ZERO, now);
                Renewed::Yes
            }
            Some(lease) if lease.expiring || lease.due <= now => Renewed::Expiring,
            Some(lease) => {
                self.put(id, Lease { due: lease.due.max(now + lease.ttl), ..lease });
                Renewed::Yes
            }
        }
    }

    /// Up to `n_max` leases to expire; from here on they cannot be renewed.
    pub(super) fn take_expired(&mut self, now: Instant, n_max: usize) -> Vec<i64> {
        let ids: Vec<i64> = self
            .due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .take(n_max)
            .map(|(_, id)| *id)
            .collect();
        for id in &ids {
            if let Some(lease) = self.leases.get(id).copied() {
                self.put(*id, Lease { due: now + RETRY_AFTER, expiring: true, ..lease });
            }
        }
        ids
    }

    /// The lease is gone from the state.
    pub(super) fn forget(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            self.due.remove(&(lease.due, id));
        }
    }

    /// Time left; none once it is up.
    pub(super) fn remaining(&self, id: i64, now: Instant) -> Option<Duration> {
        let lease = self.leases.get(&id)?;
        if lease.expiring {
            return Some(Duration::ZERO);
        }
        Some(lease.due.saturating_duration_since(now))
    }

    fn put(&mut self, id: i64, lease: Lease) {
        if let Some(old) = self.leases.insert(id, lease) {
            self.due.remove(&(old.due, id));
        }
        self.due.insert((lease.due, id));
    }
}

fn ttl_of(ttl_s: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0)).min(TTL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_new_leader_gives_every_lease_its_full_time_and_the_length_of_an_election() {
        let start = Instant::now();
        let mut clock = Clock::new();
        clock.arm(1, 10, 2 * S, start);
        assert_eq!(clock.remaining(1, start), Some(12 * S));
        assert!(clock.take_expired(start + 11 * S, 10).is_empty());
        assert_eq!(clock.take_expired(start + 12 * S, 10), [1]);
    }

    #[test]
    fn a_renewal_starts_the_time_again_but_never_shortens_it() {
        let start = Instant::now();
        let mut clock = Clock::new();
        clock.arm(1, 10, 5 * S, start);
        assert_eq!(clock.renew(1, 10, start + S), Renewed::Yes);
        assert_eq!(clock.remaining(1, start), Some(15 * S));
        assert_eq!(clock.renew(1, 10, start + 9 * S), Renewed::Yes);
        assert_eq!(clock.remaining(1, start), Some(19 * S));
    }

    #[test]
    fn what_is_being_expired_is_not_renewed_and_tried_again_while_it_stands() {
        let start = Instant::now();
        let mut clock = Clock::new();
        clock.arm(1, 10, Duration::ZERO, start);
        clock.arm(2, 10, Duration::ZERO, start);
        let late = start + 10 * S;
        assert_eq!(clock.renew(2, 10, late), Renewed::Expiring, "its time is up already");
        assert_eq!(clock.take_expired(late, 1), [1]);
        assert_eq!(clock.renew(1, 10, late), Renewed::Expiring);
        assert_eq!(clock.take_expired(late, 10), [2]);
        assert!(clock.take_expired(late + 2 * S, 10).is_empty());
        assert_eq!(clock.take_expired(late + 3 * S, 10), [1, 2]);
        clock.forget(1);
        clock.forget(2);
        assert_eq!(clock.len(), 0);
        assert!(clock.take_expired(late + 60 * S, 10).is_empty());
    }

    #[test]
    fn a_lease_granted_again_under_its_old_id_is_a_new_one() {
        let start = Instant::now();
        let mut clock = Clock::new();
        clock.arm(1, 10, Duration::ZERO, start);
        let late = start + 10 * S;
        assert_eq!(clock.take_expired(late, 10), [1]);
        clock.arm(1, 60, Duration::ZERO, late);
        assert_eq!(clock.remaining(1, late), Some(60 * S));
        assert!(clock.take_expired(late + 59 * S, 10).is_empty());
    }

    #[test]
    fn a_lease_that_the_clock_does_not_know_yet_can_be_renewed() {
        let start = Instant::now();
        let mut clock = Clock::new();
        assert_eq!(clock.renew(7, 3, start), Renewed::Yes);
        assert_eq!(clock.remaining(7, start), Some(3 * S));
    }

    #[test]
    fn the_longest_time_to_live_does_not_overflow() {
        let start = Instant::now();
        let mut clock = Clock::new();
        clock.arm(1, i64::MAX, S, start);
        clock.arm(2, -5, S, start);
        assert!(clock.remaining(1, start) > Some(Duration::from_secs(1_000_000)));
        assert_eq!(clock.take_expired(start + S, 10), [2]);
    }
}
