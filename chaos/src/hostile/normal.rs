//! Clients that do nothing wrong: they are to notice as little as possible.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::Ping;
use h2::client::SendRequest;
use hdrhistogram::Histogram;
use tokio::task::{JoinHandle, JoinSet};

use crate::client::Client;
use crate::numbers::{float, grouped, micros};

/// An answer that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(10);
const THINK: Duration = Duration::from_millis(20);
/// Between two clients that connect, ask once and leave.
const BETWEEN_CONNECTS: Duration = Duration::from_millis(100);
/// A server may refuse pings that come closer than five seconds.
const PING_EVERY: Duration = Duration::from_secs(6);
/// Errors of a window whose text is kept.
const SHOWN_MAX: usize = 5;

/// Normal clients that go on until they are concluded.
pub(super) struct Normal {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    idle: JoinHandle<Option<String>>,
}

struct Shared {
    over: AtomicBool,
    number: AtomicU64,
    window: Mutex<Seen>,
}

struct Seen {
    latencies: Histogram<u64>,
    n_errors: u64,
    errors: Vec<String>,
}

/// What the clients saw since the last look.
pub(super) struct Window {
    pub(super) n_calls: u64,
    pub(super) n_errors: u64,
    pub(super) errors: Vec<String>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Window {
    pub(super) fn summary(&self) -> String {
        format!(
            "{} calls, p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms, {} errors",
            grouped(self.n_calls),
            self.p50_ms,
            self.p99_ms,
            self.max_ms,
            self.n_errors
        )
    }
}

impl Normal {
    /// Starts a writer, a reader and one that connects each time at every node, and one client
    /// that only pings.
    pub(super) async fn start(nodes: &[Client]) -> Result<Normal> {
        let window = Seen {
            latencies: Histogram::new_with_bounds(1, 60_000_000, 3)?,
            n_errors: 0,
            errors: Vec::new(),
        };
        let shared = Arc::new(Shared {
            over: AtomicBool::new(false),
            number: AtomicU64::new(0),
            window: Mutex::new(window),
        });
        let mut clients = JoinSet::new();
        for node in nodes {
            clients.spawn(write(node.reconnected()?, Arc::clone(&shared)));
            clients.spawn(read(node.reconnected()?, Arc::clone(&shared)));
            clients.spawn(connect(node.clone(), Arc::clone(&shared)));
        }
        let idle = Idle::connect(nodes[0].endpoint()).await?;
        let idle = tokio::spawn(idle.stay(Arc::clone(&shared)));
        Ok(Normal { shared, clients, idle })
    }

    /// What happened since the start or the last call.
    pub(super) fn take(&mut self) -> Window {
        let mut seen = self.shared.window.lock().expect("no client panics with the lock");
        let ms = |quantile: f64| float(seen.latencies.value_at_quantile(quantile)) / 1e3;
        let window = Window {
            n_calls: seen.latencies.len(),
            n_errors: seen.n_errors,
            errors: seen.errors.clone(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: float(seen.latencies.max()) / 1e3,
        };
        seen.latencies.reset();
        seen.n_errors = 0;
        seen.errors.clear();
        window
    }

    /// Waits for the last answers; why the client that only pinged lost its connection, if it did.
    pub(super) async fn conclude(mut self) -> Result<Option<String>> {
        self.shared.over.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.transpose().context("a client panicked")?.is_some() {}
        self.idle.await.context("the idle client panicked")
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    async fn call<T>(&self, what: &str, call: impl Future<Output = Result<T, tonic::Status>>) {
        let began = Instant::now();
        let outcome = call.await;
        let mut seen = self.window.lock().expect("no client panics with the lock");
        match outcome {
            Ok(_) => seen.latencies.saturating_record(micros(began.elapsed()).max(1)),
            Err(status) => {
                seen.n_errors += 1;
                if seen.errors.len() < SHOWN_MAX {
                    seen.errors.push(format!("{what}: {:?} {}", status.code(), status.message()));
                }
            }
        }
    }
}

async fn write(client: Client, shared: Arc<Shared>) {
    while !shared.is_over() {
        let number = shared.number.fetch_add(1, Ordering::Relaxed);
        let put =
            client.put(format!("normal/{:04}", number % 1000), format!("{number:0200}"), PATIENCE);
        shared.call("put", put).await;
        tokio::time::sleep(THINK).await;
    }
}

async fn read(client: Client, shared: Arc<Shared>) {
    while !shared.is_over() {
        let number = shared.number.load(Ordering::Relaxed);
        let key = format!("normal/{:04}", number % 1000);
        shared.call("get", client.get(&key, PATIENCE)).await;
        tokio::time::sleep(THINK).await;
    }
}

async fn connect(client: Client, shared: Arc<Shared>) {
    while !shared.is_over() {
        let fresh = client.reconnected().expect("its endpoint was used before");
        shared.call("connect and get", fresh.get("normal/0000", PATIENCE)).await;
        tokio::time::sleep(BETWEEN_CONNECTS).await;
    }
}

/// A client that asks once, then only pings, and asks again at the end.
struct Idle {
    sender: SendRequest<Bytes>,
    pings: h2::PingPong,
    /// Ends with the connection.
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Idle {
    async fn connect(endpoint: &str) -> Result<Idle> {
        let socket = tokio::net::TcpStream::connect(endpoint).await?;
        let (sender, mut connection) = h2::client::handshake(socket).await?;
        let pings = connection.ping_pong().context("the pings of a new connection")?;
        let connection = tokio::spawn(connection);
        let mut idle = Idle { sender, pings, connection };
        idle.ask().await?;
        Ok(idle)
    }

    /// Any call will do.
    async fn ask(&mut self) -> Result<()> {
        let request = http::Request::post("http://idle/etcdserverpb.Maintenance/Status")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut body) = self.sender.clone().ready().await?.send_request(request, false)?;
        body.send_data(Bytes::from_static(&[0; 5]), true)?;
        let answer = tokio::time::timeout(PATIENCE, answer).await.context("no answer")??;
        anyhow::ensure!(answer.status() == 200, "the answer is {}", answer.status());
        Ok(())
    }

    /// What ended the connection before its time, if something did.
    async fn stay(mut self, shared: Arc<Shared>) -> Option<String> {
        let mut pinged = Instant::now();
        while !shared.is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if self.connection.is_finished() {
                return Some(match self.connection.await {
                    Ok(Ok(())) => "it was closed".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                });
            }
            if pinged.elapsed() >= PING_EVERY {
                pinged = Instant::now();
                match tokio::time::timeout(PATIENCE, self.pings.ping(Ping::opaque())).await {
                    Ok(Ok(_pong)) => {}
                    Ok(Err(error)) => return Some(error.to_string()),
                    Err(_elapsed) => return Some("a ping was not answered".to_owned()),
                }
            }
        }
        self.ask().await.err().map(|error| format!("{error:#}"))
    }
}
