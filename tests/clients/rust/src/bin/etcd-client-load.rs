//! Closed-loop load through the Rust client `etcd-client`, as an application would make it: what
//! our own load generator shows is flattered by how little it does for a call.
//!
//! `etcd-client-load ENDPOINTS OP CLIENTS CONNECTIONS WARM_UP_S SECONDS PIDS` prints one line of
//! JSON in the form of `quorate-chaos load --json`. ENDPOINTS and PIDS are separated by commas; OP
//! is `put`, `get`, `get-serializable`, `txn` or `watch`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use tokio::task::JoinSet;

/// The same keys and values as `quorate-chaos load` uses.
const N_KEYS: usize = 10_000;
const VALUE_BYTES: usize = 256;
const N_TXN_OPS: usize = 10;
const WATCHED: &str = "watched";
/// Ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

struct Options {
    endpoints: Vec<String>,
    op: String,
    n_clients: usize,
    n_connections: usize,
    warm_up: Duration,
    duration: Duration,
    pids: Vec<u32>,
}

/// What the clients of one measurement share.
struct Meter {
    from: Instant,
    until: Instant,
}

/// What one client saw in the measured time.
#[derive(Default)]
struct Seen {
    latencies_us: Vec<u64>,
    n_errors: u64,
    first_error: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = options()?;
    let mut connections = Vec::new();
    for number in 0..options.n_connections {
        let endpoint = &options.endpoints[number % options.endpoints.len()];
        let connected = Client::connect([endpoint], None).await;
        connections.push(connected.with_context(|| format!("connecting to {endpoint}"))?);
    }
    prepare(&mut connections[0], &options.op).await.context("loading the data to read")?;
    let from = Instant::now() + options.warm_up;
    let meter = Arc::new(Meter { from, until: from + options.duration });
    let mut clients = JoinSet::new();
    for number in 0..options.n_clients {
        let client = connections[number % connections.len()].clone();
        let (op, meter) = (options.op.clone(), Arc::clone(&meter));
        clients.spawn(async move { repeat(client, &op, number, &meter).await });
    }
    tokio::time::sleep_until(meter.from.into()).await;
    let before = (cpu_s(&[std::process::id()])?, cpu_s(&options.pids)?);
    tokio::time::sleep_until(meter.until.into()).await;
    let after = (cpu_s(&[std::process::id()])?, cpu_s(&options.pids)?);
    let mut all = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let seen = seen??;
        all.latencies_us.extend(seen.latencies_us);
        all.n_errors += seen.n_errors;
        all.first_error = all.first_error.or(seen.first_error);
    }
    ensure!(!all.latencies_us.is_empty(), "no operation succeeded: {:?}", all.first_error);
    print(&options, all, (after.0 - before.0, after.1 - before.1));
    Ok(())
}

fn options() -> Result<Options> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, op, n_clients, n_connections, warm_up, seconds, pids] = words.as_slice() else {
        bail!("usage: etcd-client-load ENDPOINTS OP CLIENTS CONNECTIONS WARM_UP_S SECONDS PIDS");
    };
    Ok(Options {
        endpoints: endpoints.split(',').map(str::to_owned).collect(),
        op: op.clone(),
        n_clients: n_clients.parse().context("CLIENTS")?,
        n_connections: n_connections.parse().context("CONNECTIONS")?,
        warm_up: Duration::from_secs(warm_up.parse().context("WARM_UP_S")?),
        duration: Duration::from_secs(seconds.parse().context("SECONDS")?),
        pids: pids.split(',').map(str::parse).collect::<Result<_, _>>().context("PIDS")?,
    })
}

fn key(number: usize) -> String {
    format!("k{:07}", number % N_KEYS)
}

fn value() -> Vec<u8> {
    vec![b'v'; VALUE_BYTES]
}

/// Writes what the operation reads.
async fn prepare(client: &mut Client, op: &str) -> Result<()> {
    if !op.starts_with("get") {
        return Ok(());
    }
    for first in (0..N_KEYS).step_by(100) {
        let puts: Vec<TxnOp> =
            (first..first + 100).map(|number| TxnOp::put(key(number), value(), None)).collect();
        client.txn(Txn::new().and_then(puts)).await?;
    }
    Ok(())
}

