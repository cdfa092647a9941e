//! The net between nodes: who reaches whom, how fast, how far.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use raft::{Dialer, PeerStream, TcpDialer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Who can reach whom. Addresses stand for nodes.
#[derive(Clone, Default)]
pub(crate) struct Net {
    links: Arc<Mutex<BTreeMap<(String, String), Link>>>,
    /// How connections that are made from now on behave, where any does not as fast as it can.
    pace: Arc<Mutex<Option<Pace>>>,
}

#[derive(Clone, Default)]
struct Link {
    cut: bool,
    /// Breaks the connections that stand.
    alive: CancellationToken,
}

/// Of connections, from the moment on that it is set.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Of each byte, on its way.
    pub(crate) delay: Duration,
    /// Towards whom at most so many bytes a second go, on each connection.
    pub(crate) slow: Option<(SocketAddr, u64)>,
}

impl Net {
    /// Nobody reaches `address` and it reaches nobody.
    pub(crate) fn isolate(&self, address: &str, others: &[String]) {
        for other in others {
            self.cut(address, other);
            self.cut(other, address);
        }
    }

    pub(crate) fn cut(&self, from: &str, to: &str) {
        let mut links = self.links.lock().unwrap();
        let link = links.entry((from.to_owned(), to.to_owned())).or_default();
        link.cut = true;
        link.alive.cancel();
    }

    pub(crate) fn heal(&self) {
        // Links that stood keep what breaks their connections.
        let mut links = self.links.lock().unwrap();
        links.values_mut().filter(|link| link.cut).for_each(|link| *link = Link::default());
    }

    /// Connections that are made from now on have a pace, which can be changed while they stand.
    pub(crate) fn pace(&self, pace: Pace) {
        *self.pace.lock().unwrap() = Some(pace);
    }

    fn link(&self, from: &str, to: &str) -> Link {
        let mut links = self.links.lock().unwrap();
        links.entry((from.to_owned(), to.to_owned())).or_default().clone()
    }
}

pub(crate) struct TestDialer {
    pub(crate) net: Net,
    pub(crate) from: String,
}

impl Dialer for TestDialer {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn PeerStream>>> {
        let link = self.net.link(&self.from, &address);
        let paces = Arc::clone(&self.net.pace);
        Box::pin(async move {
            if link.cut {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            let to = address.parse().unwrap();
            let stream = TcpDialer::default().dial(address).await?;
            let is_paced = paces.lock().unwrap().is_some();
            let stream = if is_paced { paced(stream, to, paces) } else { stream };
            let broken = Box::pin(link.alive.cancelled_owned());
            Ok(Box::new(Breakable { stream, broken }) as Box<dyn PeerStream>)
        })
    }
}

struct Breakable {
    stream: Box<dyn PeerStream>,
    broken: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Breakable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.broken.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What is on its way at once in one direction of a connection.
const CHUNK_BYTES: usize = 8 << 10;
const CHUNKS: usize = 64;

/// `stream` with bytes that take their time in both directions.
fn paced(
    stream: Box<dyn PeerStream>,
    to: SocketAddr,
    paces: Arc<Mutex<Option<Pace>>>,
) -> Box<dyn PeerStream> {
    let (near, far) = tokio::io::duplex(CHUNK_BYTES);
    let (near_read, near_write) = tokio::io::split(far);
    let (far_read, far_write) = tokio::io::split(stream);
    let there = move |pace: Pace| pace.slow.filter(|(slow, _)| *slow == to).map(|(_, rate)| rate);
    tokio::spawn(carry(near_read, far_write, Arc::clone(&paces), there));
    tokio::spawn(carry(far_read, near_write, paces, |_| None));
    Box::new(near)
}

async fn carry(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin,
    paces: Arc<Mutex<Option<Pace>>>,
    rate: impl Fn(Pace) -> Option<u64> + Send + 'static,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    tokio::spawn(async move {
        let mut free_at = Instant::now();
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let Ok(n @ 1..) = from.read(&mut chunk).await else { return };
            chunk.truncate(n);
            let pace = paces.lock().unwrap().unwrap();
            free_at = free_at.max(Instant::now());
            if let Some(rate) = rate(pace) {
                free_at += Duration::from_micros(n as u64 * 1_000_000 / rate);
            }
            if sender.send((free_at + pace.delay, chunk)).await.is_err() {
                return;
            }
        }
    });
    while let Some((due, chunk)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&chunk).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}
