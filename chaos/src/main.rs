//! `quorate-chaos`: breaks and measures clusters of real processes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chaos::cluster::{ClusterKind, ClusterOptions};
use chaos::failover::{FailoverOptions, Mode};
use chaos::torture::{Ending, TortureOptions};
use chaos::workload::Mix;
use chaos::{demo, failover, report, torture};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "quorate-chaos",
    version,
    about = "Breaks and measures clusters of real processes"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which server to drive.
#[derive(Args, Clone, Debug)]
struct Target {
    /// The quorate binary [default: beside this program]
    #[arg(long, value_name = "FILE")]
    quorate: Option<PathBuf>,
    /// Drive this etcd binary instead
    #[arg(long, value_name = "FILE", conflicts_with = "quorate")]
    etcd: Option<PathBuf>,
    /// Where the temporary data goes [default: the system's temporary folder]
    #[arg(long, value_name = "FOLDER")]
    work_dir: Option<PathBuf>,
    /// A flag added to every node's command line; may be repeated
    #[arg(long = "node-arg", value_name = "ARG", allow_hyphen_values = true)]
    node_args: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Kill the leader of three nodes under load and show what it costs
    Demo {
        #[command(flatten)]
        target: Target,
    },
    /// Measure the gap when the leader is killed, frozen or hands over
    Failover {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 20)]
        runs: usize,
        #[arg(long, value_enum, default_value = "kill")]
        mode: Mode,
        /// Fail where the median is above this
        #[arg(long, value_name = "MS")]
        median_ms_max: Option<f64>,
        /// Fail where any gap is above this
        #[arg(long, value_name = "MS")]
        max_ms_max: Option<f64>,
    },
    /// Random faults under a mixed load, then check every promise
    Torture {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The faults follow from it [default: drawn, and printed]
        #[arg(long)]
        seed: Option<u64>,
    },
}

impl Target {
    fn kind(&self) -> Result<ClusterKind> {
        if let Some(etcd) = &self.etcd {
            return Ok(ClusterKind::Etcd(etcd.clone()));
        }
        let quorate = match &self.quorate {
            Some(quorate) => quorate.clone(),
            None => std::env::current_exe()?.with_file_name("quorate"),
        };
        if !quorate.exists() {
            bail!("there is no {}: build it, or name it with --quorate FILE", quorate.display());
        }
        Ok(ClusterKind::Quorate(quorate))
    }

    fn options(&self) -> Result<ClusterOptions> {
        Ok(ClusterOptions {
            kind: self.kind()?,
            n_nodes: 3,
            extra_args: self.node_args.clone(),
            work_dir: self.work_dir.clone(),
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quorate-chaos: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(async {
        // Dropping the command kills the processes that it started.
        tokio::select! {
            code = run(cli) => code,
            signal = interrupted() => bail!("stopped by {signal}; all nodes were killed"),
        }
    })
}

async fn interrupted() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return "an error of the signal handler";
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Demo { target } => Ok(verdict(demo::run(&target.options()?).await?)),
        Command::Failover { target, runs, mode, median_ms_max, max_ms_max } => {
            let cluster = target.options()?;
            let label = cluster.kind.label();
            let options = FailoverOptions { cluster, mode, n_runs: runs };
            let report = failover::run(&options).await?;
            report::line(format!("failover {label} {mode:?}: {}", report.summary()));
            let good = report.n_lost == 0
                && median_ms_max.is_none_or(|bound| report.median_ms <= bound)
                && max_ms_max.is_none_or(|bound| report.max_ms <= bound);
            Ok(verdict(good))
        }
        Command::Torture { target, seconds, seed } => {
            let options = TortureOptions {
                cluster: target.options()?,
                duration: Duration::from_secs(seconds),
                seed: seed.unwrap_or_else(rand::random),
                mix: Mix::default(),
            };
            Ok(match torture::run(&options).await? {
                Ending::Green => ExitCode::SUCCESS,
                Ending::Violated => ExitCode::from(1),
                Ending::Invalid => ExitCode::from(2),
            })
        }
    }
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
