//! A million keys: what they cost in memory, how long a list of all takes, how soon a cluster that
//! was killed answers again, and what a backup does to writers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proto::etcd;
use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt;

use crate::client::{Client, prefix_end, within};
use crate::cluster::usage::resident_bytes;
use crate::cluster::{Cluster, ClusterKind, ClusterOptions, command};
use crate::numbers::{float, float_len, grouped, max};
use crate::report;
use crate::workload::fill::{self, Fill};
use crate::workload::steady::Steady;

const PREFIX: &str = "million/";
const VALUE_BYTES: usize = 300;
const PAGE_KEYS: i64 = 2000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Time without writes before memory is read.
const CALM: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MillionReport {
    pub n_keys: u64,
    pub load_s: f64,
    /// Resident memory of each node after the load.
    pub memory_mb: Vec<f64>,
    pub list_s: f64,
    /// Whole cluster killed to the first linearizable read.
    pub restart_s: f64,
    /// The same, until every node has answered one.
    pub restart_all_s: f64,
    pub memory_after_restart_mb: Vec<f64>,
    pub backup_s: f64,
    pub backup_mb: f64,
    pub p99_before_backup_ms: f64,
    pub p99_during_backup_ms: f64,
}

/// Runs everything on a fresh cluster.
///
/// # Errors
/// A node exited by itself, a call failed, or keys are missing.
pub async fn run(options: &ClusterOptions, n_keys: u64) -> Result<MillionReport> {
    let label = options.kind.label();
    let mut cluster = Cluster::start(options).await?;
    report::progress(format!("{label}: loading {} keys of {VALUE_BYTES} bytes", grouped(n_keys)));
    let fill = Fill {
        prefix: PREFIX.to_owned(),
        n_keys,
        value_bytes: VALUE_BYTES,
        n_ops: 50,
        n_clients: 24,
    };
    let load = fill::run(&fill, &cluster.endpoints()).await?;
    cluster.wait_ready(PATIENCE).await?;
    tokio::time::sleep(CALM).await;
    let memory_mb = memory(&cluster)?;
    report::progress(format!("{label}: loaded in {load:.1?}, memory {memory_mb:.0?} MB; listing"));
    let list = list(&cluster.nodes[0].client, n_keys).await?;
    report::progress(format!("{label}: listed in {list:.2?}; killing all nodes"));
    let (restart, restart_all) = restart(&mut cluster).await?;
    tokio::time::sleep(CALM).await;
    let memory_after_restart_mb = memory(&cluster)?;
    report::progress(format!(
        "{label}: first linearizable read after {restart:.2?}, memory \
         {memory_after_restart_mb:.0?} MB; backup under load"
    ));
    let writers = Steady::start(&cluster.clients(), 16, Duration::from_millis(2))?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _ = writers.take();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let before = writers.take();
    let began = Instant::now();
    let backup_bytes = backup(&cluster, &cluster.folder().join("million.backup")).await?;
    let backup = began.elapsed();
    let during = writers.take();
    writers.conclude().await?;
    report::progress(format!(
        "{label}: backup of {:.0} MB in {backup:.2?}; before: {}; during: {}",
        float(backup_bytes) / 1e6,
        before.summary(),
        during.summary()
    ));
    cluster.check_alive()?;
    Ok(MillionReport {
        n_keys,
        load_s: load.as_secs_f64(),
        memory_mb,
        list_s: list.as_secs_f64(),
        restart_s: restart.as_secs_f64(),
        restart_all_s: restart_all.as_secs_f64(),
        memory_after_restart_mb,
        backup_s: backup.as_secs_f64(),
        backup_mb: float(backup_bytes) / 1e6,
        p99_before_backup_ms: before.p99_ms,
        p99_during_backup_ms: during.p99_ms,
    })
}

fn memory(cluster: &Cluster) -> Result<Vec<f64>> {
    cluster.pids().into_iter().map(|pid| Ok(float(resident_bytes(pid)?) / 1e6)).collect()
}

