//! Two binaries of Quorate in turn, case by case: whether a change made anything slower.
//!
//! The machine's speed drifts by more than a change costs, so each pair of runs is a ratio of its
//! own, the binaries take turns in going first, and the median of the ratios counts.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, ClusterKind, ClusterOptions};
use crate::failover::{self, FailoverOptions, Mode};
use crate::load::{LoadReport, Op};
use crate::numbers::{max, median};
use crate::report;

/// What is measured with each generator: operation and clients.
const CASES: [(Op, usize); 8] = [
    (Op::Put, 1),
    (Op::Put, 64),
    (Op::Put, 256),
    (Op::Get, 1),
    (Op::Get, 256),
    (Op::GetSerializable, 256),
    (Op::Txn, 64),
    (Op::Watch, 8),
];
const WARM_UP_S: u64 = 2;
/// Over all endpoints.
const N_CONNECTIONS: usize = 9;
/// Beyond the measured time: loading what is read, and the end of calls.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub struct PairsOptions {
    pub old: PathBuf,
    pub new: PathBuf,
    /// `etcd-client-load`; without it only our own generator runs.
    pub standard_client: Option<PathBuf>,
    pub work_dir: Option<PathBuf>,
    pub n_pairs: usize,
    /// Measured time of each case.
    pub seconds: u64,
    /// Killed leaders of each binary in each pair; 0 leaves the failover out.
    pub n_failovers: usize,
    /// Only these operations; all where empty.
    pub only: Vec<Op>,
    /// The least median ratio that passes.
    pub ratio_min: f64,
}

/// One case and what each pair of runs showed: old, new.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    /// Of two figures the larger is better; otherwise the smaller.
    larger_is_better: bool,
    pairs: Vec<(f64, f64)>,
}

impl Row {
    /// How good the new one is, as a part of the old one, in each pair.
    fn ratios(&self) -> Vec<f64> {
        let ratio = |(old, new): &(f64, f64)| match self.larger_is_better {
            true => new / old,
            false => old / new,
        };
        self.pairs.iter().map(ratio).collect()
    }

    /// Whether the figures of both lie in ranges that have a value in common.
    fn overlap(&self) -> bool {
        let (old, new): (Vec<f64>, Vec<f64>) = self.pairs.iter().copied().unzip();
        min(&old) <= max(&new) && min(&new) <= max(&old)
    }

    fn passes(&self, ratio_min: f64) -> bool {
        median(&self.ratios()) >= ratio_min || self.overlap()
    }
}

/// Measures all pairs and prints the table. Returns whether each case passes: the median ratio is
/// at least the bound, or the ranges of both binaries overlap.
///
/// # Errors
/// A server or a measurement failed.
pub async fn run(options: &PairsOptions) -> Result<bool> {
    let mut rows: Vec<Row> = Vec::new();
    for pair in 1..=options.n_pairs {
        let mut found = [Vec::new(), Vec::new()];
        let order = if pair % 2 == 1 { [0, 1] } else { [1, 0] };
        for which in order {
            found[which] = measure(options, which, pair).await?;
        }
        let [old, new] = found;
        for ((name, larger_is_better, old), (_, _, new)) in old.into_iter().zip(new) {
            match rows.iter_mut().find(|row| row.name == name) {
                Some(row) => row.pairs.push((old, new)),
                None => rows.push(Row { name, larger_is_better, pairs: vec![(old, new)] }),
            }
        }
    }
    report::line(table(&rows, options.ratio_min));
    Ok(rows.iter().all(|row| row.passes(options.ratio_min)))
}

type Figure = (String, bool, f64);

