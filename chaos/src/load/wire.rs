//! gRPC over HTTP/2 frames, as little of it as a measurement needs.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;

/// A gRPC message begins with a flag and its length.
const PREFIX_BYTES: usize = 5;
const WINDOW_BYTES: u32 = 8 << 20;

/// One HTTP/2 connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    authority: Arc<str>,
}

impl Connection {
    /// Connects and drives the connection in a task that ends with it.
    ///
    /// # Errors
    /// Nobody listens, or it is no HTTP/2.
    pub async fn open(endpoint: &str) -> Result<Connection> {
        let socket = tokio::net::TcpStream::connect(endpoint).await?;
        socket.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES * 2)
            .max_concurrent_streams(0)
            .enable_push(false);
        let (sender, connection) = builder.handshake(socket).await?;
        tokio::spawn(async move {
            // Its error reaches every call that is open on it.
            let _ = connection.await;
        });
        Ok(Connection { sender, authority: endpoint.into() })
    }

    /// The method's request head for this connection, made once and used for every call.
    ///
    /// # Errors
    /// The path is malformed.
    pub fn head(&self, path: &str) -> Result<Head> {
        let uri = format!("http://{}{path}", self.authority).parse()?;
        let mut headers = HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
        headers.insert("te", http::HeaderValue::from_static("trailers"));
        Ok(Head { uri, headers })
    }

    /// A unary call: the encoded answer.
    ///
    /// # Errors
    /// The connection is gone, or the server's status is not 0.
    pub async fn call(&self, head: &Head, message: Bytes) -> Result<Bytes> {
        let (response, mut stream) = self.begin(head).await?;
        stream.send_data(message, true)?;
        let response = response.await?;
        check_status(response.headers())?;
        let mut body = response.into_body();
        let mut whole = Bytes::new();
        let mut parts = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            if whole.is_empty() && parts.is_empty() {
                whole = part;
            } else {
                parts.extend_from_slice(&std::mem::take(&mut whole));
                parts.extend_from_slice(&part);
            }
        }
        match body.trailers().await? {
            Some(trailers) => check_status(&trailers)?,
            None => bail!("the answer ended without a status"),
        }
        let mut whole = if parts.is_empty() { whole } else { parts.freeze() };
        if whole.len() < PREFIX_BYTES {
            bail!("the answer has no message");
        }
        whole.advance(PREFIX_BYTES);
        Ok(whole)
    }

    /// A bidirectional stream.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn stream(&self, head: &Head) -> Result<(Outgoing, h2::client::ResponseFuture)> {
        let (response, stream) = self.begin(head).await?;
        Ok((Outgoing { stream }, response))
    }

    /// A call whose message is still to be sent.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn begin(
        &self,
        head: &Head,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
        let mut sender = self.sender.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = head.headers.clone();
        Ok(sender.send_request(request, false)?)
    }
}

/// Path and headers of a method.
#[derive(Clone, Debug)]
pub struct Head {
    uri: http::Uri,
    headers: HeaderMap,
}

/// A message with its gRPC prefix.
#[must_use]
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut out);
    out.freeze()
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct Outgoing {
    stream: SendStream<Bytes>,
}

impl Outgoing {
    /// Sends one message.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn send(&mut self, message: &impl Message) -> Result<()> {
        Ok(self.stream.send_data(encode(message), false)?)
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct Incoming {
    body: RecvStream,
    buffer: BytesMut,
    /// Dropping the sending half would end the stream.
    outgoing: Option<Outgoing>,
}

impl Incoming {
    /// Waits for the head of the answer.
    ///
    /// # Errors
    /// The server refused the stream.
    pub async fn open(response: h2::client::ResponseFuture) -> Result<Incoming> {
        let response = response.await?;
        check_status(response.headers())?;
        Ok(Incoming { body: response.into_body(), buffer: BytesMut::new(), outgoing: None })
    }

    /// Keeps the sending half open as long as this one.
    pub fn keep(&mut self, outgoing: Outgoing) {
        self.outgoing = Some(outgoing);
    }

    /// The next message.
    ///
    /// # Errors
    /// The stream has ended, or the message is malformed.
    pub async fn next<M: Message + Default>(&mut self) -> Result<M> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let part = self.body.data().await.context("the stream has ended")??;
            self.body.flow_control().release_capacity(part.len())?;
            self.buffer.extend_from_slice(&part);
        }
    }

    fn take<M: Message + Default>(&mut self) -> Result<Option<M>> {
        if self.buffer.len() < PREFIX_BYTES {
            return Ok(None);
        }
        let length = usize::try_from((&self.buffer[1..PREFIX_BYTES]).get_u32())?;
        if self.buffer.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(M::decode(self.buffer.split_to(length).freeze())?))
    }
}

/// No status, or status 0, is good.
fn check_status(headers: &HeaderMap) -> Result<()> {
    match headers.get("grpc-status") {
        Some(status) if status.as_bytes() != b"0" => {
            let message = headers.get("grpc-message").and_then(|it| it.to_str().ok());
            bail!("grpc status {}: {}", status.to_str().unwrap_or("?"), message.unwrap_or(""))
        }
        Some(_) | None => Ok(()),
    }
}
