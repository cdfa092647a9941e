//! Between a client's socket and the HTTP server: what the server would take amiss, and what it
//! would take for ever.
//!
//! **Authorities.** h2 resets a call whose `:authority` is not one by the letter. etcd reads it
//! nowhere and takes any, and clients in use send others: Go's clientv3 3.5.0
//! (`#initially=[host:port]`), grpc-core with several endpoints (`ipv4:a,b,c`). A channel sends one
//! authority for all of its calls, so the first request of a connection decides: where h2 reads
//! it, all bytes pass as they are; where it does not, each header block is written again with
//! another authority.
//!
//! **Pings.** A client whose pings come closer than `ping_min` with nothing asked between them is
//! told to be calm and its connection ends, as in etcd.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{self, Frames, HEAD_BYTES, Head, PAYLOAD_BYTES_MAX, PREFACE};
use super::hpack::{Decoder, Field, encode};

/// Read from the socket in one go while bytes are looked at.
const CHUNK_BYTES: usize = 8 << 10;
/// A header block as it came, all its frames together. What the server takes is less.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Written in place of an authority that the server does not read.
const AUTHORITY: &[u8] = b"localhost";

/// Pings that come too early and are forgiven. etcd forgives two; a client that another task of
/// its host holds up sends several at once.
const EARLY_PINGS_MAX: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 0xb;
/// As gRPC servers say it; clients of gRPC know the words and ping less often.
const TOO_MANY_PINGS: &[u8] = b"too_many_pings";

/// Whether the client speaks a protocol that is spoken here; shared with the task that waits for
/// it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Speech(Arc<AtomicBool>);

impl Speech {
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The stream of one connection, in front of the server.
pub(crate) struct Front<S> {
    stream: S,
    mode: Mode,
    speech: Speech,
    pings: Pings,
    /// Came from the client and has not been looked at.
    raw: BytesMut,
    /// Goes to the server next.
    ready: BytesMut,
    /// What the client and the server send, while their bytes pass as they are.
    inbound: Frames,
    outbound: Frames,
}

enum Mode {
    /// HTTP/2 or not.
    Opening,
    /// Header blocks are read: up to the first one, or in each one where it has to be written
    /// again.
    Blocks {
        decoder: Decoder,
        rewrites: bool,
        passing: usize,
    },
    /// HTTP/2 that the server reads as it is.
    Http2,
    Http1,
}

/// What one look at the bytes came to.
enum Step {
    /// Look again.
    Next,
    /// More bytes are needed.
    Starved,
}

impl<S> Front<S> {
    /// `ping_min`: pings of an idle client may come this close to each other.
    pub(crate) fn new(stream: S, ping_min: Duration) -> Front<S> {
        Front {
            stream,
            mode: Mode::Opening,
            speech: Speech::default(),
            pings: Pings { min: ping_min, last: None, early: 0 },
            raw: BytesMut::new(),
            ready: BytesMut::new(),
            inbound: Frames::default(),
            outbound: Frames::default(),
        }
    }

    pub(crate) fn speech(&self) -> Speech {
        self.speech.clone()
    }

    /// Looks at what came, and moves what the server may have to `ready`.
    fn look(&mut self) -> io::Result<()> {
        loop {
            let step = match &mut self.mode {
                Mode::Opening => self.open(),
                Mode::Blocks { .. } => self.next_frame()?,
                Mode::Http2 => {
                    let raw = self.raw.split();
                    self.inbound.feed(&raw, |head| self.pings.see(head));
                    self.ready.unsplit(raw);
                    Step::Starved
                }
                Mode::Http1 => {
                    self.ready.unsplit(self.raw.split());
                    Step::Starved
                }
            };
            if matches!(step, Step::Starved) {
                return Ok(());
            }
        }
    }

    fn open(&mut self) -> Step {
        let n_bytes = self.raw.len().min(PREFACE.len());
        if self.raw[..n_bytes] != PREFACE[..n_bytes] {
            // The server waits for the head of a request, for as long as it waits for each.
            self.speech.0.store(true, Ordering::Relaxed);
            self.mode = Mode::Http1;
            return Step::Next;
        }
        if n_bytes < PREFACE.len() {
            return Step::Starved;
        }
        self.speech.0.store(true, Ordering::Relaxed);
        self.ready.unsplit(self.raw.split_to(n_bytes));
        let decoder = Decoder::new(BLOCK_BYTES_MAX);
        self.mode = Mode::Blocks { decoder, rewrites: false, passing: 0 };
        Step::Next
    }

