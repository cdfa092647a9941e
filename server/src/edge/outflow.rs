//! Bytes of answers that their clients have not taken yet.
//!
//! The counterpart of the intake. A large answer takes room before its values are read and gives it
//! back when the last of it is handed to the transport, so all of them together are bounded, also
//! where clients do not read. One whose client takes nothing gives way, with its connection, while
//! others wait for room.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::tasks;

/// Smaller answers are not counted: connections and streams bound them.
const COUNTED_BYTES_MIN: u64 = 64 << 10;
/// Room is counted in so many bytes.
const UNIT_BYTES: u64 = 1 << 10;
/// Handed to the transport at once.
const PIECE_BYTES: usize = 64 << 10;
/// An answer of which nothing was taken for so long gives way.
const UNREAD_MAX: Duration = Duration::from_secs(3);

/// Room for the large answers of one node.
#[derive(Debug)]
pub(crate) struct Outflow {
    bytes_max: u64,
    room: Arc<Semaphore>,
    n_waiting: AtomicUsize,
    refused: AtomicU64,
    unread: AtomicU64,
    unread_max: Duration,
}

/// Figures of the outflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutflowCount {
    pub(crate) held_bytes: u64,
    pub(crate) bytes_max: u64,
    /// Answers that found no room in time.
    pub(crate) refused: u64,
    /// Connections that were ended because they did not take an answer for which others waited.
    pub(crate) unread: u64,
}

/// No room became free in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "large answers that are being read or sent hold {bytes_max} bytes on this node, which is the \
     limit: ask for fewer keys, or again later"
)]
pub(crate) struct Crowded {
    bytes_max: u64,
}

/// The room of one answer. Travels with the response as an extension, in an [`Arc`].
#[derive(Debug)]
pub(crate) struct Room {
    outflow: Arc<Outflow>,
    permit: OwnedSemaphorePermit,
}

impl Outflow {
    pub(crate) fn new(bytes_max: u64) -> Arc<Outflow> {
        Outflow::with(bytes_max, UNREAD_MAX)
    }

    fn with(bytes_max: u64, unread_max: Duration) -> Arc<Outflow> {
        let units = usize::try_from(bytes_max / UNIT_BYTES).expect("a constant below 1 TiB");
        Arc::new(Outflow {
            bytes_max,
            room: Arc::new(Semaphore::new(units)),
            n_waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            unread_max,
        })
    }

    /// Takes room for an answer of so many bytes, `None` for a small one. One that is larger than
    /// all the room takes all of it.
    ///
    /// # Errors
    /// There was too little all the time until `deadline`.
    pub(crate) async fn hold(
        self: &Arc<Self>,
        bytes: u64,
        deadline: Instant,
    ) -> Result<Option<Room>, Crowded> {
        if bytes < COUNTED_BYTES_MIN {
            return Ok(None);
        }
        let units = u32::try_from(bytes.min(self.bytes_max) / UNIT_BYTES).unwrap_or(u32::MAX);
        let waiting = Waiting::one_more(&self.n_waiting);
        let taken = Arc::clone(&self.room).acquire_many_owned(units);
        let taken = tokio::time::timeout_at(deadline, taken).await;
        drop(waiting);
        let Ok(permit) = taken else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Crowded { bytes_max: self.bytes_max });
        };
        let permit = permit.expect("the semaphore is never closed");
        Ok(Some(Room { outflow: Arc::clone(self), permit }))
    }

    pub(crate) fn count(&self) -> OutflowCount {
        let free = self.room.available_permits() as u64 * UNIT_BYTES;
        OutflowCount {
            held_bytes: (self.bytes_max / UNIT_BYTES * UNIT_BYTES).saturating_sub(free),
            bytes_max: self.bytes_max,
            refused: self.refused.load(Ordering::Relaxed),
            unread: self.unread.load(Ordering::Relaxed),
        }
    }
}

/// Counts one that waits while it lives: its future may be dropped at any moment.
struct Waiting<'n>(&'n AtomicUsize);

impl Waiting<'_> {
    fn one_more(n: &AtomicUsize) -> Waiting<'_> {
        n.fetch_add(1, Ordering::Relaxed);
        Waiting(n)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    /// Gives back what an answer of so many bytes does not need, all of it for a small one.
    pub(crate) fn fit(mut self, bytes: u64) -> Option<Room> {
        if bytes < COUNTED_BYTES_MIN {
            return None;
        }
        let units = usize::try_from(bytes / UNIT_BYTES).unwrap_or(usize::MAX);
        if let Some(needed) = self.permit.split(units) {
            self.permit = needed;
        }
        Some(self)
    }

    /// The body of the answer, which keeps the room until the client has taken it. `give_way` is
    /// told when the client takes nothing while others wait.
    pub(crate) fn keep(self: Arc<Self>, body: Body, give_way: &Arc<Notify>) -> Body {
        let n_taken = Arc::new(AtomicU64::new(0));
        let watched =
            watch(Arc::clone(&self.outflow), Arc::downgrade(&n_taken), Arc::clone(give_way));
        tasks::spawn("outflow-watch", watched);
        Body::new(Kept { body, rest: Bytes::new(), n_taken, _room: self })
    }
}

async fn watch(outflow: Arc<Outflow>, n_taken: Weak<AtomicU64>, give_way: Arc<Notify>) {
    let mut seen = u64::MAX;
    loop {
        tokio::time::sleep(outflow.unread_max).await;
        let Some(n_taken) = n_taken.upgrade().map(|n_taken| n_taken.load(Ordering::Relaxed)) else {
            return;
        };
        if n_taken == seen && outflow.n_waiting.load(Ordering::Relaxed) > 0 {
            outflow.unread.fetch_add(1, Ordering::Relaxed);
            give_way.notify_one();
            return;
        }
        seen = n_taken;
    }
}

/// A body that is handed on in copied pieces: one that waits in the transport keeps nothing else.
struct Kept {
    body: Body,
    rest: Bytes,
    /// Pieces that the transport asked for.
    n_taken: Arc<AtomicU64>,
    _room: Arc<Room>,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
        self.n_taken.fetch_add(1, Ordering::Relaxed);
        let n_bytes = self.rest.len().min(PIECE_BYTES);
        let piece = Bytes::copy_from_slice(&self.rest.split_to(n_bytes));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
