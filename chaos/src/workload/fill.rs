//! Fills a cluster with many keys, fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use proto::etcd;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::task::JoinSet;

use crate::load::wire::{Connection, encode};
use crate::numbers::{float, grouped};
use crate::report;

/// What to write.
#[derive(Clone, Debug)]
pub struct Fill {
    pub prefix: String,
    pub n_keys: u64,
    pub value_bytes: usize,
    /// Puts in one transaction.
    pub n_ops: u64,
    pub n_clients: u64,
}

/// The key of a number: 17 bytes after the prefix would be too many for a million.
#[must_use]
pub fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:010}")
}

/// Writes all keys with values of random bytes, which do not compress. Prints how far it is.
///
/// # Errors
/// A write failed ten times.
pub async fn run(fill: &Fill, endpoints: &[String]) -> Result<Duration> {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for number in 0..fill.n_clients {
        let at = usize::try_from(number)? % endpoints.len();
        let connection = Connection::open(&endpoints[at]).await?;
        clients.spawn(client(fill.clone(), connection, Arc::clone(&next), number));
    }
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    tick.tick().await;
    loop {
        tokio::select! {
            joined = clients.join_next() => match joined {
                Some(joined) => joined.context("a client panicked")??,
                None => return Ok(began.elapsed()),
            },
            _ = tick.tick() => {
                let done = next.load(Ordering::Relaxed).min(fill.n_keys);
                let left = began.elapsed().as_secs_f64() / float(done.max(1))
                    * float(fill.n_keys - done);
                report::progress(format!(
                    "{} of {} keys written, about {left:.0} s to go",
                    grouped(done),
                    grouped(fill.n_keys)
                ));
            }
        }
    }
}

async fn client(
    fill: Fill,
    connection: Connection,
    next: Arc<AtomicU64>,
    number: u64,
) -> Result<()> {
    let head = connection.head("/etcdserverpb.KV/Txn")?;
    let mut random = SmallRng::seed_from_u64(number);
    loop {
        let first = next.fetch_add(fill.n_ops, Ordering::Relaxed);
        if first >= fill.n_keys {
            return Ok(());
        }
        let last = (first + fill.n_ops).min(fill.n_keys);
        let success = (first..last)
            .map(|number| {
                let mut value = vec![0; fill.value_bytes];
                random.fill_bytes(&mut value);
                let put = etcd::PutRequest {
                    key: key(&fill.prefix, number).into(),
                    value: value.into(),
                    ..Default::default()
                };
                etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(put)) }
            })
            .collect();
        let request = encode(&etcd::TxnRequest { success, ..Default::default() });
        send(&connection, &head, &request).await?;
    }
}

/// A full queue on the other side is no reason to give up.
async fn send(
    connection: &Connection,
    head: &crate::load::wire::Head,
    request: &Bytes,
) -> Result<()> {
    let mut pause = Duration::from_millis(20);
    for _ in 0..9 {
        if connection.call(head, request.clone()).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    connection.call(head, request.clone()).await.context("a write failed ten times").map(drop)
}