    fn next_frame(&mut self) -> io::Result<Step> {
        let Mode::Blocks { passing, rewrites, .. } = &mut self.mode else { return Ok(Step::Next) };
        let rewrites = *rewrites;
        if *passing > 0 {
            let n_bytes = self.raw.len().min(*passing);
            *passing -= n_bytes;
            self.ready.unsplit(self.raw.split_to(n_bytes));
        }
        let Some(head) = Head::peek(&self.raw).filter(|_| *passing == 0) else {
            return Ok(Step::Starved);
        };
        if head.kind != frames::HEADERS {
            self.pings.see(head);
            *passing = HEAD_BYTES + head.payload_bytes;
            return Ok(Step::Next);
        }
        match Block::gather(&self.raw) {
            Ok(Some(block)) => self.take(&block),
            Ok(None) => Ok(Step::Starved),
            // The server says what is wrong with it.
            Err(_) if !rewrites => {
                self.mode = Mode::Http2;
                Ok(Step::Next)
            }
            Err(malformed) => Err(io::Error::new(io::ErrorKind::InvalidData, malformed)),
        }
    }

    /// A header block is complete.
    fn take(&mut self, block: &Block) -> io::Result<Step> {
        let Mode::Blocks { decoder, rewrites, .. } = &mut self.mode else { return Ok(Step::Next) };
        let list = match decoder.decode(&block.fragment) {
            Ok(list) => list,
            Err(_) if !*rewrites => {
                self.mode = Mode::Http2;
                return Ok(Step::Next);
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        if !*rewrites && list.iter().all(is_read_by_server) {
            self.mode = Mode::Http2;
            return Ok(Step::Next);
        }
        *rewrites = true;
        self.raw.advance(block.raw_bytes);
        block.write_again(list, &mut self.ready);
        Ok(Step::Next)
    }
}

/// Whether the server takes a field for what it is.
fn is_read_by_server(field: &Field) -> bool {
    field.name != b":authority" || Authority::try_from(field.value.as_slice()).is_ok()
}

/// A header block out of a HEADERS frame and the CONTINUATION frames that follow it.
struct Block {
    stream: u32,
    ends_stream: bool,
    fragment: Vec<u8>,
    /// All frames of it, as they came.
    raw_bytes: usize,
}

#[derive(Debug, thiserror::Error)]
enum BlockError {
    #[error("a frame has {0} bytes, {PAYLOAD_BYTES_MAX} were allowed")]
    Frame(usize),
    #[error("a header block has more than {BLOCK_BYTES_MAX} bytes")]
    TooLarge,
    #[error("a frame is shorter than its padding and priority")]
    Padding,
    #[error("a header block is interrupted by another frame")]
    Interrupted,
}

impl Block {
    /// The block at the beginning of `raw`; `None` where its end has not come.
    fn gather(raw: &[u8]) -> Result<Option<Block>, BlockError> {
        let mut block = Block { stream: 0, ends_stream: false, fragment: vec![], raw_bytes: 0 };
        loop {
            if block.raw_bytes > BLOCK_BYTES_MAX {
                return Err(BlockError::TooLarge);
            }
            let Some(head) = Head::peek(&raw[block.raw_bytes..]) else { return Ok(None) };
            if head.payload_bytes > PAYLOAD_BYTES_MAX {
                return Err(BlockError::Frame(head.payload_bytes));
            }
            let begin = block.raw_bytes + HEAD_BYTES;
            let end = begin + head.payload_bytes;
            if block.raw_bytes == 0 {
                block.stream = head.stream;
                block.ends_stream = head.flags & frames::END_STREAM != 0;
            } else if head.kind != frames::CONTINUATION || head.stream != block.stream {
                return Err(BlockError::Interrupted);
            }
            let Some(payload) = raw.get(begin..end) else { return Ok(None) };
            block.fragment.extend_from_slice(match block.raw_bytes {
                0 => fragment(head, payload).ok_or(BlockError::Padding)?,
                _ => payload,
            });
            block.raw_bytes = end;
            if head.flags & frames::END_HEADERS != 0 {
                return Ok(Some(block));
            }
        }
    }

    /// Writes it with an authority that the server reads.
    fn write_again(&self, mut list: Vec<Field>, into: &mut BytesMut) {
        for field in &mut list {
            if !is_read_by_server(field) {
                field.value = AUTHORITY.to_vec();
            }
        }
        let block = encode(&list);
        let mut kind = frames::HEADERS;
        let mut pieces = block.chunks(PAYLOAD_BYTES_MAX).peekable();
        // A list is empty where a client sends no fields at all; the server is to see that.
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            let mut flags = 0;
            if pieces.peek().is_none() {
                flags |= frames::END_HEADERS;
            }
            if kind == frames::HEADERS && self.ends_stream {
                flags |= frames::END_STREAM;
            }
            Head { payload_bytes: piece.len(), kind, flags, stream: self.stream }.write(into);
            into.put_slice(piece);
            kind = frames::CONTINUATION;
            match pieces.next() {
                Some(next) => piece = next,
                None => return,
            }
        }
    }
}

/// What a HEADERS frame holds beside padding and priority.
fn fragment(head: Head, mut payload: &[u8]) -> Option<&[u8]> {
    let mut n_padding = 0;
    if head.flags & frames::PADDED != 0 {
        n_padding = usize::from(*payload.first()?);
        payload = &payload[1..];
    }
    if head.flags & frames::PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(n_padding)?)
}

/// Counts the pings of a client that asks for nothing else.
struct Pings {
    min: Duration,
    last: Option<Instant>,
    early: u32,
}

impl Pings {
    /// A frame of the client. Settings are acknowledged like pings, so they count as such.
    fn see(&mut self, head: Head) {
        if !matches!(head.kind, frames::PING | frames::SETTINGS) || head.flags & frames::ACK != 0 {
            return;
        }
        let now = Instant::now();
        let is_early = self.last.is_some_and(|last| now.saturating_duration_since(last) < self.min);
        self.last = Some(now);
        self.early = if is_early { self.early + 1 } else { 0 };
    }

