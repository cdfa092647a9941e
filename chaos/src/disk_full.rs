//! Disks that fill up: of the leader, of one follower, of all; down to the low mark or to the last
//! byte. Nobody may end for good, nothing acknowledged may be lost, and all must be back without a
//! command once the foreign file is gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use proto::etcd;
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{Client, within};
use crate::cluster::disks::Disk;
use crate::cluster::{Cluster, ClusterOptions};
use crate::report;
use crate::torture;

const DISK_BYTES: u64 = 768 << 20;
const LOW_MARK: &str = "256MiB";
/// What a filler leaves when it goes down to the low mark: somewhat below it.
const LEFT_AT_LOW_MARK: u64 = 192 << 20;
const N_WRITERS: usize = 6;
const VALUE_BYTES: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the cluster may take to react, and to be back.
const REACTION: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(90);

/// Whose disk is filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Whose {
    Leader,
    Follower,
    All,
}

/// How far.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Fill {
    /// Below the low mark, with room left.
    LowMark,
    /// Nothing is left.
    LastByte,
}

#[derive(Clone, Debug)]
pub struct DiskFullOptions {
    pub cluster: ClusterOptions,
    pub whose: Vec<Whose>,
    pub fills: Vec<Fill>,
    /// How long the disks stay full.
    pub full: Duration,
}

/// Runs every combination, each on a cluster of its own.
///
/// # Errors
/// Not root, or a promise was broken: the message says which.
pub async fn run(options: &DiskFullOptions) -> Result<()> {
    for whose in &options.whose {
        for fill in &options.fills {
            let mut cluster = Cluster::prepare(&ClusterOptions {
                extra_args: node_args(&options.cluster.extra_args),
                ..options.cluster.clone()
            })?;
            let case = format!("{whose:?} {fill:?}");
            match one_case(&mut cluster, *whose, *fill, options.full).await {
                Ok(line) => report::line(format!("disk-full {case}: {line}")),
                Err(error) => {
                    let logs = cluster.log_tails();
                    return Err(error.context(format!("disk-full {case}\n{logs}")));
                }
            }
        }
    }
    Ok(())
}

fn node_args(given: &[String]) -> Vec<String> {
    let own = ["--disk-low-mark", LOW_MARK, "--disk-ballast", "64MiB"];
    own.iter().map(ToString::to_string).chain(given.iter().cloned()).collect()
}

