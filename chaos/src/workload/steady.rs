//! A steady stream of small writes whose latency is watched while something else goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::numbers::{float, micros};

const PATIENCE: Duration = Duration::from_secs(10);
const KEYS: u64 = 1000;

/// Writers that go on until they are dropped or concluded.
#[derive(Debug)]
pub struct Steady {
    shared: Arc<Shared>,
    writers: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    over: AtomicBool,
    number: AtomicU64,
    errors: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

/// What the writers saw since the last look.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Window {
    pub n_writes: u64,
    pub n_errors: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Steady {
    /// Starts writers over all nodes, each pausing for `think` after an answer.
    ///
    /// # Errors
    /// An endpoint is malformed.
    pub fn start(nodes: &[Client], n_writers: usize, think: Duration) -> Result<Steady> {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let shared = Arc::new(Shared {
            over: AtomicBool::new(false),
            number: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latencies: Mutex::new(histogram),
        });
        let mut writers = JoinSet::new();
        for number in 0..n_writers {
            let client = nodes[number % nodes.len()].reconnected()?;
            writers.spawn(write(client, Arc::clone(&shared), think));
        }
        Ok(Steady { shared, writers })
    }

    /// What happened since the start or the last call, and begins anew.
    #[must_use]
    pub fn take(&self) -> Window {
        let mut latencies = self.shared.latencies.lock().expect("no writer panics with the lock");
        let ms = |quantile: f64| float(latencies.value_at_quantile(quantile)) / 1e3;
        let window = Window {
            n_writes: latencies.len(),
            n_errors: self.shared.errors.swap(0, Ordering::Relaxed),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: float(latencies.max()) / 1e3,
        };
        latencies.reset();
        window
    }

    /// Waits for the last answers.
    ///
    /// # Errors
    /// A writer panicked.
    pub async fn conclude(mut self) -> Result<()> {
        self.shared.over.store(true, Ordering::Relaxed);
        while self.writers.join_next().await.transpose().context("a writer panicked")?.is_some() {}
        Ok(())
    }
}

impl Window {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} writes, p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms, {} errors",
            crate::numbers::grouped(self.n_writes),
            self.p50_ms,
            self.p99_ms,
            self.max_ms,
            self.n_errors
        )
    }
}

async fn write(client: Client, shared: Arc<Shared>, think: Duration) {
    while !shared.over.load(Ordering::Relaxed) {
        let number = shared.number.fetch_add(1, Ordering::Relaxed);
        let key = format!("steady/{:04}", number % KEYS);
        let began = Instant::now();
        match client.put(key, format!("{number:0200}"), PATIENCE).await {
            Ok(_revision) => {
                let mut latencies = shared.latencies.lock().expect("nobody panics with the lock");
                latencies.saturating_record(micros(began.elapsed()).max(1));
            }
            Err(_status) => {
                shared.errors.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        if !think.is_zero() {
            tokio::time::sleep(think).await;
        }
    }
}