    /// A frame of the server. Clients measure the line with pings while answers come.
    fn answered(&mut self, head: Head) {
        if matches!(head.kind, frames::DATA | frames::HEADERS) {
            self.early = 0;
        }
    }

    fn are_too_many(&self) -> bool {
        self.early > EARLY_PINGS_MAX
    }
}

impl<S: AsyncWrite + Unpin> Front<S> {
    /// Ends a connection whose client pings too often.
    fn calm(&mut self, context: &mut Context<'_>) -> io::Error {
        // In the middle of an answer a frame has no place; the client sees the end alone.
        if self.outbound.is_between() {
            let mut frame = Vec::new();
            let payload_bytes = 8 + TOO_MANY_PINGS.len();
            Head { payload_bytes, kind: frames::GOAWAY, flags: 0, stream: 0 }.write(&mut frame);
            // No stream is promised to be served after it.
            frame.put_u32(0);
            frame.put_u32(ENHANCE_YOUR_CALM);
            frame.put_slice(TOO_MANY_PINGS);
            // As good as it goes: the connection ends in any case.
            let _ = Pin::new(&mut self.stream).poll_write(context, &frame);
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, "the client pings too often")
    }

    fn written(&mut self, bytes: &[u8]) {
        if !matches!(self.mode, Mode::Http1) {
            self.outbound.feed(bytes, |head| self.pings.answered(head));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Front<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let front = &mut *self;
        if front.pings.are_too_many() {
            return Poll::Ready(Err(front.calm(context)));
        }
        loop {
            if !front.ready.is_empty() {
                let n_bytes = front.ready.len().min(buffer.remaining());
                buffer.put_slice(&front.ready.split_to(n_bytes));
                return Poll::Ready(Ok(()));
            }
            if matches!(front.mode, Mode::Http1 | Mode::Http2) {
                let n_before = buffer.filled().len();
                ready!(Pin::new(&mut front.stream).poll_read(context, buffer))?;
                if matches!(front.mode, Mode::Http2) {
                    let (inbound, pings) = (&mut front.inbound, &mut front.pings);
                    inbound.feed(&buffer.filled()[n_before..], |head| pings.see(head));
                }
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; CHUNK_BYTES];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut front.stream).poll_read(context, &mut chunk))?;
            if chunk.filled().is_empty() {
                // The client is gone; what it left goes on as it is.
                front.mode = Mode::Http1;
                front.ready.unsplit(front.raw.split());
                if front.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            front.raw.extend_from_slice(chunk.filled());
            front.look()?;
            if front.pings.are_too_many() {
                return Poll::Ready(Err(front.calm(context)));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Front<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n_bytes = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.written(&bytes[..n_bytes]);
        Poll::Ready(Ok(n_bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n_bytes = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let mut n_left = n_bytes;
        for slice in slices {
            let n_of_slice = slice.len().min(n_left);
            self.written(&slice[..n_of_slice]);
            n_left -= n_of_slice;
        }
        Poll::Ready(Ok(n_bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
