//! What is begun and never ended.

use std::time::Duration;

use bytes::Bytes;
use proto::etcd;
use proto::etcd::watch_request::RequestUnion;
use rand::Rng;
use rand::rngs::StdRng;
use tokio_stream::StreamExt;

use super::attack::Target;
use crate::client::{prefix_end, within};
use crate::load::wire::{Connection, encode};

const PATIENCE: Duration = Duration::from_secs(10);
/// All workers together; they stay until the cluster ends.
const LEASES_MAX: usize = 1_000_000;
const LEASE_WORKERS: usize = 4;
const WATCH_STREAMS: usize = 64;
const WATCHES_PER_STREAM: usize = 200;
const SNAPSHOTS: usize = 64;
/// Streams of one connection whose request stays unfinished.
const UNFINISHED: usize = 500;
/// Streams of one connection whose answer is not read.
const UNREAD: usize = 100;

/// As many leases as may be, for ever.
pub(super) async fn leases(target: Target, mut rng: StdRng) {
    const NAME: &str = "leases";
    let mut lease = target.client(&mut rng).lease();
    for _ in 0..LEASES_MAX / LEASE_WORKERS {
        if target.is_over() {
            return;
        }
        let grant = etcd::LeaseGrantRequest { ttl: 9_000_000_000, id: 0 };
        target.note(NAME, within(PATIENCE, lease.lease_grant(grant)).await).await;
    }
}

/// Streams of many watches of everything, of which nothing is read.
pub(super) async fn watchers(target: Target, mut rng: StdRng) {
    const NAME: &str = "watchers that never read";
    let mut held = Vec::new();
    for _ in 0..WATCH_STREAMS {
        let create = |n: usize| etcd::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(etcd::WatchCreateRequest {
                key: "normal/".into(),
                range_end: prefix_end("normal/"),
                start_revision: i64::from(n.is_multiple_of(2)),
                prev_kv: true,
                ..Default::default()
            })),
        };
        let requests =
            tokio_stream::iter((0..WATCHES_PER_STREAM).map(create)).chain(tokio_stream::pending());
        let mut watch = target.client(&mut rng).watch();
        match tokio::time::timeout(PATIENCE, watch.watch(requests)).await {
            Ok(Ok(stream)) => {
                target.sent(NAME);
                held.push(stream);
            }
            Ok(Err(status)) => target.note::<()>(NAME, Err(status)).await,
            Err(_elapsed) => {}
        }
        if target.is_over() {
            return;
        }
    }
    target.wait_over().await;
}

/// Snapshots that are asked for and not read.
pub(super) async fn snapshots(target: Target, mut rng: StdRng) {
    const NAME: &str = "snapshots that are never read";
    while !target.is_over() {
        let mut held = Vec::new();
        for _ in 0..SNAPSHOTS {
            let mut maintenance = target.client(&mut rng).maintenance();
            match maintenance.snapshot(etcd::SnapshotRequest {}).await {
                Ok(stream) => {
                    target.sent(NAME);
                    held.push(stream);
                }
                Err(status) => target.note::<()>(NAME, Err(status)).await,
            }
        }
        tokio::select! {
            () = target.wait_over() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

/// Ranges of everything whose answers are not read.
pub(super) async fn unread(target: Target, mut rng: StdRng) {
    const NAME: &str = "ranges that are never read";
    let all = Bytes::from_static(b"\0");
    let range = etcd::RangeRequest { key: all.clone(), range_end: all, ..Default::default() };
    let message = encode(&range);
    while !target.is_over() {
        let endpoint = target.client_port(&mut rng).to_owned();
        let Ok(connection) = Connection::open(&endpoint).await else { continue };
        let Ok(head) = connection.head("/etcdserverpb.KV/Range") else { return };
        let mut held = Vec::new();
        for _ in 0..UNREAD {
            let Ok((answer, mut body)) = connection.begin(&head).await else { break };
            if body.send_data(message.clone(), true).is_err() {
                break;
            }
            target.sent(NAME);
            held.push(answer);
        }
        tokio::select! {
            () = target.wait_over() => return,
            () = tokio::time::sleep(Duration::from_secs(15)) => {}
        }
    }
}

/// Requests whose message is announced, begun and never complete.
pub(super) async fn unfinished(target: Target, mut rng: StdRng) {
    const NAME: &str = "requests that never end";
    while !target.is_over() {
        let endpoint = target.client_port(&mut rng).to_owned();
        let Ok(connection) = Connection::open(&endpoint).await else { continue };
        let Ok(head) = connection.head("/etcdserverpb.KV/Put") else { return };
        let mut held = Vec::new();
        for _ in 0..UNFINISHED {
            let Ok((answer, mut body)) = connection.begin(&head).await else { break };
            let announced = [0, 0, 0x10, 0, 0];
            let begun = [&announced[..], &vec![7; rng.random_range(0..10_000)]].concat();
            if body.send_data(Bytes::from(begun), false).is_err() {
                break;
            }
            target.sent(NAME);
            held.push((answer, body));
        }
        tokio::select! {
            () = target.wait_over() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}