async fn one_case(
    cluster: &mut Cluster,
    whose: Whose,
    fill: Fill,
    full: Duration,
) -> Result<String> {
    for node in &cluster.nodes {
        cluster.disks.push(Disk::mount_sized(&node.data_dir, DISK_BYTES)?);
    }
    cluster.start_all()?;
    cluster.wait_ready(Duration::from_secs(60)).await?;
    let leader = cluster.wait_leader(Duration::from_secs(30)).await?;
    let term = term(cluster, leader).await?;
    let load = Load::start(&cluster.clients())?;
    load.wait_for_writes(200, REACTION).await.context("before anything is full")?;

    let full_nodes: Vec<usize> = match whose {
        Whose::Leader => vec![leader],
        Whose::Follower => vec![(leader + 1) % cluster.nodes.len()],
        Whose::All => (0..cluster.nodes.len()).collect(),
    };
    let fillers: Vec<Filler> = full_nodes
        .iter()
        .map(|at| Filler::fill(&cluster.nodes[*at].data_dir, fill))
        .collect::<Result<_>>()?;
    let mut supervisor = Supervisor::default();
    match whose {
        Whose::Leader | Whose::Follower => {
            let goes_on = supervised(cluster, &mut supervisor, load.wait_for_writes(200, REACTION));
            goes_on.await.context("one disk is full: the others must go on writing")?;
        }
        Whose::All => {
            supervised(cluster, &mut supervisor, load.wait_for_refusals(20, REACTION))
                .await
                .context("all disks are full: writes must be refused with RESOURCE_EXHAUSTED")?;
            if supervisor.n_restarts == 0 {
                all_read(cluster).await.context("all disks are full: reads must go on")?;
            }
        }
    }
    if whose == Whose::Leader {
        let now = cluster.wait_leader(REACTION).await?;
        ensure!(now != leader, "the leader kept the lead on its full disk");
    }
    supervised(cluster, &mut supervisor, async {
        tokio::time::sleep(full).await;
        Ok(())
    })
    .await?;
    let term_kept = match cluster.leader().await {
        Some(now) => self::term(cluster, now).await? == term,
        None => false,
    };
    drop(fillers);
    let freed = Instant::now();
    supervised(cluster, &mut supervisor, load.wait_for_writes(200, RECOVERY))
        .await
        .context("there is room again: writes must go on")?;
    let clients = cluster.clients();
    supervised(cluster, &mut supervisor, all_healthy(&clients))
        .await
        .context("there is room again: all nodes must be back, without an alarm")?;
    let back_s = freed.elapsed().as_secs_f64();
    let (acknowledged, n_refused) = load.end().await?;
    let n_lost = count_lost(&cluster.nodes[0].client, &acknowledged).await?;
    ensure!(n_lost == 0, "{n_lost} of {} acknowledged writes are lost", acknowledged.len());
    let revision = newest_revision(&cluster.nodes[0].client).await?;
    let digests = torture::digests(cluster, revision).await?;
    ensure!(digests.iter().all(|(_, hash)| *hash == digests[0].1), "digests differ: {digests:?}");
    Ok(format!(
        "{} writes acknowledged, 0 lost; {n_refused} refused; {} ends that were waited out; term \
         {}; back after {back_s:.1} s",
        acknowledged.len(),
        supervisor.n_restarts,
        if term_kept { "kept" } else { "changed" }
    ))
}

/// Starts processes again that ended, as an operator's supervisor does.
#[derive(Debug, Default)]
struct Supervisor {
    n_restarts: usize,
}

/// Runs `work` while processes that end are started again.
async fn supervised<T>(
    cluster: &mut Cluster,
    supervisor: &mut Supervisor,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        for node in &mut cluster.nodes {
            if node.process.exited_by_itself().is_some() {
                node.process.forget();
                node.process.start()?;
                supervisor.n_restarts += 1;
            }
        }
    }
}

/// A foreign file that takes the room of a disk until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(data_dir: &Path, fill: Fill) -> Result<Filler> {
        let path = data_dir.join("foreign-file");
        let filler = Filler(path.clone());
        let stat = nix::sys::statvfs::statvfs(data_dir)?;
        let free = stat.blocks_available() * stat.fragment_size();
        let left = match fill {
            Fill::LowMark => LEFT_AT_LOW_MARK,
            Fill::LastByte => 0,
        };
        let file = File::create(&path)?;
        let length = i64::try_from(free.saturating_sub(left))?;
        let flags = nix::fcntl::FallocateFlags::empty();
        let allocated = nix::fcntl::fallocate(&file, flags, 0, length);
        if left > 0 {
            allocated.context("allocating the foreign file")?;
            return Ok(filler);
        }
        // What an allocation leaves, byte by byte.
        let mut rest = File::options().append(true).open(&path)?;
        let mut n_bytes = 1 << 20;
        while n_bytes > 0 {
            if rest.write(&vec![1; n_bytes]).is_err() {
                n_bytes /= 2;
            }
        }
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // The disk is gone with the run where this fails.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writers that write each key once and note what was acknowledged.
struct Load {
    shared: Arc<Shared>,
    writers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    acknowledged: Mutex<Vec<String>>,
    n_refused: AtomicUsize,
}

impl Load {
    fn start(nodes: &[Client]) -> Result<Load> {
        let shared = Arc::new(Shared::default());
        let mut writers = JoinSet::new();
        for number in 0..N_WRITERS {
            let client = nodes[number % nodes.len()].reconnected()?;
            writers.spawn(write(client, number, Arc::clone(&shared)));
        }
        Ok(Load { shared, writers })
    }