/// All cases of one binary, once.
async fn measure(options: &PairsOptions, which: usize, pair: usize) -> Result<Vec<Figure>> {
    let (label, binary) = [("old", &options.old), ("new", &options.new)][which];
    let kind = ClusterKind::Quorate(binary.clone());
    let cluster_options =
        ClusterOptions { work_dir: options.work_dir.clone(), ..ClusterOptions::three(kind) };
    let mut figures = Vec::new();
    let mut cluster = Cluster::start(&cluster_options).await?;
    let own = std::env::current_exe()?;
    let generators = [("own", Some(&own)), ("etcd-client", options.standard_client.as_ref())];
    for (generator, program) in generators {
        let Some(program) = program else { continue };
        for (op, n_clients) in CASES {
            if !options.only.is_empty() && !options.only.contains(&op) {
                continue;
            }
            let name = format!("{generator} {} {n_clients}", op.name());
            let arguments = if generator == "own" {
                own_arguments(options, &cluster, op, n_clients)
            } else {
                standard_arguments(options, &cluster, op, n_clients)
            };
            let report = load(options, program, &arguments).await.with_context(|| name.clone())?;
            ensure!(report.n_errors == 0, "{name}: {}", report.summary());
            report::progress(format!(
                "pair {pair}/{} {label} {generator:<11} {}",
                options.n_pairs,
                report.summary()
            ));
            figures.push((format!("{name}, /s"), true, report.per_second));
            let cpu_us = report.server_cpu_us.context("CPU time of the servers is missing")?;
            figures.push((format!("{name}, server CPU us"), false, cpu_us));
            cluster.check_alive()?;
        }
    }
    drop(cluster);
    if options.n_failovers > 0 {
        let failover = FailoverOptions {
            cluster: cluster_options,
            mode: Mode::Kill,
            n_runs: options.n_failovers,
        };
        figures.push(("failover, ms".to_owned(), false, failover::run(&failover).await?.median_ms));
    }
    Ok(figures)
}

fn pids(cluster: &Cluster) -> String {
    let pids: Vec<String> = cluster.pids().iter().map(u32::to_string).collect();
    pids.join(",")
}

fn own_arguments(
    options: &PairsOptions,
    cluster: &Cluster,
    op: Op,
    n_clients: usize,
) -> Vec<String> {
    let flags = [
        ("--endpoints", cluster.endpoints().join(",")),
        ("--op", op.name().to_owned()),
        ("--clients", n_clients.to_string()),
        ("--connections", N_CONNECTIONS.to_string()),
        ("--warm-up", WARM_UP_S.to_string()),
        ("--seconds", options.seconds.to_string()),
        ("--pids", pids(cluster)),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    ["load".to_owned(), "--json".to_owned()].into_iter().chain(flags).collect()
}

fn standard_arguments(
    options: &PairsOptions,
    cluster: &Cluster,
    op: Op,
    n_clients: usize,
) -> Vec<String> {
    vec![
        cluster.endpoints().join(","),
        op.name().to_owned(),
        n_clients.to_string(),
        N_CONNECTIONS.to_string(),
        WARM_UP_S.to_string(),
        options.seconds.to_string(),
        pids(cluster),
    ]
}

/// The load runs in a process of its own, so that its CPU time is its own.
async fn load(
    options: &PairsOptions,
    program: &std::path::Path,
    arguments: &[String],
) -> Result<LoadReport> {
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("running {}", program.display()))?;
    let patience = Duration::from_secs(options.seconds + WARM_UP_S) + PATIENCE;
    let output = tokio::time::timeout(patience, child.wait_with_output()).await??;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("the load printed: {text}"))
}

fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn table(rows: &[Row], ratio_min: f64) -> String {
    let mut page = String::from(
        "| case | old | new | ratio, median | least and greatest | verdict |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (old, new): (Vec<f64>, Vec<f64>) = row.pairs.iter().copied().unzip();
        let ratios = row.ratios();
        let verdict = match (median(&ratios) >= ratio_min, row.overlap()) {
            (true, _) => "as fast",
            (false, true) => "ranges overlap",
            (false, false) => "SLOWER",
        };
        let _ = writeln!(
            page,
            "| {} | {:.1} | {:.1} | {:.2} | {:.2} to {:.2} | {verdict} |",
            row.name,
            median(&old),
            median(&new),
            median(&ratios),
            min(&ratios),
            max(&ratios),
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(larger_is_better: bool, pairs: &[(f64, f64)]) -> Row {
        Row { name: "case".to_owned(), larger_is_better, pairs: pairs.to_vec() }
    }

    #[test]
    fn a_clear_loss_fails_and_noise_passes() {
        assert!(!row(true, &[(100.0, 80.0), (101.0, 82.0), (99.0, 81.0)]).passes(0.95));
        assert!(row(true, &[(100.0, 80.0), (81.0, 99.0), (99.0, 79.0)]).passes(0.95));
        assert!(row(true, &[(100.0, 96.0), (101.0, 97.0)]).passes(0.95));
    }

    #[test]
    fn more_time_is_a_loss() {
        assert!(!row(false, &[(100.0, 130.0), (99.0, 128.0)]).passes(0.95));
        assert!(row(false, &[(100.0, 70.0), (99.0, 72.0)]).passes(0.95));
    }
}
