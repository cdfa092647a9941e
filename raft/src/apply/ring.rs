//! Hands what was applied to everyone who follows it, without waiting for the slow.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use statemachine::Applied;
use tokio::sync::watch;

/// Kept for followers that are behind; beyond it they lag.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    pub events_max: usize,
    pub bytes_max: usize,
}

impl Default for RingLimits {
    fn default() -> RingLimits {
        RingLimits { events_max: 8192, bytes_max: 32 << 20 }
    }
}

#[derive(Debug)]
pub enum AppliedEvent {
    /// A chunk of entries, visible to every read that begins now. Its outcomes went to their
    /// waiters already.
    Applied(Applied),
    /// A snapshot replaced the state. Nothing is lost that its history does not hold.
    Reset { revision: i64, compacted_revision: i64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    #[error("{missed} applied chunks were missed")]
    Lagged { missed: u64 },
    #[error("the node stopped")]
    Closed,
}

struct Kept {
    event: Arc<AppliedEvent>,
    size_bytes: usize,
}

struct Inner {
    kept: VecDeque<Kept>,
    size_bytes: usize,
    /// Number of `kept[0]`.
    first: u64,
    subscribers: usize,
    /// Those who want to hear of each event as it comes.
    attentive: usize,
    /// Events since anybody was woken.
    quiet: usize,
    closed: bool,
}

/// With nobody attentive, subscribers are woken once for so many events: a wake-up on each node
/// for each write would cost more than the write.
const QUIET_EVENTS_MAX: usize = 64;

pub(crate) struct Ring {
    inner: Mutex<Inner>,
    /// Number of the next event.
    next: watch::Sender<u64>,
    limits: RingLimits,
}

impl Ring {
    pub(crate) fn new(limits: RingLimits) -> Arc<Ring> {
        let inner = Inner {
            kept: VecDeque::new(),
            size_bytes: 0,
            first: 0,
            subscribers: 0,
            attentive: 0,
            quiet: 0,
            closed: false,
        };
        Arc::new(Ring { inner: Mutex::new(inner), next: watch::Sender::new(0), limits })
    }

    pub(crate) fn publish(&self, event: AppliedEvent, size_bytes: usize) {
        let mut inner = self.inner.lock();
        inner.quiet += 1;
        let wakes = inner.attentive > 0 || event.is_urgent() || inner.quiet >= QUIET_EVENTS_MAX;
        if inner.subscribers == 0 {
            inner.first += 1;
        } else {
            inner.kept.push_back(Kept { event: Arc::new(event), size_bytes });
            inner.size_bytes += size_bytes;
            while inner.kept.len() > self.limits.events_max
                || (inner.size_bytes > self.limits.bytes_max && inner.kept.len() > 1)
            {
                inner.drop_first();
            }
        }
        if wakes {
            inner.quiet = 0;
        }
        let next = inner.next();
        drop(inner);
        self.next.send_if_modified(|known| {
            *known = next;
            wakes
        });
    }

    /// Wakes subscribers at each event from now on, until what is returned is dropped.
    pub(crate) fn attend(self: &Arc<Ring>) -> Attention {
        self.inner.lock().attentive += 1;
        // For what passed quietly so far.
        self.next.send_modify(|_| ());
        Attention { ring: self.clone() }
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.next.send_modify(|_| ());
    }

    pub(crate) fn subscribe(self: &Arc<Ring>) -> Subscription {
        let attention = Some(self.attend());
        let mut inner = self.inner.lock();
        inner.subscribers += 1;
        let at = inner.next();
        Subscription { ring: self.clone(), arrived: self.next.subscribe(), at, attention }
    }
}

impl Inner {
    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn drop_first(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.size_bytes -= kept.size_bytes;
            self.first += 1;
        }
    }
}

/// Follows what this node applies, from the moment of subscribing on.
pub struct Subscription {
    ring: Arc<Ring>,
    arrived: watch::Receiver<u64>,
    at: u64,
    attention: Option<Attention>,
}

/// While it is held, followers of what is applied hear of each event as it comes.
pub struct Attention {
    ring: Arc<Ring>,
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.ring.inner.lock().attentive -= 1;
    }
}

impl AppliedEvent {
    /// Changes what somebody holds beside the keys: a lease's time, or everything.
    fn is_urgent(&self) -> bool {
        match self {
            AppliedEvent::Applied(applied) => !applied.touched.leases.is_empty(),
            AppliedEvent::Reset { .. } => true,
        }
    }
}

