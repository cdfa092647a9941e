//! A large state, a wiped follower that comes back through `member replace` while writes go on, and
//! the same with the newcomer killed at random points of the installation.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::members::{caught_up, is_voter, replace, wipe};
use crate::cluster::{Cluster, ClusterKind, ClusterOptions};
use crate::numbers::float_len;
use crate::report;
use crate::torture::digests;
use crate::workload::fill::{self, Fill};
use crate::workload::steady::{Steady, Window};

const VALUE_BYTES: usize = 16 * 1024;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// A newcomer that is slower than this has failed.
const INSTALL_PATIENCE: Duration = Duration::from_secs(600);
/// Writers beside the installation, and their pause: load that three nodes carry easily.
const N_WRITERS: usize = 8;
const THINK: Duration = Duration::from_millis(5);

/// What to measure.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    pub cluster: ClusterOptions,
    pub gib: f64,
    pub n_kills: usize,
    pub seed: u64,
    /// Bound of the p99 of writes during the installation over that before.
    pub p99_factor_max: f64,
}

/// What a large installation must keep. A small one is over before it says anything.
#[must_use]
pub fn p99_factor_max(gib: f64) -> f64 {
    if gib >= 1.0 { 3.0 } else { f64::INFINITY }
}

/// Runs; true where every installation ended well and writers were not slowed down too much.
///
/// # Errors
/// A node exited by itself, or the newcomer did not come back.
pub async fn run(options: &SnapshotOptions) -> Result<bool> {
    let ClusterKind::Quorate(binary) = options.cluster.kind.clone() else {
        bail!("`member replace` is Quorate's");
    };
    let mut cluster = Cluster::start(&options.cluster).await?;
    let result = measure(&mut cluster, &binary, options).await;
    if result.is_err() {
        let logs = cluster.log_tails();
        report::progress(format!("data stays in {}\n{logs}", cluster.keep_folder().display()));
    }
    result
}

async fn measure(cluster: &mut Cluster, binary: &Path, options: &SnapshotOptions) -> Result<bool> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few GiB")]
    let n_keys = (options.gib * GIB / float_len(VALUE_BYTES)) as u64;
    let fill = Fill {
        prefix: "snapshot/".to_owned(),
        n_keys,
        value_bytes: VALUE_BYTES,
        n_ops: 16,
        n_clients: 8,
    };
    report::progress(format!("loading {} GiB", options.gib));
    let load = fill::run(&fill, &cluster.endpoints()).await?;
    cluster.wait_ready(INSTALL_PATIENCE).await?;
    report::progress(format!("loaded in {:.0} s; writers for 20 s", load.as_secs_f64()));
    let others = |cluster: &Cluster, victim: usize| {
        let nodes = cluster.nodes.iter().enumerate();
        nodes
            .filter(|(at, _)| *at != victim)
            .map(|(_, node)| node.client.clone())
            .collect::<Vec<_>>()
    };
    let leader = cluster.wait_leader(Duration::from_secs(30)).await?;
    let victim = (leader + 1) % cluster.nodes.len();
    let writers = Steady::start(&others(cluster, victim), N_WRITERS, THINK)?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let _ = writers.take();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = writers.take();
    report::progress(format!("before: {}", before.summary()));
    let began = Instant::now();
    wipe(cluster, victim)?;
    replace(cluster, binary, victim).await?;
    caught_up(cluster, victim).await?;
    let install = began.elapsed();
    let during = writers.take();
    report::progress(format!(
        "wiped {} is back after {:.1} s; during: {}",
        cluster.nodes[victim].name,
        install.as_secs_f64(),
        during.summary()
    ));
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut kills_ms = Vec::new();
    for number in 1..=options.n_kills {
        wipe(cluster, victim)?;
        let moment = install.mul_f64(random.random_range(0.0..1.0));
        kill_while_installing(cluster, binary, victim, moment)
            .await
            .with_context(|| format!("killed {moment:.2?} into installation {number}"))?;
        kills_ms.push(moment.as_millis());
        let window = writers.take();
        report::progress(format!(
            "killed {moment:.2?} into installation {number}/{}, recovered; {}",
            options.n_kills,
            window.summary()
        ));
    }
    writers.conclude().await?;
    let answer = cluster.nodes[victim].client.get("none", Duration::from_secs(10)).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    let digests = digests(cluster, revision).await?;
    let agree = digests.iter().all(|(_, hash)| *hash == digests[0].1);
    Ok(conclude(options, install, before, during, &kills_ms, agree))
}

fn conclude(
    options: &SnapshotOptions,
    install: Duration,
    before: Window,
    during: Window,
    kills_ms: &[u128],
    agree: bool,
) -> bool {
    let factor = during.p99_ms / before.p99_ms.max(0.001);
    report::line(format!(
        "snapshot of {} GiB: wiped follower back after {:.1} s ({:.0} MB/s)",
        options.gib,
        install.as_secs_f64(),
        options.gib * GIB / 1e6 / install.as_secs_f64()
    ));
    report::line(format!(
        "  p99 of writes: {:.1} ms before, {:.1} ms during: {factor:.2}x (at most {}x)",
        before.p99_ms, during.p99_ms, options.p99_factor_max
    ));
    report::line(format!("  killed and recovered {} times, at {kills_ms:?} ms", kills_ms.len()));
    report::line(format!("  nodes agree: {agree}; errors of writers: {}", during.n_errors));
    agree && factor <= options.p99_factor_max && kills_ms.len() == options.n_kills
}

async fn kill_while_installing(
    cluster: &mut Cluster,
    binary: &Path,
    victim: usize,
    moment: Duration,
) -> Result<()> {
    let killed = tokio::time::timeout(moment, replace(cluster, binary, victim)).await;
    cluster.nodes[victim].process.kill()?;
    cluster.nodes[victim].process.start()?;
    if killed.is_err() || !is_voter(cluster, victim).await {
        // The command died with its first try; the operator repeats it, unless it was done.
        let again = tokio::time::timeout(INSTALL_PATIENCE, async {
            tokio::select! {
                replaced = replace(cluster, binary, victim) => replaced,
                () = voter(cluster, victim) => Ok(()),
            }
        });
        again.await.context("the repeated `member replace`")??;
    }
    caught_up(cluster, victim).await
}

async fn voter(cluster: &Cluster, victim: usize) {
    while !is_voter(cluster, victim).await {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
