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
    /// Answers to requests; with more of them waiting no further request is taken.
    pub(crate) answers_max: usize,
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
    /// Hears that a stream that was short of room has some, or is gone.
    behind: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiting {
    responses: VecDeque<Outgoing>,
    bytes: usize,
    n_answers: usize,
    closed: Option<Option<Status>>,
}

/// The queue is full: the watcher must catch up from history once there is room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl StreamQueue {
    pub(crate) fn new(id: u64, bounds: StreamBounds, behind: Arc<Notify>) -> StreamQueue {
        StreamQueue {
            id,
            bounds,
            waiting: Mutex::default(),
            reader: AtomicWaker::new(),
            space: Notify::new(),
            behind,
        }
    }

    /// An answer to a request always finds room: see [`StreamQueue::takes_requests`].
    pub(crate) fn push_control(&self, outgoing: Outgoing) {
        let mut waiting = self.waiting.lock();
        if waiting.closed.is_none() {
            waiting.n_answers += 1;
            waiting.responses.push_back(outgoing);
            drop(waiting);
            self.reader.wake();
        }
    }

    /// A notification without a request; left out where the client does not read.
    pub(crate) fn push_progress(&self, watch_id: i64, revision: i64) {
        if !self.is_unread() {
            self.push_control(Outgoing::Progress { watch_id, revision });
        }
    }

    /// Waits until there is room for the answer to one more request, or the stream is closed. A
    /// client that does not read its answers is not read either. Cancel-safe.
    pub(crate) async fn takes_requests(&self) {
        loop {
            let notified = self.space.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let waiting = self.waiting.lock();
                if waiting.closed.is_some() || !self.is_full_of_answers(&waiting) {
                    return;
                }
            }
            notified.await;
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
            waiting.n_answers += 1;
            waiting.responses.push_back(Outgoing::Control(response));
            drop(waiting);
            self.reader.wake();
        }
    }

    /// Whether requests are not read because the client does not read its answers.
    pub(crate) fn is_unread(&self) -> bool {
        self.is_full_of_answers(&self.waiting.lock())
    }

    /// Whether a watcher that catches up may go on.
    pub(crate) fn is_half_free(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.closed.is_none() && self.has_half(&waiting)
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
        let (was_short, was_full) = (!self.has_half(&waiting), self.is_full_of_answers(&waiting));
        if let Some(outgoing) = waiting.responses.pop_front() {
            match &outgoing {
                Outgoing::Events { batch, .. } => waiting.bytes -= batch.size_bytes(),
                Outgoing::Control(_) | Outgoing::Progress { .. } => waiting.n_answers -= 1,
            }
            if was_short && self.has_half(&waiting) {
                self.behind.notify_one();
            }
            if was_full {
                self.space.notify_waiters();
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

    fn is_full_of_answers(&self, waiting: &Waiting) -> bool {
        waiting.n_answers >= self.bounds.answers_max
    }

    fn has_half(&self, waiting: &Waiting) -> bool {
        waiting.bytes <= self.bounds.bytes_max / 2
            && waiting.responses.len() <= self.bounds.responses_max / 2
    }
}