impl Subscription {
    /// From now on this follower may hear late, but in order and of everything, of events that
    /// touch nothing but keys; see [`Attention`].
    pub fn relax(&mut self) {
        self.attention = None;
    }

    /// The next event. Cancel-safe: an event is taken only when it is returned.
    ///
    /// # Errors
    /// Events were missed, and reading goes on with the oldest that is kept; or the node stopped.
    pub async fn recv(&mut self) -> Result<Arc<AppliedEvent>, RecvError> {
        loop {
            self.arrived.borrow_and_update();
            if let Some(result) = self.try_recv() {
                return result;
            }
            if self.arrived.changed().await.is_err() {
                return Err(RecvError::Closed);
            }
        }
    }

    /// As [`Subscription::recv`], `None` where there is nothing to take yet.
    pub fn try_recv(&mut self) -> Option<Result<Arc<AppliedEvent>, RecvError>> {
        let inner = self.ring.inner.lock();
        if self.at < inner.first {
            let missed = inner.first - self.at;
            self.at = inner.first;
            return Some(Err(RecvError::Lagged { missed }));
        }
        let offset = usize::try_from(self.at - inner.first).ok()?;
        match inner.kept.get(offset) {
            Some(kept) => {
                self.at += 1;
                Some(Ok(kept.event.clone()))
            }
            None => inner.closed.then_some(Err(RecvError::Closed)),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = self.ring.inner.lock();
        inner.subscribers -= 1;
        if inner.subscribers == 0 {
            while !inner.kept.is_empty() {
                inner.drop_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(revision: i64) -> AppliedEvent {
        AppliedEvent::Reset { revision, compacted_revision: 0 }
    }

    fn revision(event: &AppliedEvent) -> i64 {
        match event {
            AppliedEvent::Reset { revision, .. } => *revision,
            AppliedEvent::Applied(applied) => applied.revision,
        }
    }

    #[tokio::test]
    async fn the_relaxed_hear_late_unless_somebody_attends() {
        let applied = || {
            AppliedEvent::Applied(Applied {
                outcomes: Vec::new(),
                events: Vec::new(),
                revision: 1,
                compacted_revision: 0,
                touched: statemachine::Touched::default(),
                last_index: 1,
                at_ms: 0,
                time_epoch: 0,
                refused: Vec::new(),
                checks: Vec::new(),
            })
        };
        let heard = |subscription: &mut Subscription| {
            use futures::FutureExt;
            subscription.recv().now_or_never().is_some()
        };
        let ring = Ring::new(RingLimits::default());
        let mut subscription = ring.subscribe();
        subscription.relax();
        let waiting = tokio::spawn(async move {
            for _ in 0..QUIET_EVENTS_MAX {
                subscription.recv().await.unwrap();
            }
            subscription
        });
        // It waits for the first wake-up before anything is published.
        tokio::task::yield_now().await;
        for _ in 1..QUIET_EVENTS_MAX {
            ring.publish(applied(), 1);
        }
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        ring.publish(applied(), 1);
        let mut subscription = waiting.await.unwrap();
        assert!(!heard(&mut subscription));
        let attention = ring.attend();
        let waiting = tokio::spawn(async move { subscription.recv().await.map(drop) });
        tokio::task::yield_now().await;
        ring.publish(applied(), 1);
        waiting.await.unwrap().unwrap();
        drop(attention);
    }

    #[tokio::test]
    async fn the_slow_lag_and_the_quick_get_everything() {
        let ring = Ring::new(RingLimits { events_max: 100, bytes_max: 25 });
        ring.publish(reset(0), 10);
        let (mut quick, mut slow) = (ring.subscribe(), ring.subscribe());
        for n in 1..=5 {
            ring.publish(reset(n), 10);
            assert_eq!(revision(&quick.recv().await.unwrap()), n);
        }
        assert_eq!(slow.recv().await.unwrap_err(), RecvError::Lagged { missed: 3 });
        assert_eq!(revision(&slow.recv().await.unwrap()), 4);
        assert_eq!(revision(&slow.recv().await.unwrap()), 5);
        assert!(slow.try_recv().is_none());
        ring.close();
        assert_eq!(slow.recv().await.unwrap_err(), RecvError::Closed);
    }
}
