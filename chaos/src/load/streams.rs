//! Watches and keep-alives of the load generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Buf;
use prost::Message;
use proto::etcd;
use proto::etcd::watch_request::RequestUnion;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::requests::VALUE_BYTES;
use super::wire::{Connection, Incoming, encode};
use super::{Latencies, LoadOptions, Meter, latencies};
use crate::numbers::micros;

const PREFIX: &str = "watched/";
/// Puts whose events are still on their way to some watcher.
const PUTS_IN_FLIGHT: usize = 8;
const LEASE_TTL_S: i64 = 60;

/// One client with a lease and a stream of its own.
pub(super) async fn keep_alive(connection: Connection, meter: Arc<Meter>) -> Result<Latencies> {
    let grant = etcd::LeaseGrantRequest { ttl: LEASE_TTL_S, id: 0 };
    let answer = connection
        .call(&connection.head("/etcdserverpb.Lease/LeaseGrant")?, encode(&grant))
        .await?;
    let id = etcd::LeaseGrantResponse::decode(answer)?.id;
    let head = connection.head("/etcdserverpb.Lease/LeaseKeepAlive")?;
    let (mut requests, response) = connection.stream(&head).await?;
    requests.send(&etcd::LeaseKeepAliveRequest { id })?;
    let mut answers = Incoming::open(response).await?;
    answers.next::<etcd::LeaseKeepAliveResponse>().await?;
    let mut latencies = latencies();
    while meter.goes_on() {
        let began = Instant::now();
        requests.send(&etcd::LeaseKeepAliveRequest { id })?;
        let answer: etcd::LeaseKeepAliveResponse = answers.next().await?;
        ensure!(answer.ttl > 0, "lease {id:x} is gone");
        meter.record(&mut latencies, began);
    }
    let revoke = etcd::LeaseRevokeRequest { id };
    connection.call(&connection.head("/etcdserverpb.Lease/LeaseRevoke")?, encode(&revoke)).await?;
    Ok(latencies)
}

/// All watchers, spread over the connections with one stream on each, and one writer that keeps a
/// few puts in flight. A put is done when every watcher has it.
pub(super) async fn watch(
    clients: &mut JoinSet<Result<Latencies>>,
    connections: &[Connection],
    options: &LoadOptions,
    meter: &Arc<Meter>,
) -> Result<()> {
    let delivery = Arc::new(Delivery {
        start: Instant::now(),
        n_watchers: u64::try_from(options.n_watchers)?,
        n_events: AtomicU64::new(0),
        permits: Semaphore::new(PUTS_IN_FLIGHT),
    });
    for (number, connection) in connections.iter().enumerate() {
        let n_here = options.n_watchers / connections.len()
            + usize::from(number < options.n_watchers % connections.len());
        if n_here > 0 {
            let answers = open_watches(connection, n_here).await.context("opening the watches")?;
            clients.spawn(receive(answers, Arc::clone(&delivery), Arc::clone(meter)));
        }
    }
    for _ in 0..options.n_clients.clamp(1, PUTS_IN_FLIGHT) {
        clients.spawn(write(connections[0].clone(), Arc::clone(&delivery), Arc::clone(meter)));
    }
    Ok(())
}

struct Delivery {
    start: Instant,
    n_watchers: u64,
    n_events: AtomicU64,
    permits: Semaphore,
}

async fn open_watches(connection: &Connection, n_watches: usize) -> Result<Incoming> {
    let (mut requests, response) =
        connection.stream(&connection.head("/etcdserverpb.Watch/Watch")?).await?;
    for _ in 0..n_watches {
        let create = etcd::WatchCreateRequest {
            key: PREFIX.into(),
            range_end: crate::client::prefix_end(PREFIX),
            ..Default::default()
        };
        requests.send(&etcd::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        })?;
    }
    let mut answers = Incoming::open(response).await?;
    answers.keep(requests);
    for _ in 0..n_watches {
        let answer: etcd::WatchResponse = answers.next().await?;
        ensure!(answer.created && !answer.canceled, "a watch was refused: {answer:?}");
    }
    Ok(answers)
}

async fn receive(
    mut answers: Incoming,
    delivery: Arc<Delivery>,
    meter: Arc<Meter>,
) -> Result<Latencies> {
    let mut latencies = latencies();
    while meter.goes_on() {
        // Nothing comes any more when the writer has stopped.
        let Ok(answer) =
            tokio::time::timeout_at(meter.until.into(), answers.next::<etcd::WatchResponse>())
                .await
        else {
            break;
        };
        for event in answer?.events {
            let mut value = event.kv.map(|pair| pair.value).unwrap_or_default();
            ensure!(value.len() >= 8, "an event without its time");
            let sent = delivery.start + std::time::Duration::from_micros(value.get_u64());
            meter.record(&mut latencies, sent);
            let n_events = delivery.n_events.fetch_add(1, Ordering::Relaxed) + 1;
            if n_events.is_multiple_of(delivery.n_watchers) {
                delivery.permits.add_permits(1);
            }
        }
    }
    Ok(latencies)
}

async fn write(
    connection: Connection,
    delivery: Arc<Delivery>,
    meter: Arc<Meter>,
) -> Result<Latencies> {
    let head = connection.head("/etcdserverpb.KV/Put")?;
    while meter.goes_on() {
        let Ok(permit) =
            tokio::time::timeout_at(meter.until.into(), delivery.permits.acquire()).await
        else {
            break;
        };
        permit.context("the semaphore is never closed")?.forget();
        let mut value = micros(delivery.start.elapsed()).to_be_bytes().to_vec();
        value.resize(VALUE_BYTES, b'v');
        let key = format!("{PREFIX}key").into();
        let request = etcd::PutRequest { key, value: value.into(), ..Default::default() };
        if let Err(error) = connection.call(&head, encode(&request)).await {
            meter.fail(&error).await;
        }
    }
    Ok(latencies())
}