    fn n_acknowledged(&self) -> usize {
        self.shared.acknowledged.lock().expect("no writer panics with the lock").len()
    }

    async fn wait_for_writes(&self, n_more: usize, patience: Duration) -> Result<()> {
        let goal = self.n_acknowledged() + n_more;
        let deadline = Instant::now() + patience;
        while self.n_acknowledged() < goal {
            let n_now = self.n_acknowledged();
            ensure!(Instant::now() < deadline, "{n_now} writes of {goal} within {patience:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn wait_for_refusals(&self, n_more: usize, patience: Duration) -> Result<()> {
        let n_refused = || self.shared.n_refused.load(Ordering::Relaxed);
        let goal = n_refused() + n_more;
        let deadline = Instant::now() + patience;
        while n_refused() < goal {
            let n_now = n_refused();
            ensure!(Instant::now() < deadline, "{n_now} refusals of {goal} within {patience:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<(Vec<String>, usize)> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        while self.writers.join_next().await.transpose().context("a writer panicked")?.is_some() {}
        let n_refused = self.shared.n_refused.load(Ordering::Relaxed);
        let mut acknowledged = self.shared.acknowledged.lock().expect("all writers are gone");
        Ok((std::mem::take(&mut acknowledged), n_refused))
    }
}

async fn write(client: Client, writer: usize, shared: Arc<Shared>) {
    let mut n = 0_u64;
    while !shared.is_over.load(Ordering::Relaxed) {
        n += 1;
        let key = format!("full/{writer}/{n:08}");
        let value = format!("{key}{}", "x".repeat(VALUE_BYTES));
        match client.put(key.clone(), value, PATIENCE).await {
            Ok(_) => shared.acknowledged.lock().expect("nobody panics with the lock").push(key),
            Err(status) => {
                if status.code() == Code::ResourceExhausted {
                    shared.n_refused.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn term(cluster: &Cluster, node: usize) -> Result<u64> {
    Ok(cluster.nodes[node].client.status(PATIENCE).await?.raft_term)
}

async fn all_read(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        let read = node.client.get("full/0/00000001", PATIENCE).await;
        let found = read.with_context(|| format!("a linearizable read of {}", node.name))?;
        ensure!(found.kvs.len() == 1, "{} does not find the first key", node.name);
    }
    Ok(())
}

/// Every node answers a linearizable read and no alarm is raised.
async fn all_healthy(nodes: &[Client]) -> Result<()> {
    let deadline = Instant::now() + RECOVERY;
    for client in nodes {
        loop {
            let alarms = etcd::AlarmRequest::default();
            let healthy = match client.get("health", PATIENCE).await {
                Ok(_) => within(PATIENCE, client.maintenance().alarm(alarms)).await,
                Err(status) => Err(status),
            };
            match healthy {
                Ok(answer) if answer.alarms.is_empty() => break,
                Ok(answer) if Instant::now() > deadline => {
                    bail!("{} still has alarms: {:?}", client.endpoint(), answer.alarms);
                }
                Err(status) if Instant::now() > deadline => {
                    return Err(status).with_context(|| format!("asking {}", client.endpoint()));
                }
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
    Ok(())
}

async fn count_lost(client: &Client, acknowledged: &[String]) -> Result<usize> {
    let mut found = BTreeMap::new();
    for writer in 0..N_WRITERS {
        let prefix = format!("full/{writer}/");
        let request = etcd::RangeRequest {
            key: prefix.clone().into(),
            range_end: crate::client::prefix_end(&prefix),
            keys_only: true,
            ..Default::default()
        };
        for pair in client.range(request, Duration::from_secs(60)).await?.kvs {
            found.insert(String::from_utf8_lossy(&pair.key).into_owned(), ());
        }
    }
    Ok(acknowledged.iter().filter(|key| !found.contains_key(*key)).count())
}

async fn newest_revision(client: &Client) -> Result<i64> {
    let answer = client.get("health", PATIENCE).await?;
    Ok(answer.header.map_or(0, |header| header.revision))
}
