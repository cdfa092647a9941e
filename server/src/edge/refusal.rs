//! What a connection hears that finds all places taken.

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::{self, Head, PREFACE};

const ENHANCE_YOUR_CALM: u32 = 0xb;
const TEXT: &str = "all connections of this listener are taken: try another node, or later";
/// What a client may have sent before it reads: without reading it the answer could be lost.
const UNREAD_BYTES_MAX: u64 = 64 << 10;

/// Says why in the client's own protocol, and ends the connection. Takes as long as the client
/// does: callers bound it.
pub(super) async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut first = [0; 3];
    if stream.read_exact(&mut first).await.is_err() {
        return;
    }
    let text = match PREFACE.starts_with(&first) {
        true => go_away(),
        false => unavailable(),
    };
    // A client that has gone does not need it.
    if stream.write_all(&text).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = stream.take(UNREAD_BYTES_MAX);
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

fn go_away() -> Vec<u8> {
    let mut bytes = Vec::new();
    Head { payload_bytes: 0, kind: frames::SETTINGS, flags: 0, stream: 0 }.write(&mut bytes);
    let payload_bytes = 8 + TEXT.len();
    Head { payload_bytes, kind: frames::GOAWAY, flags: 0, stream: 0 }.write(&mut bytes);
    bytes.put_u32(0);
    bytes.put_u32(ENHANCE_YOUR_CALM);
    bytes.put_slice(TEXT.as_bytes());
    bytes
}

fn unavailable() -> Vec<u8> {
    let length = TEXT.len() + 1;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: text/plain\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{TEXT}\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(sent: &[u8]) -> Vec<u8> {
        let (mut client, served) = tokio::io::duplex(1 << 16);
        client.write_all(sent).await.unwrap();
        let answering = tokio::spawn(answer(served));
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        drop(client);
        answering.await.unwrap();
        told
    }

    #[tokio::test]
    async fn each_protocol_hears_it_in_its_own_way() {
        let http1 = String::from_utf8(told(b"GET / HTTP/1.1\r\n\r\n").await).unwrap();
        assert!(http1.starts_with("HTTP/1.1 503 ") && http1.ends_with("later\n"), "{http1}");
        let http2 = told(PREFACE).await;
        let head = Head::peek(&http2[frames::HEAD_BYTES..]).unwrap();
        assert_eq!(head.kind, frames::GOAWAY);
        assert!(http2.ends_with(TEXT.as_bytes()));
    }
}
