//! Bytes of requests that have not become calls yet.
//!
//! A message is collected before it is decoded, and a client may begin as many as it has streams.
//! What all of them hold together is bounded for each listener, and each is complete in time.
//! Large ones are refused first: a flood of them does not keep the small ones out, which are all
//! but a few of the calls.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;

/// A message larger than this is refused once the bound is reached, a smaller one at twice that.
const LARGE_BYTES: usize = 64 << 10;
const BYTES_PER_S_MIN: u64 = 64 << 10;
/// Before each message of gRPC: a flag, and its length.
const PREFIX_BYTES: usize = 5;

/// The requests of one listener that are being received.
#[derive(Debug)]
pub(crate) struct Intake {
    bytes_max: usize,
    /// A message is complete within this time, and what it takes at [`BYTES_PER_S_MIN`].
    within: Duration,
    held_bytes: AtomicUsize,
    refused: AtomicU64,
    overdue: AtomicU64,
}

/// Figures of an intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IntakeCount {
    pub(crate) held_bytes: usize,
    pub(crate) bytes_max: usize,
    /// Requests that were refused because too many bytes were held.
    pub(crate) refused: u64,
    /// Requests that were not complete in time.
    pub(crate) overdue: u64,
}

impl Intake {
    pub(crate) fn new(bytes_max: usize, within: Duration) -> Arc<Intake> {
        Arc::new(Intake {
            bytes_max,
            within,
            held_bytes: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
        })
    }

    pub(crate) fn count(&self) -> IntakeCount {
        IntakeCount {
            held_bytes: self.held_bytes.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
            refused: self.refused.load(Ordering::Relaxed),
            overdue: self.overdue.load(Ordering::Relaxed),
        }
    }
}

/// What a body consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    /// One message, and its end: both come in time.
    One,
    /// Messages as the client likes; each comes in time once it has begun.
    Stream,
}

/// The body of a request whose bytes are counted.
pub(crate) struct Measured<B> {
    body: B,
    messages: Messages,
    intake: Arc<Intake>,
    /// Of the message that is being received, or that was handed on last.
    held_bytes: usize,
    /// Where the next message begins or the current one ends.
    place: Place,
    began: Instant,
    late: Option<Pin<Box<Sleep>>>,
}

/// A place in a sequence of messages with prefixes.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    prefix: [u8; PREFIX_BYTES],
    n_prefix: usize,
    message_left: usize,
}

impl Place {
    /// Goes on by `bytes`; how many of them belong to the last message that began in them, where
    /// one did.
    fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut rest, mut begun) = (bytes, None);
        while !rest.is_empty() {
            if self.message_left > 0 {
                let n_bytes = self.message_left.min(rest.len());
                self.message_left -= n_bytes;
                rest = &rest[n_bytes..];
                continue;
            }
            if self.n_prefix == 0 {
                begun = Some(rest.len());
            }
            let n_bytes = (PREFIX_BYTES - self.n_prefix).min(rest.len());
            self.prefix[self.n_prefix..self.n_prefix + n_bytes].copy_from_slice(&rest[..n_bytes]);
            self.n_prefix += n_bytes;
            rest = &rest[n_bytes..];
            if self.n_prefix == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.message_left = u32::from_be_bytes(length) as usize;
                self.n_prefix = 0;
            }
        }
        begun
    }

    fn is_between(self) -> bool {
        self.n_prefix == 0 && self.message_left == 0
    }
}

impl<B> Measured<B> {
    pub(crate) fn new(body: B, messages: Messages, intake: &Arc<Intake>) -> Measured<B> {
        Measured {
            body,
            messages,
            intake: Arc::clone(intake),
            held_bytes: 0,
            place: Place::default(),
            began: Instant::now(),
            late: None,
        }
    }

    /// Takes more bytes into account.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Status> {
        if let Some(of_last) = self.place.advance(bytes) {
            // What came before has been handed on; a message that comes whole counts while it is
            // decoded, in this very moment.
            self.release();
            if self.messages == Messages::Stream {
                self.began = Instant::now();
            }
            self.hold(of_last);
        } else {
            self.hold(bytes.len());
        }
        let all_bytes = self.intake.held_bytes.load(Ordering::Relaxed);
        let bytes_max = match self.held_bytes > LARGE_BYTES {
            true => self.intake.bytes_max,
            false => self.intake.bytes_max * 2,
        };
        if all_bytes <= bytes_max {
            return Ok(());
        }
        self.intake.refused.fetch_add(1, Ordering::Relaxed);
        Err(Status::resource_exhausted(format!(
            "etcdserver: too many requests: {all_bytes} bytes of requests are being received, the \
             limit is {bytes_max}: try again later"
        )))
    }

    fn hold(&mut self, n_bytes: usize) {
        self.held_bytes += n_bytes;
        self.intake.held_bytes.fetch_add(n_bytes, Ordering::Relaxed);
    }

    fn release(&mut self) {
        self.intake.held_bytes.fetch_sub(self.held_bytes, Ordering::Relaxed);
        self.held_bytes = 0;
    }

    /// Whether what is missing should have come by now.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if self.messages == Messages::Stream && self.place.is_between() {
            self.late = None;
            return Poll::Pending;
        }
        let allowed =
            self.intake.within + Duration::from_secs(self.held_bytes as u64 / BYTES_PER_S_MIN);
        let deadline = self.began + allowed;
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while late.as_mut().poll(context).is_ready() {
            if late.deadline() >= deadline {
                self.intake.overdue.fetch_add(1, Ordering::Relaxed);
                return Poll::Ready(Status::deadline_exceeded(format!(
                    "the request was not complete within {} s",
                    allowed.as_secs()
                )));
            }
            late.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<B> Drop for Measured<B> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<B> Body for Measured<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let taken = frame.data_ref().cloned().map_or(Ok(()), |data| self.take(&data));
                Poll::Ready(Some(taken.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_late(context).map(|status| Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As the server would have told it without the measure.
fn broken(error: hyper::Error) -> Status {
    Status::from_error(Box::new(error))
}

impl<B> Measured<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    /// The one message of a body with its prefix, and the measure, to be kept until it is decoded.
    ///
    /// # Errors
    /// It is larger than `bytes_max`, or it was refused or not complete in time.
    pub(crate) async fn collect(mut self, bytes_max: usize) -> Result<(Bytes, Self), Status> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) =
            std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await
        {
            let Ok(data) = frame?.into_data() else { continue };
            // What came, be it several messages, and what was announced.
            let n_bytes = first.len() + all.len() + data.len() + self.place.message_left;
            if n_bytes > bytes_max + PREFIX_BYTES {
                return Err(Status::resource_exhausted(format!(
                    "the request has {} bytes, the limit is {bytes_max}",
                    n_bytes - PREFIX_BYTES
                )));
            }
            match (first.is_empty() && all.is_empty(), all.is_empty()) {
                (true, _) => first = data,
                (false, true) => {
                    all.extend_from_slice(&std::mem::take(&mut first));
                    all.extend_from_slice(&data);
                }
                (false, false) => all.extend_from_slice(&data),
            }
        }
        Ok((if all.is_empty() { first } else { all.freeze() }, self))
    }
}

#[cfg(test)]
mod tests;