/// Lists everything as Milvus walks a prefix: pages without a fixed revision.
async fn list(client: &Client, n_keys: u64) -> Result<Duration> {
    let began = Instant::now();
    let mut next = bytes::Bytes::from_static(PREFIX.as_bytes());
    let mut n_seen = 0;
    loop {
        let request = etcd::RangeRequest {
            key: next,
            range_end: prefix_end(PREFIX),
            limit: PAGE_KEYS,
            ..Default::default()
        };
        let page = client.range(request, PATIENCE).await?;
        n_seen += page.kvs.len();
        let Some(last) = page.kvs.last().filter(|_| page.more) else {
            break;
        };
        next = [&last.key[..], &[0]].concat().into();
    }
    ensure!(u64::try_from(n_seen)? == n_keys, "the list has {n_seen} keys, not {n_keys}");
    Ok(began.elapsed())
}

async fn restart(cluster: &mut Cluster) -> Result<(Duration, Duration)> {
    let killed = cluster.kill_all()?;
    cluster.start_all()?;
    let mut waiting = tokio::task::JoinSet::new();
    for client in cluster.clients() {
        waiting.spawn(async move {
            let client = client.reconnected()?;
            while killed.elapsed() < PATIENCE * 5 {
                let answer = client.get(&fill::key(PREFIX, 7), Duration::from_secs(5)).await;
                if answer.is_ok_and(|answer| answer.count == 1) {
                    return Ok(killed.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            bail!("{} did not answer within {:?}", client.endpoint(), PATIENCE * 5)
        });
    }
    let mut times = Vec::new();
    while let Some(time) = waiting.join_next().await {
        times.push(time.context("a reader panicked")??);
    }
    cluster.check_alive()?;
    times.sort();
    match (times.first(), times.last()) {
        (Some(first), Some(last)) => Ok((*first, *last)),
        _ => bail!("no nodes"),
    }
}

/// A backup by the server's own means; its size in bytes.
async fn backup(cluster: &Cluster, file: &Path) -> Result<u64> {
    match &cluster.kind {
        ClusterKind::Quorate(binary) => {
            let file = file.display().to_string();
            let endpoints = cluster.endpoints().join(",");
            let args = ["backup", "save", &file, "--endpoints", &endpoints, "--timeout", "60s"];
            command::run_json(binary, &args, Duration::from_secs(300)).await?;
            Ok(std::fs::metadata(file)?.len())
        }
        ClusterKind::Etcd(_) => {
            let mut client = cluster.nodes[0].client.maintenance();
            let mut stream = within(PATIENCE, client.snapshot(etcd::SnapshotRequest {})).await?;
            let mut n_bytes = 0;
            let mut out = tokio::fs::File::create(file).await?;
            while let Some(part) = stream.next().await {
                let part = part?;
                n_bytes += u64::try_from(part.blob.len())?;
                tokio::io::AsyncWriteExt::write_all(&mut out, &part.blob).await?;
            }
            Ok(n_bytes)
        }
        ClusterKind::Ceiling(_) => bail!("the ceiling has nothing to back up"),
    }
}

impl MillionReport {
    /// The largest node.
    #[must_use]
    pub fn memory_max_mb(&self) -> f64 {
        max(&self.memory_mb)
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} keys: load {:.1} s, memory per node {:.0} MB (largest; mean {:.0}), list {:.2} s, \
             killed to first linearizable read {:.2} s (all nodes {:.2} s), memory then {:.0} MB; \
             backup {:.1} s, {:.0} MB, p99 of writes {:.1} -> {:.1} ms",
            grouped(self.n_keys),
            self.load_s,
            self.memory_max_mb(),
            self.memory_mb.iter().sum::<f64>() / float_len(self.memory_mb.len().max(1)),
            self.list_s,
            self.restart_s,
            self.restart_all_s,
            max(&self.memory_after_restart_mb),
            self.backup_s,
            self.backup_mb,
            self.p99_before_backup_ms,
            self.p99_during_backup_ms,
        )
    }
}
