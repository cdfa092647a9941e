//! How connections between peers are made and accepted: seams for TLS and for a simulator.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::gathered::Gathered;
use crate::names::{self, Lookup, Names};
use crate::places::{Place, Places};

/// After a failed `accept` (too many open files, say): time to recover.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The first byte of a connection comes within this time.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A byte stream between two peers.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> PeerStream for T {}

/// Makes connections to peers.
pub trait Dialer: Send + Sync + 'static {
    /// What to dial for `address` (`host:port`), in order. Has a deadline of its own, apart from
    /// that of a connection.
    fn resolve(&self, address: String) -> BoxFuture<'static, io::Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(vec![address])))
    }

    /// Connects to the peer listener at one address that `resolve` gave.
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn PeerStream>>>;
}

/// Accepts connections of peers.
pub trait Acceptor: Send + Sync + 'static {
    /// Waits for the next connection. Cancel-safe.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn PeerStream>>>;

    /// Called once on the runtime that will accept, before the first `accept`.
    ///
    /// # Errors
    /// The listener cannot be moved to that runtime.
    fn attach(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Plain TCP without delay of small packets. Clones share what they know of names.
#[derive(Clone)]
pub struct TcpDialer {
    names: Names,
}

impl TcpDialer {
    /// Asks `lookup` for names.
    pub fn with_lookup(lookup: Arc<Lookup>) -> TcpDialer {
        TcpDialer { names: Names::new(lookup) }
    }
}

impl Default for TcpDialer {
    fn default() -> TcpDialer {
        TcpDialer::with_lookup(names::system())
    }
}

impl Dialer for TcpDialer {
    fn resolve(&self, address: String) -> BoxFuture<'static, io::Result<Vec<String>>> {
        let names = self.names.clone();
        Box::pin(async move {
            let found = names.resolve(&address).await?;
            Ok(found.iter().map(ToString::to_string).collect())
        })
    }

    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn PeerStream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(Gathered::new(stream)) as Box<dyn PeerStream>)
        })
    }
}

/// Plain TCP without delay of small packets.
#[derive(Debug)]
pub struct TcpAcceptor {
    /// `None` only while it moves between runtimes.
    listener: Option<TcpListener>,
}

impl TcpAcceptor {
    pub fn new(listener: TcpListener) -> TcpAcceptor {
        TcpAcceptor { listener: Some(listener) }
    }
}

impl Acceptor for TcpAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn PeerStream>>> {
        Box::pin(async move {
            let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(Gathered::new(stream)) as Box<dyn PeerStream>)
        })
    }

    /// The listener was made on the caller's runtime, whose load must not delay peers.
    fn attach(&mut self) -> io::Result<()> {
        let listener = self.listener.take().ok_or(io::ErrorKind::NotConnected)?;
        self.listener = Some(TcpListener::from_std(listener.into_std()?)?);
        Ok(())
    }
}

/// Connections as they come, until `cancel` fires; as many as there are places.
pub(crate) fn incoming(
    acceptor: Box<dyn Acceptor>,
    places: Arc<Places>,
    cancel: CancellationToken,
) -> impl Stream<Item = io::Result<Accepted>> {
    let state = (acceptor, places, cancel);
    futures::stream::unfold(state, |(mut acceptor, places, cancel)| async move {
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                () = cancel.cancelled() => return None,
            };
            match accepted {
                Ok(stream) => {
                    let Some(place) = places.take() else { continue };
                    let accepted = Accepted::new(stream, place, cancel.clone());
                    return Some((Ok(accepted), (acceptor, places, cancel)));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "peer connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A connection that a peer made. It breaks when this node stops: a stopped node is silent at
/// once, as a dead one would be. It breaks too where nothing comes, or where it has to make room.
pub(crate) struct Accepted {
    stream: Box<dyn PeerStream>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Until the first byte.
    silence: Option<Pin<Box<Sleep>>>,
    place: Arc<Place>,
}

impl Accepted {
    fn new(stream: Box<dyn PeerStream>, place: Place, cancel: CancellationToken) -> Accepted {
        let cut = place.cut().clone();
        let ended = async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = cut.cancelled() => {}
            }
        };
        Accepted {
            stream,
            ended: Box::pin(ended),
            silence: Some(Box::pin(tokio::time::sleep(SILENCE_MAX))),
            place: Arc::new(place),
        }
    }
}

impl Connected for Accepted {
    /// So that a call by a member keeps its connection's place.
    type ConnectInfo = Arc<Place>;

    fn connect_info(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let n_before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > n_before {
            self.silence = None;
        } else if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(context).is_ready()
        {
            self.place.is_silent();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
