//! What a careless or malicious client can send, beside a steady load of normal clients: no node
//! may end, grow without bound, or fail a normal client.

mod attack;
mod garbage;
mod held;
mod normal;
mod requests;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use crate::cluster::usage::resident_bytes;
use crate::cluster::{Cluster, ClusterOptions};
use crate::report;
use attack::{ATTACKS, Target};
use normal::{Normal, Window};

/// How long a node may take until it answers again after a restart.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the memory of the nodes.
const LOOK: Duration = Duration::from_millis(250);

/// What to send, for how long.
#[derive(Clone, Debug)]
pub struct HostileOptions {
    pub cluster: ClusterOptions,
    pub duration: Duration,
    pub seed: u64,
    /// Resident memory that a node may have more than in the quiet phase.
    pub growth_mib_max: u64,
    /// By how much the normal clients' p99 may rise; `None` where the machine is shared.
    pub p99_factor_max: Option<f64>,
}

/// Runs, checks and reports; whether all held. The cluster's folder is kept where it did not.
///
/// # Errors
/// The cluster does not start, or the machine gives too few files.
pub async fn run(options: &HostileOptions) -> Result<bool> {
    raise_file_limit()?;
    report::progress(format!(
        "hostile clients against {} for {} s, seed {}",
        options.cluster.kind.label(),
        options.duration.as_secs(),
        options.seed
    ));
    let mut cluster = Cluster::start(&options.cluster).await?;
    let outcome = attack(&mut cluster, options).await;
    let held = matches!(outcome, Ok(true));
    if !held {
        let logs = cluster.log_tails();
        let folder = cluster.keep_folder();
        report::progress(format!("logs and data stay in {}\n{logs}", folder.display()));
    }
    outcome
}

async fn attack(cluster: &mut Cluster, options: &HostileOptions) -> Result<bool> {
    let mut normal = Normal::start(&cluster.clients()).await?;
    // A fifth of the time shows what is usual.
    let quiet_for = (options.duration / 5).clamp(Duration::from_secs(4), Duration::from_secs(60));
    let usual = watch_memory(cluster, quiet_for).await?;
    let quiet = normal.take();
    report::progress(format!("quiet:   {}", quiet.summary()));

    let target = Target::of(cluster);
    let mut attackers = JoinSet::new();
    let mut seeds = StdRng::seed_from_u64(options.seed);
    for attack in ATTACKS {
        for _ in 0..attack.n_workers {
            let rng = StdRng::from_rng(&mut seeds);
            let (work, target) = (attack.work, target.clone());
            attackers.spawn(async move { work(target, rng).await });
        }
    }
    let peak = watch_memory(cluster, options.duration).await?;
    let hostile = normal.take();
    target.end();
    while attackers.join_next().await.transpose().context("an attacker panicked")?.is_some() {}
    report::progress(format!("hostile: {}", hostile.summary()));
    for attack in ATTACKS {
        report::progress(format!("  {}", target.tally(attack.name)));
    }
    let idle = normal.conclude().await?;
    cluster.check_alive()?;
    let restarts = restart_all(cluster).await?;
    Ok(judge(options, &Figures { usual, peak, quiet, hostile, idle, restarts }))
}

/// What was seen.
struct Figures {
    /// Of each node, in bytes.
    usual: Vec<u64>,
    peak: Vec<u64>,
    quiet: Window,
    hostile: Window,
    /// What ended the client that did nothing but ping.
    idle: Option<String>,
    restarts: Vec<Duration>,
}

fn judge(options: &HostileOptions, figures: &Figures) -> bool {
    let mut broken = Vec::new();
    for (at, (usual, peak)) in figures.usual.iter().zip(&figures.peak).enumerate() {
        let growth_mib = peak.saturating_sub(*usual) >> 20;
        report::progress(format!(
            "node {}: {} MiB, at most {growth_mib} MiB more",
            at + 1,
            usual >> 20
        ));
        if growth_mib > options.growth_mib_max {
            broken.push(format!(
                "node {} grew by {growth_mib} MiB, the limit is {}",
                at + 1,
                options.growth_mib_max
            ));
        }
    }
    let factor = figures.hostile.p99_ms / figures.quiet.p99_ms.max(0.1);
    report::progress(format!("p99 of normal clients: {factor:.1} times that of the quiet phase"));
    if options.p99_factor_max.is_some_and(|max| factor > max) {
        broken.push(format!("p99 of normal clients rose {factor:.1} times"));
    }
    for (phase, window) in [("quiet", &figures.quiet), ("hostile", &figures.hostile)] {
        if window.n_errors > 0 {
            broken.push(format!(
                "{} errors of normal clients in the {phase} phase, such as: {}",
                window.n_errors,
                window.errors.join("; ")
            ));
        }
        if window.n_calls == 0 {
            broken.push(format!("no call of a normal client was answered in the {phase} phase"));
        }
    }
    if let Some(reason) = &figures.idle {
        broken.push(format!("the client that only pinged lost its connection: {reason}"));
    }
    for (at, took) in figures.restarts.iter().enumerate() {
        report::progress(format!("node {} restarted in {:.1} s", at + 1, took.as_secs_f64()));
        if *took > RESTART_MAX {
            broken.push(format!("node {} took {:.1} s to restart", at + 1, took.as_secs_f64()));
        }
    }
    for reason in &broken {
        report::progress(format!("BROKEN: {reason}"));
    }
    report::progress(format!(
        "{} (seed {})",
        if broken.is_empty() { "all held" } else { "NOT all held" },
        options.seed
    ));
    broken.is_empty()
}

/// The largest resident memory of each node within a time.
async fn watch_memory(cluster: &mut Cluster, duration: Duration) -> Result<Vec<u64>> {
    let mut largest = vec![0; cluster.nodes.len()];
    let until = Instant::now() + duration;
    while Instant::now() < until {
        cluster.check_alive()?;
        for (largest, pid) in largest.iter_mut().zip(cluster.pids()) {
            *largest = resident_bytes(pid)?.max(*largest);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(largest)
}

/// Stops each node in turn and measures until it answers again.
async fn restart_all(cluster: &mut Cluster) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for at in 0..cluster.nodes.len() {
        cluster.nodes[at].process.terminate(Duration::from_secs(10));
        let began = Instant::now();
        cluster.nodes[at].process.start()?;
        cluster.wait_ready(Duration::from_secs(120)).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Thousands of connections are held from this process.
fn raise_file_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })
        .context("raising the limit of open files")
}
