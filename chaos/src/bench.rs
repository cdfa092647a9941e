//! Quorate, etcd and the ceiling in turn, several rounds, into one table with ratios.

mod table;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, ClusterKind, ClusterOptions, command};
use crate::failover::{self, FailoverOptions, FailoverReport, Mode};
use crate::load::{LoadReport, Op};
use crate::million::{self, MillionReport};
use crate::past::{self, PastOptions, PastReport};
use crate::report;

/// What is measured in every round: operation and clients.
const CASES: [(Op, usize); 12] = [
    (Op::Put, 1),
    (Op::Put, 64),
    (Op::Put, 256),
    (Op::Get, 1),
    (Op::Get, 64),
    (Op::Get, 256),
    (Op::GetSerializable, 256),
    (Op::Range, 16),
    (Op::Txn, 64),
    (Op::Watch, 8),
    (Op::KeepAlive, 64),
    (Op::KeepAlive, 256),
];
const WARM_UP_S: u64 = 2;

/// What to run.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub quorate: PathBuf,
    pub etcd: PathBuf,
    pub work_dir: Option<PathBuf>,
    pub n_rounds: usize,
    pub seconds: u64,
    pub n_failovers: usize,
    /// 0 leaves this part out.
    pub n_keys: u64,
    /// Of the reads of the past; 0 leaves this part out.
    pub n_past_keys: u64,
    /// Only these operations; all where empty.
    pub only: Vec<Op>,
    /// Without the ceiling.
    pub peers_only: bool,
    pub output: PathBuf,
}

/// Everything that was measured, as it is kept beside the table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub machine: String,
    pub quorate_version: String,
    pub etcd_version: String,
    pub commands: Vec<String>,
    pub loads: Vec<Measured>,
    pub failovers: Vec<(String, f64, f64, usize)>,
    pub millions: Vec<(String, MillionReport)>,
    #[serde(default)]
    pub pasts: Vec<(String, PastReport)>,
}

/// One load report and whose it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub kind: String,
    pub round: usize,
    pub report: LoadReport,
}

/// Measures everything and writes the table.
///
/// # Errors
/// A server or a measurement failed; what was measured before is written all the same.
pub async fn run(options: &BenchOptions) -> Result<()> {
    let mut results = Results {
        machine: machine(),
        quorate_version: version(&options.quorate).await?,
        etcd_version: version(&options.etcd).await?,
        ..Results::default()
    };
    let ended = measure(options, &mut results).await;
    let text = table::render(&results);
    if let Some(folder) = options.output.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&options.output, &text)
        .with_context(|| format!("writing {}", options.output.display()))?;
    report::line(&text);
    report::progress(format!("written to {}", options.output.display()));
    ended
}

async fn measure(options: &BenchOptions, results: &mut Results) -> Result<()> {
    let this = std::env::current_exe()?;
    let mut kinds = vec![
        ClusterKind::Quorate(options.quorate.clone()),
        ClusterKind::Etcd(options.etcd.clone()),
    ];
    let peers = kinds.clone();
    if !options.peers_only {
        kinds.push(ClusterKind::Ceiling(this));
    }
    let cases: Vec<(Op, usize)> = CASES
        .into_iter()
        .filter(|(op, _)| options.only.is_empty() || options.only.contains(op))
        .collect();
    let per_case = options.seconds + WARM_UP_S + 1;
    let n_runs = u64::try_from(options.n_rounds * kinds.len() * cases.len())?;
    report::progress(format!(
        "{} rounds of {} servers and {} cases: about {} minutes; then failover and the million keys",
        options.n_rounds,
        kinds.len(),
        cases.len(),
        n_runs * per_case / 60 + 1
    ));
    for round in 1..=options.n_rounds {
        for kind in &kinds {
            one_round(options, results, kind, round, &cases).await?;
        }
    }
    for kind in &peers {
        if options.n_failovers > 0 {
            let gaps = failover(options, kind).await?;
            let label = kind.label().to_owned();
            results.failovers.push((label, gaps.median_ms, gaps.max_ms, gaps.gaps_ms.len()));
        }
    }
    for kind in &peers {
        if options.n_keys > 0 {
            let found = million::run(&cluster_options(options, kind), options.n_keys).await?;
            report::progress(format!("{}: {}", kind.label(), found.summary()));
            results.millions.push((kind.label().to_owned(), found));
        }
    }
    for n_versions in [1, 4] {
        for kind in &peers {
            if options.n_past_keys > 0 {
                let found = past(options, kind, n_versions).await?;
                report::progress(format!("{}: {}", kind.label(), found.summary()));
                results.pasts.push((kind.label().to_owned(), found));
            }
        }
    }
    Ok(())
}

