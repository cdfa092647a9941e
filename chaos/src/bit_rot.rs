//! Flips bits in table files of one node under load. The node must notice it, end, fetch the state of
//! another node and come back without a command. No client may read a wrong pair.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use proto::etcd;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Cluster, ClusterOptions};
use crate::report;
use crate::torture::{Load, SMALL_LOG};
use crate::workload::Mix;

const DISK_BYTES: u64 = 1 << 30;
/// How long the load runs before bits are flipped.
const FILLS: Duration = Duration::from_secs(5);
/// Flipped in one file, so that some hit what is read.
const BITS: u64 = 64;
/// Files in which bits are flipped at the most: some are not read any more.
const FILES_MAX: usize = 10;
/// How long to wait for the node to notice before bits of another file are flipped.
const UNNOTICED_MAX: Duration = Duration::from_secs(10);
/// Starts of a damaged node at the most: the first one may find more damage and end.
const STARTS_MAX: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(5);

/// The node whose files are damaged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Victim {
    Leader,
    Follower,
}

/// Which nodes to damage, one after the other, and from which seed.
#[derive(Clone, Debug)]
pub struct BitRotOptions {
    pub cluster: ClusterOptions,
    pub victims: Vec<Victim>,
    pub seed: u64,
}

/// True where every promise was kept.
///
/// # Errors
/// A node did not notice, or was not back by itself.
pub async fn run(options: &BitRotOptions) -> Result<bool> {
    report::progress(format!("flipped bits, seed {}", options.seed));
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut prepared = options.cluster.clone();
    prepared.forgetful_disks = Some(DISK_BYTES);
    prepared.extra_args.extend(SMALL_LOG.map(str::to_owned));
    let mut cluster = Cluster::start(&prepared).await?;
    let lived = live(&mut cluster, options, &mut random).await;
    if !matches!(lived, Ok(true)) {
        let logs = cluster.log_tails();
        let folder = cluster.keep_folder();
        report::progress(format!("logs and data stay in {}\n{logs}", folder.display()));
    }
    lived
}

async fn live(cluster: &mut Cluster, options: &BitRotOptions, random: &mut StdRng) -> Result<bool> {
    let load = Load::start(cluster, Mix::default(), random.random())?;
    for victim in &options.victims {
        // Until much of it lies in files.
        tokio::time::sleep(FILLS).await;
        let leader = cluster.wait_leader(PATIENCE).await?;
        let at = match victim {
            Victim::Leader => leader,
            Victim::Follower => (leader + 1) % cluster.nodes.len(),
        };
        rot(cluster, *victim, at, random).await?;
    }
    let concluded = load.conclude(cluster).await?;
    let mut violations: Vec<String> =
        concluded.verdict.violations.iter().map(ToString::to_string).collect();
    if concluded.digests.iter().any(|(_, hash)| *hash != concluded.digests[0].1) {
        violations.push(format!("the nodes differ: {:08x?}", concluded.digests));
    }
    if concluded.verdict.n_undecided > 0 {
        violations.push(format!("{} registers were not decided", concluded.verdict.n_undecided));
    }
    for text in &violations {
        report::line(format!("  VIOLATION {text}"));
    }
    report::line(match violations.is_empty() {
        true => "  green: no client read a wrong pair, every node came back, all agree",
        false => "  RED",
    });
    Ok(violations.is_empty())
}

/// Flips bits in files of one node until it notices and ends; then starts it again, as a service
/// manager does.
async fn rot(cluster: &mut Cluster, victim: Victim, at: usize, random: &mut StdRng) -> Result<()> {
    let name = cluster.nodes[at].name.clone();
    let began = Instant::now();
    let mut n_files = 0;
    while cluster.nodes[at].process.exited_by_itself().is_none() {
        ensure!(n_files < FILES_MAX, "{name} noticed nothing of {n_files} damaged files");
        let disks = cluster.forgetful.as_mut().context("no disks")?;
        let path = disks.flip(at, ".sst", BITS, random.random())?;
        n_files += 1;
        report::progress(format!("{victim:?} {name}: {BITS} bits flipped in {}", path.display()));
        let until = Instant::now() + UNNOTICED_MAX;
        while Instant::now() < until && cluster.nodes[at].process.exited_by_itself().is_none() {
            read_all(cluster, at).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let noticed = began.elapsed();
    let ended = Instant::now();
    let n_starts = start_until_it_stays(cluster, at).await?;
    read_all(cluster, at).await?;
    report::line(format!(
        "{victim:?} {name}: noticed after {n_files} files and {:.1} s, back {:.1} s after its end \
         with {n_starts} starts",
        noticed.as_secs_f64(),
        ended.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// As a service manager does it.
async fn start_until_it_stays(cluster: &mut Cluster, at: usize) -> Result<usize> {
    for n_starts in 1..=STARTS_MAX {
        cluster.nodes[at].process.forget();
        cluster.nodes[at].process.start()?;
        let ready = cluster.wait_ready(PATIENCE).await;
        if cluster.nodes[at].process.exited_by_itself().is_none() {
            return ready.map(|()| n_starts).context("the damaged node must come back");
        }
    }
    bail!("{} ended at each of {STARTS_MAX} starts", cluster.nodes[at].name)
}

/// Reads everything from what one node has itself. It may give no answer, but none that differs from
/// what another node has at that revision.
async fn read_all(cluster: &Cluster, at: usize) -> Result<()> {
    let all = Bytes::from_static(b"\0");
    let request = etcd::RangeRequest {
        key: all.clone(),
        range_end: all,
        serializable: true,
        ..Default::default()
    };
    let node = &cluster.nodes[at].client;
    let Ok(answer) = node.range(request.clone(), CALL).await else { return Ok(()) };
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    let other = &cluster.nodes[(at + 1) % cluster.nodes.len()].client;
    let request = etcd::RangeRequest { revision, serializable: false, ..request };
    // It may be compacted by now.
    let Ok(expected) = other.range(request, CALL).await else { return Ok(()) };
    ensure!(answer.kvs == expected.kvs, "the node gave wrong pairs at revision {revision}");
    Ok(())
}
