//! A closed-loop load generator for any etcd v3 endpoints.
//!
//! It shares the machine with what it measures, so it is cheap: one thread, a few connections, and
//! HTTP/2 frames of its own instead of a client library. Its own CPU time is part of the report.

pub mod requests;
pub mod streams;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::cluster::usage::{cpu_time, cpu_time_of_all};
use crate::numbers::{float, micros};
use wire::Connection;

/// What every client does over and over.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// 256 bytes under one of 10,000 keys of 8 bytes.
    Put,
    /// Linearizable read of one of those keys.
    Get,
    /// The same read, answered from what the node has applied.
    GetSerializable,
    /// Linearizable read of 1,000 keys of 256 bytes.
    Range,
    /// One transaction of 10 puts of 256 bytes.
    Txn,
    /// `--watchers` watchers on one prefix; the rate is events delivered.
    Watch,
    /// A keep-alive on a lease and stream of the client's own.
    KeepAlive,
}

impl Op {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Get => "get",
            Op::GetSerializable => "get-serializable",
            Op::Range => "range",
            Op::Txn => "txn",
            Op::Watch => "watch",
            Op::KeepAlive => "keep-alive",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// `host:port` of every node; calls go to all of them in turn.
    pub endpoints: Vec<String>,
    pub op: Op,
    pub n_clients: usize,
    /// Connections over all endpoints.
    pub n_connections: usize,
    pub n_watchers: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// Servers whose CPU time is measured.
    pub pids: Vec<u32>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadReport {
    pub op: String,
    pub n_clients: usize,
    pub n_operations: u64,
    pub n_errors: u64,
    pub first_error: Option<String>,
    pub per_second: f64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// This program's CPU time per operation.
    pub client_cpu_us: f64,
    /// CPU time of all servers per operation.
    pub server_cpu_us: Option<f64>,
}

/// What the clients of one measurement share.
#[derive(Debug)]
pub struct Meter {
    from: Instant,
    until: Instant,
    errors: AtomicU64,
    first_error: std::sync::Mutex<Option<String>>,
}

/// Latencies of one client in microseconds.
pub type Latencies = Histogram<u32>;

fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 120_000_000, 2).expect("the bounds are constants that are right")
}

impl Meter {
    /// False when the time is up.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// Counts an operation that began at `began` and ends now, where it ends in the measured time.
    pub fn record(&self, latencies: &mut Latencies, began: Instant) {
        let now = Instant::now();
        if now >= self.from && now < self.until {
            latencies.saturating_record(micros(now - began).max(1));
        }
    }

    /// Counts a failed call and keeps the first text.
    pub async fn fail(&self, error: &anyhow::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut first) = self.first_error.lock() {
            first.get_or_insert_with(|| format!("{error:#}"));
        }
        // A server that refuses everything must not make us spin.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs one measurement.
///
/// # Errors
/// No connection, no data to read, or every single call failed.
pub async fn run(options: &LoadOptions) -> Result<LoadReport> {
    ensure!(!options.endpoints.is_empty(), "no endpoints");
    let n_connections = options.n_connections.max(options.endpoints.len());
    let mut connections = Vec::with_capacity(n_connections);
    for number in 0..n_connections {
        let endpoint = &options.endpoints[number % options.endpoints.len()];
        let connection = Connection::open(endpoint);
        connections.push(connection.await.with_context(|| format!("connecting to {endpoint}"))?);
    }
    let connections = Arc::new(connections);
    requests::prepare(&connections, options.op).await.context("loading the data to read")?;
    let from = Instant::now() + options.warm_up;
    let meter = Arc::new(Meter {
        from,
        until: from + options.duration,
        errors: AtomicU64::new(0),
        first_error: std::sync::Mutex::new(None),
    });
    let mut clients = JoinSet::new();
    match options.op {
        Op::Put | Op::Get | Op::GetSerializable | Op::Range | Op::Txn => {
            for number in 0..options.n_clients {
                let calls = requests::Calls::new(options.op, number);
                let (connections, meter) = (Arc::clone(&connections), Arc::clone(&meter));
                clients.spawn(requests::run(calls, connections, meter));
            }
        }
        Op::KeepAlive => {
            for number in 0..options.n_clients {
                let connection = connections[number % connections.len()].clone();
                clients.spawn(streams::keep_alive(connection, Arc::clone(&meter)));
            }
        }
        Op::Watch => {
            streams::watch(&mut clients, &connections, options, &meter).await?;
        }
    }
    tokio::time::sleep_until(meter.from.into()).await;
    let cpu =
        || -> Result<_> { Ok((cpu_time(std::process::id())?, cpu_time_of_all(&options.pids)?)) };
    let (client_before, server_before) = cpu()?;
    tokio::time::sleep_until(meter.until.into()).await;
    let (client_after, server_after) = cpu()?;
    let mut all = latencies();
    let grace = tokio::time::sleep(Duration::from_secs(30));
    tokio::pin!(grace);
    loop {
        tokio::select! {
            joined = clients.join_next() => match joined {
                Some(joined) => all.add(joined.context("a client panicked")??)?,
                None => break,
            },
            () = &mut grace => bail!("{} clients still hang 30 s after the end", clients.len()),
        }
    }
    let n_operations = all.len();
    let first_error = meter.first_error.lock().ok().and_then(|first| first.clone());
    if n_operations == 0 {
        bail!("no operation succeeded: {}", first_error.unwrap_or_default());
    }
    let per_operation = |spent: Duration| float(micros(spent)) / float(n_operations);
    Ok(LoadReport {
        op: options.op.name().to_owned(),
        n_clients: options.n_clients,
        n_operations,
        n_errors: meter.errors.load(Ordering::Relaxed),
        first_error,
        per_second: float(n_operations) / options.duration.as_secs_f64(),
        mean_us: all.mean(),
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
        p999_us: all.value_at_quantile(0.999),
        max_us: all.max(),
        client_cpu_us: per_operation(client_after - client_before),
        server_cpu_us: (!options.pids.is_empty())
            .then(|| per_operation(server_after - server_before)),
    })
}

impl LoadReport {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let server = self.server_cpu_us.map_or(String::new(), |us| format!(", server {us:.1} us"));
        let errors = match &self.first_error {
            Some(first) => format!("; {} ERRORS, first: {first}", self.n_errors),
            None => String::new(),
        };
        format!(
            "{:<16} {:>4} clients: {:>9.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms; CPU per \
             operation: client {:.1} us{server}{errors}",
            self.op,
            self.n_clients,
            self.per_second,
            float(self.p50_us) / 1e3,
            float(self.p99_us) / 1e3,
            float(self.max_us) / 1e3,
            self.client_cpu_us,
        )
    }
}
