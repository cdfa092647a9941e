//! What waits to be sent on one watch stream, in order and bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use proto::etcd;
use tokio::sync::Notify;
use tonic::Status;

use super::batch::Batch;
use super::watcher::Watcher;

/// One response that waits.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Created, canceled: everything but its header's constant fields is set.
    Control(etcd::WatchResponse),
    /// Events from revision `from` on.
    Events { watcher: Arc<Watcher>, batch: Arc<Batch>, from: i64 },
    /// `watch_id` is -1 where it answers a request for the whole stream.
    Progress { watch_id: i64, revision: i64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamBounds {
    pub(crate) bytes_max: usize,
    pub(crate) responses_max: usize,
}

/// The queue between the hub and one client's stream.
///
/// Events, progress and control responses share it: nothing overtakes.
#[derive(Debug)]
pub(crate) struct StreamQueue {
    pub(crate) id: u64,
    bounds: StreamBounds,
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
    space: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    responses: VecDeque<Outgoing>,
    bytes: usize,
    closed: Option<Option<Status>>,
}

/// The queue is full: the watcher must catch up from history once there is room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl StreamQueue {
    pub(crate) fn new(id: u64, bounds: StreamBounds) -> StreamQueue {
        StreamQueue {
            id,
            bounds,
            waiting: Mutex::default(),
            reader: AtomicWaker::new(),
            space: Notify::new(),
        }
    }

    /// Control and progress responses always find room: there are few, and each answers a request.
    pub(crate) fn push_control(&self, outgoing: Outgoing) {
        let mut waiting = self.waiting.lock();
        if waiting.closed.is_none() {
            waiting.responses.push_back(outgoing);
            drop(waiting);
            self.reader.wake();
        }
    }

    /// # Errors
    /// `Full` where the stream's reader is too slow.
    pub(crate) fn push_events(
        &self,
        watcher: &Arc<Watcher>,
        batch: &Arc<Batch>,
        from: i64,
    ) -> Result<(), Full> {
        let mut waiting = self.waiting.lock();
        if waiting.closed.is_some() || watcher.canceled.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.has_room(&waiting) {
            return Err(Full);
        }
        waiting.bytes += batch.size_bytes();
        waiting.responses.push_back(Outgoing::Events {
            watcher: Arc::clone(watcher),
            batch: Arc::clone(batch),
            from,
        });
        drop(waiting);
        watcher.sent_since_tick.store(true, Ordering::Relaxed);
        self.reader.wake();
        Ok(())
    }

    /// Marks the watcher canceled, so that nothing of it follows, and says so to the client.
    pub(crate) fn push_cancel(&self, watcher: &Watcher, response: etcd::WatchResponse) {
        let mut waiting = self.waiting.lock();
        watcher.canceled.store(true, Ordering::Relaxed);
        if waiting.closed.is_none() {
            waiting.responses.push_back(Outgoing::Control(response));
            drop(waiting);
            self.reader.wake();
        }
        self.space.notify_waiters();
    }

    /// Waits until half of the queue is free. False where the watcher or the stream is gone.
    pub(crate) async fn room(&self, watcher: &Watcher) -> bool {
        loop {
            let notified = self.space.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let waiting = self.waiting.lock();
                if waiting.closed.is_some() || watcher.canceled.load(Ordering::Relaxed) {
                    return false;
                }
                if self.is_half_free(&waiting) {
                    return true;
                }
            }
            notified.await;
        }
    }

    /// Waits until the stream is closed. Cancel-safe.
    pub(crate) async fn closed(&self) {
        loop {
            let notified = self.space.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.waiting.lock().closed.is_some() {
                return;
            }
            notified.await;
        }
    }

    /// Takes the next response; `Ready(None)` ends the stream well.
    pub(crate) fn poll_next(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Outgoing, Status>>> {
        if let Some(next) = self.pop() {
            return Poll::Ready(next);
        }
        self.reader.register(context.waker());
        match self.pop() {
            Some(next) => Poll::Ready(next),
            None => Poll::Pending,
        }
    }

    fn pop(&self) -> Option<Option<Result<Outgoing, Status>>> {
        let mut waiting = self.waiting.lock();
        if let Some(outgoing) = waiting.responses.pop_front() {
            if let Outgoing::Events { batch, .. } = &outgoing {
                let was_short = !self.is_half_free(&waiting);
                waiting.bytes -= batch.size_bytes();
                if was_short && self.is_half_free(&waiting) {
                    self.space.notify_waiters();
                }
            }
            return Some(Some(Ok(outgoing)));
        }
        waiting.closed.take().map(|end| {
            waiting.closed = Some(None);
            end.map(Err)
        })
    }

    /// Ends the stream once what waits is sent; without a status it ends well.
    pub(crate) fn close(&self, status: Option<Status>) {
        let mut waiting = self.waiting.lock();
        waiting.closed.get_or_insert(status);
        drop(waiting);
        self.reader.wake();
        self.space.notify_waiters();
    }

    fn has_room(&self, waiting: &Waiting) -> bool {
        waiting.bytes < self.bounds.bytes_max && waiting.responses.len() < self.bounds.responses_max
    }

    fn is_half_free(&self, waiting: &Waiting) -> bool {
        waiting.bytes <= self.bounds.bytes_max / 2
            && waiting.responses.len() <= self.bounds.responses_max / 2
    }
}
