//! Writes of many tasks to one connection, gathered into few system calls.
//!
//! An HTTP/2 connection flushes whenever one of its streams has an answer, and the scheduler runs
//! it right after that stream: with twenty answers ready it would make twenty writes, and a write
//! costs more than all else about a small answer. So a flush lets the tasks that are ready run
//! first, and takes along what they add. Where nothing else is ready it goes at once. A connection
//! on which one call follows the other gains nothing by that: after some such rounds it does without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most. More is written without a flush.
const GATHERED_BYTES_MAX: usize = 64 << 10;
/// Copying this much costs as much as a write.
const LARGE_BYTES: usize = 8 << 10;

/// So many rounds in a row that brought nothing, and flushes go without one.
const VAIN_ROUNDS_MAX: u8 = 8;
/// So many flushes later a round is tried again.
const FLUSHES_WITHOUT_ROUND: u8 = 32;

/// A connection whose flush waits for one round of the scheduler.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    gathered: BytesMut,
    /// The round has passed: what is gathered goes out.
    due: bool,
    /// Bytes that were gathered when the round began; until it is judged.
    before: Option<usize>,
    /// Rounds in a row that brought nothing, and flushes since then.
    vain: u8,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub fn new(stream: S) -> Gathered<S> {
        Gathered { stream, gathered: BytesMut::new(), due: false, before: None, vain: 0 }
    }

    /// Whether what is gathered waits for a round.
    fn begins_round(&mut self) -> bool {
        if self.gathered.is_empty() || self.due {
            return false;
        }
        if self.vain >= VAIN_ROUNDS_MAX {
            self.vain += 1;
            if self.vain < VAIN_ROUNDS_MAX + FLUSHES_WITHOUT_ROUND {
                return false;
            }
            self.vain = VAIN_ROUNDS_MAX - 1;
        }
        self.due = true;
        self.before = Some(self.gathered.len());
        true
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(before) = self.before.take() {
            self.vain = if self.gathered.len() > before { 0 } else { self.vain + 1 };
        }
        while !self.gathered.is_empty() {
            let n_bytes = ready!(Pin::new(&mut self.stream).poll_write(context, &self.gathered))?;
            if n_bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(n_bytes);
        }
        self.due = false;
        Poll::Ready(Ok(()))
    }

    /// Whether so many more bytes are gathered; else they are to be written after the rest.
    fn poll_room(&mut self, context: &mut Context<'_>, n_bytes: usize) -> Poll<io::Result<bool>> {
        if n_bytes < LARGE_BYTES && self.gathered.len() + n_bytes <= GATHERED_BYTES_MAX {
            return Poll::Ready(Ok(true));
        }
        ready!(self.poll_drain(context))?;
        Poll::Ready(Ok(n_bytes < LARGE_BYTES))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.poll_room(context, bytes.len()))? {
            self.gathered.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n_bytes = slices.iter().map(|slice| slice.len()).sum();
        if ready!(self.poll_room(context, n_bytes))? {
            for slice in slices {
                self.gathered.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(n_bytes));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.begins_round() {
            // A task that wakes itself goes behind all that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn small(n_bytes_in_flight: usize) -> (Gathered<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(n_bytes_in_flight);
        (Gathered::new(near), far)
    }

    #[tokio::test]
    async fn nothing_leaves_before_a_flush_and_all_of_it_after() {
        let (mut near, mut far) = small(1024);
        near.write_all(b"one").await.unwrap();
        near.write_all(b"two").await.unwrap();
        let mut buffer = [0; 16];
        let mut early = read_now(&mut far, &mut buffer);
        assert!(early.is_none(), "written before the flush: {early:?}");
        near.flush().await.unwrap();
        early = read_now(&mut far, &mut buffer);
        assert_eq!(early, Some(6));
        assert_eq!(&buffer[..6], b"onetwo");
    }

    #[tokio::test]
    async fn a_flush_takes_along_what_ready_tasks_add() {
        let (mut near, mut far) = small(1024);
        near.write_all(b"one").await.unwrap();
        let mut rounds = 0;
        std::future::poll_fn(|context| {
            rounds += 1;
            if rounds == 2 {
                // What another stream had ready.
                assert!(Pin::new(&mut near).poll_write(context, b"two").is_ready());
            }
            Pin::new(&mut near).poll_flush(context)
        })
        .await
        .unwrap();
        assert_eq!(rounds, 2);
        let mut buffer = [0; 16];
        assert_eq!(read_now(&mut far, &mut buffer), Some(6));
    }

    /// How often each of some flushes was polled; `more` is what comes while the first one waits.
    async fn rounds(near: &mut Gathered<DuplexStream>, n_flushes: usize, more: &[u8]) -> Vec<u32> {
        let mut all = Vec::new();
        for _ in 0..n_flushes {
            near.write_all(b"one").await.unwrap();
            let mut rounds = 0;
            std::future::poll_fn(|context| {
                rounds += 1;
                if rounds == 2 {
                    assert!(Pin::new(&mut *near).poll_write(context, more).is_ready());
                }
                Pin::new(&mut *near).poll_flush(context)
            })
            .await
            .unwrap();
            all.push(rounds);
        }
        all
    }

    #[tokio::test]
    async fn where_nothing_else_comes_flushes_do_without_a_round_but_try_again() {
        let (mut near, _far) = small(1024);
        assert_eq!(rounds(&mut near, 8, b"").await, [2; 8]);
        assert_eq!(rounds(&mut near, 31, b"").await, [1; 31]);
        assert_eq!(rounds(&mut near, 1, b"").await, [2]);
        assert_eq!(rounds(&mut near, 31, b"").await, [1; 31]);
        // Company has come, and each flush waits for it again.
        assert_eq!(rounds(&mut near, 8, b"two").await, [2; 8]);
        assert_eq!(rounds(&mut near, 8, b"").await, [2; 8]);
    }

    #[tokio::test]
    async fn bytes_keep_their_order_past_every_bound() {
        let (mut near, mut far) = small(700);
        let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            let mut rest = sent.as_slice();
            for step in [1, LARGE_BYTES - 1, LARGE_BYTES, 3, 5 * LARGE_BYTES].into_iter().cycle() {
                let (now, later) = rest.split_at(step.min(rest.len()));
                near.write_all(now).await.unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            near.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == expected);
    }

    /// What can be read at once.
    fn read_now(far: &mut DuplexStream, buffer: &mut [u8]) -> Option<usize> {
        use futures::FutureExt;
        far.read(buffer).now_or_never().map(Result::unwrap)
    }
}
