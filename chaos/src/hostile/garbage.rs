//! Bytes that are no request at all, and frames that are too many.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use proto::etcd;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;

use super::attack::Target;
use crate::load::wire::Connection;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Held at once.
const SILENT: usize = 3_000;
const PATIENCE: Duration = Duration::from_secs(2);

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u32::try_from(payload.len()).expect("attacks send small frames");
    bytes.put_slice(&length.to_be_bytes()[1..]);
    bytes.put_slice(&[kind, flags]);
    bytes.put_u32(stream);
    bytes.put_slice(payload);
    bytes
}

/// Connections to every port that send nothing, or the beginning of something.
pub(super) async fn silent(target: Target, mut rng: StdRng) {
    const NAME: &str = "silent connections";
    while !target.is_over() {
        let mut held = Vec::new();
        while held.len() < SILENT && !target.is_over() {
            let port = target.port(&mut rng).to_owned();
            let Ok(Ok(mut socket)) = tokio::time::timeout(PATIENCE, TcpStream::connect(port)).await
            else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let settings = frame(4, 0, 0, &[]);
            let begun = match rng.random_range(0..5) {
                0 => PREFACE[..rng.random_range(1..PREFACE.len())].to_vec(),
                1 => [PREFACE, &settings].concat(),
                2 => b"GET / HTTP/1.1\r\nhost: ".to_vec(),
                _ => Vec::new(),
            };
            let _ = socket.write_all(&begun).await;
            target.sent(NAME);
            held.push(socket);
        }
        tokio::select! {
            () = target.wait_over() => return,
            () = tokio::time::sleep(Duration::from_secs(8)) => {}
        }
    }
}

/// Random bytes, and mutated beginnings of real protocols.
pub(super) async fn junk(target: Target, mut rng: StdRng) {
    const NAME: &str = "garbage on every port";
    while !target.is_over() {
        let port = target.port(&mut rng).to_owned();
        let mut bytes = vec![0; rng.random_range(1..20_000)];
        rng.fill_bytes(&mut bytes);
        let sent = match rng.random_range(0..4) {
            0 => bytes,
            1 => [PREFACE, &bytes].concat(),
            2 => {
                let kind = rng.random_range(0..12);
                let headers = frame(
                    kind,
                    rng.random(),
                    rng.random_range(0..5),
                    &bytes[..bytes.len().min(9000)],
                );
                [PREFACE, &frame(4, 0, 0, &[]), &headers].concat()
            }
            _ => [b"POST /v3/kv/put HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", &bytes[..]]
                .concat(),
        };
        if let Ok(Ok(mut socket)) = tokio::time::timeout(PATIENCE, TcpStream::connect(port)).await {
            target.sent(NAME);
            let _ = socket.write_all(&sent).await;
            let mut answer = [0; 1024];
            let _ = tokio::time::timeout(Duration::from_millis(50), socket.read(&mut answer)).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// As many frames as go out: pings, settings, empty data, streams that are reset at once.
pub(super) async fn floods(target: Target, mut rng: StdRng) {
    const NAME: &str = "floods of frames";
    while !target.is_over() {
        let port = target.port(&mut rng).to_owned();
        let Ok(Ok(mut socket)) = tokio::time::timeout(PATIENCE, TcpStream::connect(port)).await
        else {
            continue;
        };
        let kind = rng.random_range(0..4);
        let mut sent = [PREFACE, &frame(4, 0, 0, &[])].concat();
        // `:method: POST`, `:scheme: http`, `:path: /`, an authority.
        let block = [0x83, 0x86, 0x84, 0x41, 1, b'a'];
        if kind == 2 {
            sent.extend_from_slice(&frame(1, 4, 1, &block));
        }
        for n in 0..20_000_u32 {
            match kind {
                0 => sent.extend_from_slice(&frame(6, 0, 0, &[7; 8])),
                1 => sent.extend_from_slice(&frame(4, 0, 0, &[])),
                2 => sent.extend_from_slice(&frame(0, 0, 1, &[])),
                _ => {
                    sent.extend_from_slice(&frame(1, 4, n * 2 + 1, &block));
                    sent.extend_from_slice(&frame(3, 0, n * 2 + 1, &[0, 0, 0, 8]));
                }
            }
        }
        target.sent(NAME);
        let _ = tokio::time::timeout(PATIENCE, socket.write_all(&sent)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Methods and paths that are not there, and messages that are none.
pub(super) async fn unknown(target: Target, mut rng: StdRng) {
    const NAME: &str = "unknown methods and paths";
    let paths = [
        "/etcdserverpb.KV/Nonsense",
        "/v3lockpb.Lock/Lock",
        "/v3/kv/put",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.Lease/LeaseGrant",
        "/milvus.proto.data.DataCoord/AssignSegmentID",
        "/quorate.admin.v1.Admin/Backup",
        "/",
    ];
    while !target.is_over() {
        let endpoint = target.port(&mut rng).to_owned();
        let opened = tokio::time::timeout(PATIENCE, Connection::open(&endpoint)).await;
        let Ok(Ok(connection)) = opened else { continue };
        for _ in 0..50 {
            let path = paths[rng.random_range(0..paths.len())];
            let Ok(head) = connection.head(path) else { return };
            let mut message = vec![0; rng.random_range(0..500)];
            rng.fill_bytes(&mut message);
            let length = u32::try_from(message.len()).expect("it is small").to_be_bytes();
            let message = Bytes::from([&[0][..], &length, &message].concat());
            match tokio::time::timeout(PATIENCE, connection.call(&head, message)).await {
                Ok(Ok(_answer)) => target.sent(NAME),
                Ok(Err(error)) => {
                    target.note::<()>(NAME, Err(Status::unknown(error.to_string()))).await;
                }
                Err(_elapsed) => break,
            }
        }
        // A well-formed call in between: the connection of a client that also errs.
        let mut lease = target.client(&mut rng).lease();
        let asked = lease.lease_leases(etcd::LeaseLeasesRequest {});
        target.note(NAME, crate::client::within(PATIENCE, asked).await).await;
    }
}
