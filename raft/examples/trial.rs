//! Three nodes in this process on loopback: puts, reads, a hand-over, a crash; prints the figures.

#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use proto::{etcd, quorate};
use raft::{Consistency, Endpoints, Node, NodeOptions, NodeState, PeerHandler};
use tokio::net::TcpListener;
use tokio::time::Instant;

struct NoQuestions;

impl PeerHandler for NoQuestions {
    fn ask(&self, _: u64, _: u32, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nobody answers questions here".to_owned()) })
    }
}

type Failure = Box<dyn Error + Send + Sync>;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn put(key: u64, value_bytes: usize) -> quorate::Command {
    let put = etcd::PutRequest {
        key: format!("key-{key:08}").into(),
        value: vec![b'x'; value_bytes].into(),
        ..Default::default()
    };
    quorate::Command { fence: None, kind: Some(quorate::command::Kind::Put(put)) }
}

async fn start(dir: &Path, n_nodes: usize) -> Result<Vec<Node>, Failure> {
    let mut listeners = Vec::new();
    for _ in 0..n_nodes {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    let mut initial = Vec::new();
    for (n, listener) in listeners.iter().enumerate() {
        initial.push((format!("n{}", n + 1), listener.local_addr()?.to_string()));
    }
    let mut nodes = Vec::new();
    for (listener, (name, address)) in listeners.into_iter().zip(initial.clone()) {
        let endpoints = Endpoints { peer: address, ..Endpoints::default() };
        let mut options = NodeOptions::new(dir.join(&name), &name, listener, endpoints);
        options.initial_cluster = initial.clone();
        nodes.push(Node::start(options, Arc::new(NoQuestions)).await?);
    }
    for node in &nodes {
        node.wait_for_state(NodeState::Hot, soon()).await?;
    }
    Ok(nodes)
}

fn leader(nodes: &[Node]) -> Option<usize> {
    nodes.iter().position(|node| node.tenure().borrow().is_some())
}

async fn load(
    nodes: &[Node],
    n_clients: usize,
    seconds: u64,
    read: bool,
) -> Result<(f64, Vec<Duration>), Failure> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut clients = Vec::new();
    for client in 0..n_clients {
        let node = nodes[client % nodes.len()].clone();
        clients.push(tokio::spawn(async move {
            let mut took = Vec::new();
            let mut n = 0;
            while Instant::now() < until {
                let begin = Instant::now();
                if read {
                    node.view(Consistency::Linearizable, soon()).await?;
                } else {
                    node.propose(put((client as u64) << 20 | n, 256), soon()).await?;
                }
                took.push(begin.elapsed());
                n += 1;
            }
            Ok::<_, Failure>(took)
        }));
    }
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await??);
    }
    all.sort_unstable();
    Ok((all.len() as f64 / seconds as f64, all))
}

fn report(what: &str, (rate, took): &(f64, Vec<Duration>)) {
    let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1000];
    println!("{what}: {rate:.0}/s, p50 {:?}, p99 {:?}, max {:?}", at(500), at(990), at(1000));
}

/// The longest time without an acknowledgement through `via` while `disturb` runs.
async fn gap(via: Node, disturb: impl Future<Output = ()>) -> Duration {
    let stop = Arc::new(AtomicU64::new(0));
    let watch = Arc::clone(&stop);
    let client = tokio::spawn(async move {
        let mut worst = Duration::ZERO;
        let mut n = 0;
        while watch.load(Ordering::Relaxed) == 0 {
            let begin = Instant::now();
            if let Err(error) = via.propose(put(n, 64), soon()).await {
                println!("not acknowledged: {error}");
            }
            worst = worst.max(begin.elapsed());
            n += 1;
        }
        worst
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    disturb.await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.store(1, Ordering::Relaxed);
    client.await.unwrap_or_default()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "raft=warn".into()))
        .init();
    let dir = tempfile::tempdir()?;
    let begin = Instant::now();
    let mut nodes = start(dir.path(), 3).await?;
    println!("three nodes ready after {:?}", begin.elapsed());
    for n_clients in [1, 64, 256] {
        report(&format!("put, {n_clients} clients"), &load(&nodes, n_clients, 3, false).await?);
    }
    for n_clients in [1, 256] {
        report(&format!("read, {n_clients} clients"), &load(&nodes, n_clients, 3, true).await?);
    }
    for _ in 0..5 {
        let old = leader(&nodes).ok_or("no leader")?;
        let via = nodes[(old + 1) % 3].clone();
        let node = nodes[old].clone();
        let took = gap(via, async move {
            if let Err(error) = node.transfer_leader(None, soon()).await {
                println!("no hand-over: {error}");
            }
        })
        .await;
        println!("gap of a hand-over: {took:?}");
    }
    let old = leader(&nodes).ok_or("no leader")?;
    let dead = nodes.remove(old);
    let took = gap(nodes[0].clone(), async move { dead.stop().await }).await;
    println!("gap of a crash: {took:?}");
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(())
}