async fn past(options: &BenchOptions, kind: &ClusterKind, n_versions: u64) -> Result<PastReport> {
    past::run(&PastOptions {
        cluster: cluster_options(options, kind),
        n_keys: options.n_past_keys,
        n_versions,
        n_watchers: 200,
        n_revisions: 60_000,
    })
    .await
}

fn cluster_options(options: &BenchOptions, kind: &ClusterKind) -> ClusterOptions {
    ClusterOptions { work_dir: options.work_dir.clone(), ..ClusterOptions::three(kind.clone()) }
}

async fn failover(options: &BenchOptions, kind: &ClusterKind) -> Result<FailoverReport> {
    let cluster = cluster_options(options, kind);
    failover::run(&FailoverOptions { cluster, mode: Mode::Kill, n_runs: options.n_failovers }).await
}

/// All cases on one fresh cluster.
async fn one_round(
    options: &BenchOptions,
    results: &mut Results,
    kind: &ClusterKind,
    round: usize,
    cases: &[(Op, usize)],
) -> Result<()> {
    let mut cluster = Cluster::start(&cluster_options(options, kind)).await?;
    if round == 1 {
        for node in &cluster.nodes {
            results.commands.push(node.process.command_line());
        }
    }
    for (op, n_clients) in cases {
        if matches!(kind, ClusterKind::Ceiling(_)) && *op == Op::Watch {
            continue;
        }
        let began = Instant::now();
        let report = load(options, results, &cluster, *op, *n_clients)
            .await
            .with_context(|| format!("{} {} with {n_clients}", kind.label(), op.name()))?;
        report::progress(format!(
            "round {round}/{} {:<8} {}",
            options.n_rounds,
            kind.label(),
            report.summary()
        ));
        ensure!(began.elapsed() < Duration::from_secs(180), "a measurement took too long");
        results.loads.push(Measured { kind: kind.label().to_owned(), round, report });
        cluster.check_alive()?;
    }
    Ok(())
}

/// The load runs in a process of its own, so that its CPU time is its own.
async fn load(
    options: &BenchOptions,
    results: &mut Results,
    cluster: &Cluster,
    op: Op,
    n_clients: usize,
) -> Result<LoadReport> {
    let pids: Vec<String> = cluster.pids().iter().map(u32::to_string).collect();
    let args = [
        "load",
        "--endpoints",
        &cluster.endpoints().join(","),
        "--op",
        op.name(),
        "--clients",
        &n_clients.to_string(),
        "--warm-up",
        &WARM_UP_S.to_string(),
        "--seconds",
        &options.seconds.to_string(),
        "--pids",
        &pids.join(","),
    ];
    let line = format!("quorate-chaos {}", args.join(" "));
    let n_cases = results.commands.iter().filter(|it| it.starts_with("quorate-chaos load")).count();
    if n_cases < CASES.len() && matches!(cluster.kind, ClusterKind::Quorate(_)) {
        results.commands.push(line);
    }
    let child = tokio::process::Command::new(std::env::current_exe()?)
        .args(args)
        .arg("--json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let patience = Duration::from_secs(options.seconds + WARM_UP_S + 90);
    let output = tokio::time::timeout(patience, child.wait_with_output()).await??;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("the load printed: {text}"))
}

async fn version(binary: &std::path::Path) -> Result<String> {
    let output = command::run(binary, &["--version"], Duration::from_secs(10)).await?;
    Ok(output.stdout.lines().next().unwrap_or("unknown").to_owned())
}

/// Cores, processor and kernel, in one line.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let n_cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{n_cores} cores ({model}), Linux {}", kernel.trim())
}
