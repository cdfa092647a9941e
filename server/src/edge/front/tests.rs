use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const PING_MIN: Duration = Duration::from_secs(5);

/// A client that writes bytes, in front of a server that answers each request with its path and
/// authority.
struct Client {
    stream: DuplexStream,
    speech: Speech,
    /// Read and not yet looked at.
    read: Vec<u8>,
}

impl Client {
    fn connect() -> Client {
        Client::connect_with(PING_MIN)
    }

    fn connect_with(ping_min: Duration) -> Client {
        let (stream, served) = tokio::io::duplex(1 << 20);
        let front = Front::new(served, ping_min);
        let speech = front.speech();
        Client::serve(front);
        Client { stream, speech, read: Vec::new() }
    }

    /// In front of the server without anything between them.
    fn connect_bare() -> Client {
        let (stream, served) = tokio::io::duplex(1 << 20);
        Client::serve(served);
        Client { stream, speech: Speech::default(), read: Vec::new() }
    }

    fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        tokio::spawn(async move {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let said = format!("{} at {:?}", request.uri().path(), request.uri().authority());
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(said))))
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The preface and empty settings.
    async fn open(&mut self) {
        self.send(PREFACE).await;
        self.send(&frame(frames::SETTINGS, 0, 0, &[])).await;
    }

    /// The next frame of the server; `None` at the end.
    async fn frame(&mut self) -> Option<(Head, Vec<u8>)> {
        loop {
            if let Some(head) = Head::peek(&self.read)
                && self.read.len() >= HEAD_BYTES + head.payload_bytes
            {
                let payload = self.read[HEAD_BYTES..HEAD_BYTES + head.payload_bytes].to_vec();
                self.read.drain(..HEAD_BYTES + head.payload_bytes);
                return Some((head, payload));
            }
            let mut chunk = [0; 4096];
            let patience = Duration::from_secs(10);
            let n_bytes = tokio::time::timeout(patience, self.stream.read(&mut chunk)).await;
            match n_bytes.expect("the server answers").unwrap() {
                0 => return None,
                n_bytes => self.read.extend_from_slice(&chunk[..n_bytes]),
            }
        }
    }

    /// The body of the answer on a stream, or the code that it was reset with.
    async fn answer(&mut self, stream: u32) -> Result<String, u32> {
        let mut body = Vec::new();
        while let Some((head, payload)) = self.frame().await {
            match head.kind {
                0x3 if head.stream == stream => {
                    return Err(u32::from_be_bytes(payload.try_into().unwrap()));
                }
                frames::GOAWAY => {
                    return Err(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
                frames::DATA if head.stream == stream => body.extend_from_slice(&payload),
                _ => {}
            }
            if head.stream == stream && head.flags & frames::END_STREAM != 0 {
                return Ok(String::from_utf8(body).unwrap());
            }
        }
        panic!("the connection ended without an answer");
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Head { payload_bytes: payload.len(), kind, flags, stream }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn fields(authority: &str, path: &str) -> Vec<Field> {
    let field = |name: &str, value: &str| Field { name: name.into(), value: value.into() };
    vec![
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", authority),
        field("content-type", "application/grpc"),
    ]
}

const WHOLE: u8 = frames::END_HEADERS | frames::END_STREAM;

/// What clients in use send: Go's clientv3 3.5.0, grpc-core with several endpoints, one without
/// a name, and what a careless configuration makes.
const UNUSUAL: [&str; 6] =
    ["#initially=[127.0.0.1:2379]", "ipv4:10.0.0.1:2379,10.0.0.2:2379", "", "%2F", "a b", "ä"];

#[tokio::test]
async fn a_call_with_any_authority_is_answered() {
    for authority in UNUSUAL {
        let mut client = Client::connect();
        client.open().await;
        for stream in [1, 3, 5] {
            let block = encode(&fields(authority, "/path"));
            client.send(&frame(frames::HEADERS, WHOLE, stream, &block)).await;
            let said = client.answer(stream).await;
            assert_eq!(said.as_deref(), Ok("/path at Some(localhost)"), "{authority:?}");
        }
    }
}

/// Why there is a front at all: should this fail, the rewriting is not needed any more.
#[tokio::test]
async fn the_server_alone_resets_such_a_call() {
    const PROTOCOL_ERROR: u32 = 1;
    for authority in UNUSUAL {
        let mut client = Client::connect_bare();
        client.open().await;
        let block = encode(&fields(authority, "/path"));
        client.send(&frame(frames::HEADERS, WHOLE, 1, &block)).await;
        assert_eq!(client.answer(1).await, Err(PROTOCOL_ERROR), "{authority:?}");
    }
}

#[tokio::test]
async fn a_usual_authority_stays_as_it_is_however_its_bytes_arrive() {
    for step in [1, 10, 4096] {
        let mut client = Client::connect();
        let block = encode(&fields("[::1]:2379", "/usual"));
        let bytes = [
            PREFACE.to_vec(),
            frame(frames::SETTINGS, 0, 0, &[]),
            frame(frames::HEADERS, WHOLE, 1, &block),
            frame(frames::HEADERS, WHOLE, 3, &block),
        ];
        for piece in bytes.concat().chunks(step) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        for stream in [1, 3] {
            assert_eq!(client.answer(stream).await.as_deref(), Ok("/usual at Some([::1]:2379)"));
        }
    }
}

#[tokio::test]
async fn tables_padding_priority_and_continuations_survive_the_rewriting() {
    let mut client = Client::connect();
    client.open().await;
    // `:method: POST`, `:scheme: http`, then literals that enter the table: the authority and the
    // path, which the second request names by their places.
    let mut first = vec![0x83, 0x86, 0x41, 2, b'a', b' ', 0x44, 6];
    first.extend_from_slice(b"/first");
    let padded = [&[3, 0, 0, 0, 0, 16][..], &first[..5]].concat();
    let padded = [&padded[..], &[0, 0, 0][..]].concat();
    let flags = frames::END_STREAM | frames::PADDED | frames::PRIORITY;
    client.send(&frame(frames::HEADERS, flags, 1, &padded)).await;
    client.send(&frame(frames::CONTINUATION, 0, 1, &first[5..6])).await;
    client.send(&frame(frames::CONTINUATION, 0, 1, &[])).await;
    client.send(&frame(frames::CONTINUATION, frames::END_HEADERS, 1, &first[6..])).await;
    assert_eq!(client.answer(1).await.as_deref(), Ok("/first at Some(localhost)"));
    // 62 is the path, 63 the authority.
    client.send(&frame(frames::HEADERS, frames::END_HEADERS, 3, &[0x83, 0x86, 0xbe, 0xbf])).await;
    client.send(&frame(frames::DATA, 0, 3, &[0; 3000])).await;
    // A trailer.
    let trailer = encode(&[Field { name: b"end".to_vec(), value: vec![b'v'; 9000] }]);
    client.send(&frame(frames::HEADERS, WHOLE, 3, &trailer)).await;
    assert_eq!(client.answer(3).await.as_deref(), Ok("/first at Some(localhost)"));
}

#[tokio::test]
async fn a_block_that_breaks_the_rules_ends_the_connection() {
    let good = encode(&fields("a b", "/"));
    for bad in [
        frame(frames::HEADERS, WHOLE, 3, &[0xff; 40]),
        frame(frames::HEADERS, WHOLE | frames::PADDED, 3, &[200, 0]),
        [frame(frames::HEADERS, 0, 3, &[0x83]), frame(frames::PING, 0, 0, &[0; 8])].concat(),
        [frame(frames::HEADERS, 0, 3, &[]), frame(frames::CONTINUATION, 0, 3, &[]).repeat(8000)]
            .concat(),
        frame(frames::HEADERS, WHOLE, 3, &vec![0; PAYLOAD_BYTES_MAX + 1]),
    ] {
        let mut client = Client::connect();
        client.open().await;
        client.send(&frame(frames::HEADERS, WHOLE, 1, &good)).await;
        assert_eq!(client.answer(1).await.as_deref(), Ok("/ at Some(localhost)"));
        // It may end before all is written.
        let _ = client.stream.write_all(&bad).await;
        while client.frame().await.is_some() {}
    }
}

#[tokio::test]
async fn a_connection_says_whether_anything_that_makes_sense_came() {
    let mut client = Client::connect();
    // The beginning of the preface is not yet a word.
    client.send(&PREFACE[..20]).await;
    tokio::task::yield_now().await;
    assert!(!client.speech.has_begun());
    client.send(&PREFACE[20..]).await;
    client.send(&frame(frames::SETTINGS, 0, 0, &[])).await;
    // The server's settings, and that it has read the client's.
    client.frame().await.unwrap();
    client.frame().await.unwrap();
    assert!(client.speech.has_begun());
}

#[tokio::test]
async fn http_1_passes() {
    let mut client = Client::connect();
    client.send(b"GET /page HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let mut answer = String::new();
    client.stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("200 OK") && answer.ends_with("/page at None"), "{answer}");
    assert!(client.speech.has_begun());
}

/// Sends a ping `n_pings` times and takes the answers; the code of the end.
async fn ping(client: &mut Client, n_pings: u32) -> Result<(), u32> {
    for _ in 0..n_pings {
        client.send(&frame(frames::PING, 0, 0, &[7; 8])).await;
        loop {
            match client.frame().await {
                Some((head, _)) if head.kind == frames::PING => break,
                Some((head, payload)) if head.kind == frames::GOAWAY => {
                    assert_eq!(&payload[8..], TOO_MANY_PINGS);
                    return Err(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
                Some(_) => {}
                None => panic!("it ended without a word"),
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_pings_ends_its_connection_and_one_that_asks_for_something_is_none() {
    let mut client = Client::connect();
    client.open().await;
    assert_eq!(ping(&mut client, 100).await, Err(ENHANCE_YOUR_CALM));
    // In the midst of requests, and where they are written again.
    for authority in ["host", "a b"] {
        let mut client = Client::connect();
        client.open().await;
        let block = encode(&fields(authority, "/"));
        for stream in 1..100 {
            assert_eq!(ping(&mut client, 4).await, Ok(()));
            client.send(&frame(frames::HEADERS, WHOLE, stream * 2 - 1, &block)).await;
            client.answer(stream * 2 - 1).await.unwrap();
        }
        assert_eq!(ping(&mut client, 100).await, Err(ENHANCE_YOUR_CALM));
    }
}

#[tokio::test]
async fn an_idle_client_may_ping_for_ever_at_its_pace() {
    // No ping is too early.
    let mut client = Client::connect_with(Duration::ZERO);
    client.open().await;
    assert_eq!(ping(&mut client, 1000).await, Ok(()));
}
