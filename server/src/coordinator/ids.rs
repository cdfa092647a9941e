//! Ids from RootCoord, in batches fetched ahead.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::clients::{CallError, Clients};
use crate::tasks;

/// Ids that are asked for at once.
const BATCH: u64 = 4096;
/// Fewer than these, and the next batch is fetched.
const LOW: u64 = BATCH / 2;
/// How long a caller waits for RootCoord.
const WAIT: Duration = Duration::from_secs(3);
/// Pause after RootCoord did not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Those of one tenure. What is left of them when it ends is never used.
pub(crate) struct Ids {
    stock: Arc<Stock>,
}

#[derive(Default)]
struct Stock {
    ranges: Mutex<Ranges>,
    /// Wakes who fetches.
    low: Notify,
    /// Wakes who waits.
    filled: Notify,
}

impl Ids {
    pub(super) fn start(clients: Clients, stop: CancellationToken) -> Ids {
        let stock = Arc::new(Stock::default());
        tasks::spawn("coordinator-ids", fetch(Arc::clone(&stock), clients, stop));
        Ids { stock }
    }

    /// A new id, never given out before.
    ///
    /// # Errors
    /// RootCoord does not answer and nothing is left of what it gave.
    pub(crate) async fn next(&self) -> Result<i64, Failure> {
        let ids = self.many(1).await?;
        ids.first().copied().ok_or_else(|| Failure::Unavailable("no ids".to_owned()))
    }

    /// `n` new ids, rising.
    ///
    /// # Errors
    /// As [`Ids::next`].
    pub(crate) async fn many(&self, n: usize) -> Result<Vec<i64>, Failure> {
        let wanted = u64::try_from(n).unwrap_or(u64::MAX);
        let deadline = Instant::now() + WAIT;
        loop {
            // Made before the look: a batch that comes in between wakes it.
            let filled = self.stock.filled.notified();
            let taken = {
                let mut ranges = self.stock.ranges.lock();
                let taken = ranges.take(wanted);
                if ranges.n_left < LOW || taken.is_none() {
                    self.stock.low.notify_one();
                }
                taken
            };
            if let Some(ids) = taken {
                return Ok(ids);
            }
            if tokio::time::timeout_at(deadline, filled).await.is_err() {
                let mut ranges = self.stock.ranges.lock();
                ranges.n_wanted = 0;
                let reason = ranges.trouble.as_ref().map(ToString::to_string);
                return Err(Failure::Unavailable(reason.unwrap_or_else(|| "no ids".to_owned())));
            }
        }
    }
}

async fn fetch(stock: Arc<Stock>, clients: Clients, stop: CancellationToken) {
    loop {
        let missing = stock.ranges.lock().missing();
        if missing == 0 {
            tokio::select! {
                () = stop.cancelled() => return,
                // Cancel-safe: a permit that was not taken stays.
                () = stock.low.notified() => continue,
            }
        }
        let asked = u32::try_from(missing).unwrap_or(u32::MAX);
        let batch = async {
            let mut rootcoord = clients.rootcoord()?;
            rootcoord.alloc_id(asked).await
        };
        let batch: Result<i64, CallError> = tokio::select! {
            () = stop.cancelled() => return,
            batch = batch => batch,
        };
        match batch {
            Ok(first) => {
                stock.ranges.lock().put(first..first.saturating_add(i64::from(asked)));
                stock.filled.notify_waiters();
            }
            Err(error) => {
                tracing::debug!(%error, "no ids from RootCoord");
                stock.ranges.lock().trouble = Some(error);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

#[derive(Default)]
struct Ranges {
    ranges: VecDeque<Range<i64>>,
    n_left: u64,
    /// The most that somebody waits for at once.
    n_wanted: u64,
    trouble: Option<CallError>,
}

impl Ranges {
    fn put(&mut self, range: Range<i64>) {
        self.n_left += length(&range);
        self.ranges.push_back(range);
        self.trouble = None;
    }

    fn take(&mut self, n: u64) -> Option<Vec<i64>> {
        if n > self.n_left {
            self.n_wanted = self.n_wanted.max(n);
            return None;
        }
        let mut ids = Vec::new();
        let mut missing = n;
        while missing > 0 {
            let range = self.ranges.front_mut()?;
            let step = missing.min(length(range));
            let end = range.start + i64::try_from(step).ok()?;
            ids.extend(range.start..end);
            range.start = end;
            missing -= step;
            if range.is_empty() {
                self.ranges.pop_front();
            }
        }
        self.n_left -= n;
        self.n_wanted = 0;
        Some(ids)
    }

    /// How many to ask for now.
    fn missing(&self) -> u64 {
        let wanted = self.n_wanted.saturating_sub(self.n_left);
        if wanted > 0 || self.n_left < LOW { wanted.max(BATCH) } else { 0 }
    }
}

fn length(range: &Range<i64>) -> u64 {
    u64::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_across_batches_and_none_comes_twice() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.missing(), BATCH);
        assert_eq!(ranges.take(3), None);
        ranges.put(10..12);
        ranges.put(20..23);
        assert_eq!(ranges.take(3), Some(vec![10, 11, 20]));
        assert_eq!(ranges.take(3), None);
        assert_eq!(ranges.take(2), Some(vec![21, 22]));
        assert_eq!(ranges.take(1), None);
    }

    #[test]
    fn a_wish_beyond_a_batch_is_fetched_whole() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.take(3 * BATCH), None);
        assert_eq!(ranges.missing(), 3 * BATCH);
        ranges.put(0..i64::try_from(3 * BATCH).expect("small"));
        assert!(ranges.take(3 * BATCH).is_some());
        assert_eq!(ranges.missing(), BATCH);
    }
}