/// One client: the same operation until the time is up.
async fn repeat(mut client: Client, op: &str, number: usize, meter: &Meter) -> Result<Seen> {
    if op == "watch" {
        return watch(client, number, meter).await;
    }
    let mut seen = Seen::default();
    // Neighbouring clients begin far from each other.
    let mut next = number * 7919;
    loop {
        let began = Instant::now();
        if began >= meter.until {
            return Ok(seen);
        }
        next += 1;
        let done = once(&mut client, op, next).await;
        seen.note(done, began, meter);
    }
}

async fn once(client: &mut Client, op: &str, number: usize) -> Result<()> {
    match op {
        "put" => drop(client.put(key(number), value(), None::<PutOptions>).await?),
        "get" => drop(client.get(key(number), None).await?),
        "get-serializable" => {
            let local = GetOptions::new().with_serializable();
            drop(client.get(key(number), Some(local)).await?);
        }
        "txn" => {
            let puts: Vec<TxnOp> = (0..N_TXN_OPS)
                .map(|nth| TxnOp::put(key(number + nth * 613), value(), None))
                .collect();
            drop(client.txn(Txn::new().and_then(puts)).await?);
        }
        other => bail!("no operation {other:?}"),
    }
    Ok(())
}

/// A put to a key of its own, until its own watch shows it.
async fn watch(mut client: Client, number: usize, meter: &Meter) -> Result<Seen> {
    let mut seen = Seen::default();
    let key = format!("{WATCHED}/{number}");
    let mut events = client.watch(key.clone(), None::<WatchOptions>).await?;
    loop {
        let began = Instant::now();
        if began >= meter.until {
            return Ok(seen);
        }
        let revision = client.put(key.clone(), value(), None::<PutOptions>).await?;
        let revision = revision.header().context("a header")?.revision();
        let mut newest = 0;
        while newest < revision {
            let response = events.message().await?.context("the watch ended")?;
            let revisions = response.events().iter().filter_map(|event| event.kv());
            newest = revisions.map(|kv| kv.mod_revision()).fold(newest, i64::max);
        }
        seen.note(Ok(()), began, meter);
    }
}

impl Seen {
    fn note(&mut self, done: Result<()>, began: Instant, meter: &Meter) {
        let now = Instant::now();
        match done {
            Err(error) => {
                self.n_errors += 1;
                self.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
            Ok(()) if now >= meter.from && now < meter.until => {
                let took_us = u64::try_from((now - began).as_micros()).unwrap_or(u64::MAX);
                self.latencies_us.push(took_us);
            }
            Ok(()) => {}
        }
    }
}

/// User and system time of the processes together, seconds. The name of a process is in
/// parentheses and may hold spaces: fields count from behind it.
fn cpu_s(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0_u64;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("no name in parentheses")?;
        for field in fields.split_ascii_whitespace().skip(11).take(2) {
            ticks += field.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

fn print(options: &Options, mut all: Seen, (client_s, server_s): (f64, f64)) {
    all.latencies_us.sort_unstable();
    let n_operations = all.latencies_us.len();
    let at = |part: f64| all.latencies_us[(n_operations as f64 * part) as usize];
    let mean = all.latencies_us.iter().sum::<u64>() as f64 / n_operations as f64;
    let per_operation = |seconds: f64| seconds * 1e6 / n_operations as f64;
    let first_error = match all.first_error {
        Some(error) => format!("{error:?}"),
        None => "null".to_owned(),
    };
    println!(
        "{{\"op\":{:?},\"n_clients\":{},\"n_operations\":{n_operations},\"n_errors\":{},\
         \"first_error\":{first_error},\"per_second\":{},\"mean_us\":{mean},\"p50_us\":{},\
         \"p99_us\":{},\"p999_us\":{},\"max_us\":{},\"client_cpu_us\":{},\"server_cpu_us\":{}}}",
        options.op,
        options.n_clients,
        all.n_errors,
        n_operations as f64 / options.duration.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        all.latencies_us[n_operations - 1],
        per_operation(client_s),
        per_operation(server_s),
    );
}
