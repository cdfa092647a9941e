//! The places of a listener: how many connections it holds, and who gives way when all are taken.
//!
//! A connection that has asked for something keeps its place for as long as it likes. One that
//! has not gives way to a newcomer, oldest first: so silent connections, however many, keep nobody
//! out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection is not displaced before it had this long to ask for something.
const GRACE: Duration = Duration::from_secs(1);

/// All places of one listener.
#[derive(Debug)]
pub struct Places {
    n_max: usize,
    taken: Mutex<Taken>,
    displaced: AtomicU64,
    refused: AtomicU64,
    silent: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    n_taken: usize,
    next: u64,
    /// Those that have asked for nothing yet, oldest first.
    idle: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// What became of connections since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacesCount {
    pub taken: usize,
    pub max: usize,
    /// Ended to make room, before they asked for anything.
    pub displaced: u64,
    /// Turned away, because all places were taken by others that are at work.
    pub refused: u64,
    /// Ended because nothing came from them in time.
    pub silent: u64,
}

impl Places {
    pub fn new(n_max: usize) -> Arc<Places> {
        Arc::new(Places {
            n_max,
            taken: Mutex::default(),
            displaced: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            silent: AtomicU64::new(0),
        })
    }

    /// A place for a new connection; `None` where all are taken by connections that are at work.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        self.take_at(Instant::now())
    }

    fn take_at(self: &Arc<Self>, now: Instant) -> Option<Place> {
        let mut taken = self.taken.lock();
        if taken.n_taken >= self.n_max && !self.displace(&mut taken, now) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let id = taken.next;
        taken.next += 1;
        taken.n_taken += 1;
        let cut = CancellationToken::new();
        taken.idle.insert(id, (now, cut.clone()));
        Some(Place { id, cut, asked: AtomicBool::new(false), places: Arc::clone(self) })
    }

    /// Ends the oldest connection that has asked for nothing, if it had the time.
    fn displace(&self, taken: &mut Taken, now: Instant) -> bool {
        let Some(oldest) = taken.idle.first_entry() else { return false };
        if now.saturating_duration_since(oldest.get().0) < GRACE {
            return false;
        }
        // Its place is given back when its task has ended: for that moment there is one more.
        oldest.remove().1.cancel();
        self.displaced.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub fn count(&self) -> PlacesCount {
        PlacesCount {
            taken: self.taken.lock().n_taken,
            max: self.n_max,
            displaced: self.displaced.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            silent: self.silent.load(Ordering::Relaxed),
        }
    }
}

/// The place of one connection, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    id: u64,
    cut: CancellationToken,
    asked: AtomicBool,
    places: Arc<Places>,
}

impl Place {
    /// The connection has asked for something: it keeps its place.
    pub fn asks(&self) {
        if !self.asked.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::Relaxed) {
            self.places.taken.lock().idle.remove(&self.id);
        }
    }

    /// Nothing came from the connection in time.
    pub fn is_silent(&self) {
        self.places.silent.fetch_add(1, Ordering::Relaxed);
    }

    /// Cancelled when the connection has to make room.
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.n_taken -= 1;
        taken.idle.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_silent_connection_gives_way_and_one_at_work_does_not() {
        let places = Places::new(3);
        let mut now = Instant::now();
        let working = places.take_at(now).unwrap();
        working.asks();
        let first = places.take_at(now).unwrap();
        let second = places.take_at(now).unwrap();
        assert!(places.take_at(now).is_none(), "they have had no time yet");
        now += GRACE;
        let third = places.take_at(now).unwrap();
        assert!(first.cut().is_cancelled());
        assert!(!second.cut().is_cancelled() && !working.cut().is_cancelled());
        drop(first);
        second.asks();
        third.asks();
        now += GRACE;
        assert!(places.take_at(now).is_none(), "all are at work");
        drop(working);
        let fourth = places.take_at(now).unwrap();
        assert_eq!(
            places.count(),
            PlacesCount { taken: 3, max: 3, displaced: 1, refused: 2, silent: 0 }
        );
        drop((second, third, fourth));
        assert_eq!(places.count().taken, 0);
    }
}
