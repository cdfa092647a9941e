//! `quorate-chaos`: breaks and measures clusters of real processes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chaos::backup::BackupOptions;
use chaos::bench::BenchOptions;
use chaos::bit_rot::{BitRotOptions, Victim};
use chaos::cluster::{Cluster, ClusterKind, ClusterOptions};
use chaos::coordinator::{self, Collection, CoordinatorOptions, Method, Running};
use chaos::disk_full::{DiskFullOptions, Fill, Whose};
use chaos::failover::{FailoverOptions, Mode};
use chaos::hostile::HostileOptions;
use chaos::load::{LoadOptions, Op};
use chaos::pairs::PairsOptions;
use chaos::past::PastOptions;
use chaos::power_cut::PowerCutOptions;
use chaos::snapshot::SnapshotOptions;
use chaos::torture::{Ending, TortureOptions};
use chaos::workload::Mix;
use chaos::{
    assertions, backup, bench, bit_rot, ceiling, demo, disk, disk_full, failover, hostile, load,
    million, pairs, past, power_cut, report, snapshot, torture,
};
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
    /// Refuse a quorate that was built without the debug assertions of its consensus engine
    #[arg(long)]
    require_assertions: bool,
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
    /// Measure the gap when the leader is killed, frozen or hands over, or its disk hangs
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
    /// Fill disks under load, to the low mark and to the last byte; needs root
    DiskFull {
        #[command(flatten)]
        target: Target,
        /// Whose disks, one case after the other
        #[arg(long, value_enum, value_delimiter = ',', default_value = "leader,follower,all")]
        whose: Vec<Whose>,
        #[arg(long, value_enum, value_delimiter = ',', default_value = "low-mark,last-byte")]
        fill: Vec<Fill>,
        /// How long the disks stay full
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Random faults under a mixed load, then check every promise
    Torture {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Put proxies between the peers and cut them, too
        #[arg(long)]
        network: bool,
        /// The faults follow from it [default: drawn, and printed]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Cut the power of all nodes under load, on disks that forget what was not synced (as root)
    PowerCut {
        #[command(flatten)]
        target: Target,
        /// Cuts of all nodes; one that dropped nothing does not count
        #[arg(long, default_value_t = 20)]
        cuts: usize,
        /// The plan follows from it [default: drawn, and printed]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Flip bits in the table files of one node under load, on disks of their own (as root)
    BitRot {
        #[command(flatten)]
        target: Target,
        /// Which nodes to damage, one after the other
        #[arg(long, value_enum, value_delimiter = ',', default_value = "follower,leader")]
        whose: Vec<Victim>,
        /// The seed that decides which bits are flipped [default: drawn, and printed]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run hostile clients (huge requests, floods, garbage, calls that never end) beside normal ones
    Hostile {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// What is sent follows from it [default: drawn, and printed]
        #[arg(long)]
        seed: Option<u64>,
        /// Fail where a node's resident memory grows by more
        #[arg(long, value_name = "MIB", default_value_t = 512)]
        growth_mib_max: u64,
        /// Fail where p99 of the normal clients rises by more
        #[arg(long, value_name = "FACTOR")]
        p99_factor_max: Option<f64>,
    },
    /// A large state; a wiped follower comes back while writes go on, and is killed meanwhile
    Snapshot {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 2.0)]
        gib: f64,
        #[arg(long, default_value_t = 10)]
        kills: usize,
        /// Fail where p99 of writes rises by more [default: 3 from 1 GiB on]
        #[arg(long, value_name = "FACTOR")]
        p99_factor_max: Option<f64>,
        /// The moments of the kills follow from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Save under load, restore into a new cluster, compare; damaged files are refused
    Backup {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 50_000)]
        keys: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// A million keys: memory, list, restart, backup
    Million {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        #[arg(long)]
        json: bool,
    },
    /// Pages of a list at one past revision, and watches from far back, both under writes
    Past {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 50_000)]
        keys: u64,
        /// How often each key is written before the list begins
        #[arg(long, default_value_t = 1)]
        versions: u64,
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
        watchers: u16,
        /// Revisions between the beginning of the watches and now
        #[arg(long, default_value_t = 60_000)]
        revisions: usize,
        #[arg(long)]
        json: bool,
    },
    /// Quorate, etcd and the ceiling in turn, into one table
    Bench {
        /// The quorate binary [default: beside this program]
        #[arg(long, value_name = "FILE")]
        quorate: Option<PathBuf>,
        #[arg(long, value_name = "FILE")]
        etcd: PathBuf,
        #[arg(long, value_name = "FOLDER")]
        work_dir: Option<PathBuf>,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Measured time of each case
        #[arg(long, default_value_t = 8)]
        seconds: u64,
        #[arg(long, default_value_t = 20)]
        failovers: usize,
        /// 0 leaves the million keys out
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// Keys of the reads of the past; 0 leaves them out
        #[arg(long, default_value_t = 50_000)]
        past_keys: u64,
        /// Only these operations
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Op>,
        /// Leave the ceiling out
        #[arg(long)]
        no_ceiling: bool,
        #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
        output: PathBuf,
    },
    /// Two binaries of Quorate in turn: whether the new one is slower anywhere
    Pairs(PairsArgs),
    /// The coordinator: calls in a closed loop, flushes, lost data nodes, killed leaders
    Coordinator {
        #[command(flatten)]
        target: Target,
        /// Flushed segments of four fields on record before
        #[arg(long, default_value_t = 0)]
        segments: u64,
        /// Simulated ones
        #[arg(long, default_value_t = 1)]
        data_nodes: usize,
        /// Beside the four that rows are assigned on
        #[arg(long, default_value_t = 0)]
        channels: usize,
        /// Measured time of each case
        #[arg(long, default_value_t = 8)]
        seconds: u64,
        /// How often each case is measured, in turn with the same one on three nodes without
        /// segments; where there are segments
        #[arg(long, default_value_t = 11)]
        rounds: usize,
        /// Clients of each case that is not paced
        #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
        clients: Vec<usize>,
        /// Only these calls after the paced ones; all where none is named
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Method>,
        #[arg(long, default_value_t = 0)]
        failovers: usize,
        #[arg(long)]
        json: bool,
    },
    /// Calls of the DataCoord of a Milvus that runs, for a collection of it
    Datacoord {
        #[command(flatten)]
        running: RunningArgs,
        #[arg(long, value_enum)]
        method: Method,
        #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
        clients: Vec<usize>,
        #[arg(long, default_value_t = 8)]
        seconds: u64,
        #[arg(long)]
        json: bool,
    },
    /// Writes flushed segments of four fields as a stock coordinator would have
    Segments {
        #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
        endpoints: Vec<String>,
        #[arg(long)]
        count: u64,
        /// That they are of [default: many of their own]
        #[arg(long, requires_all = ["partition", "channels"])]
        collection: Option<i64>,
        #[arg(long, requires = "collection")]
        partition: Option<i64>,
        /// Virtual ones, of that collection
        #[arg(long, value_delimiter = ',', requires = "collection")]
        channels: Vec<String>,
        /// Of a flushed segment in the object store: each is given a link to it, beside it
        #[arg(long, value_name = "FOLDER", requires = "collection")]
        statistics: Option<PathBuf>,
    },
    /// Closed-loop load on any etcd v3 endpoints
    Load {
        #[command(flatten)]
        load: LoadArgs,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Serve disks that forget what was not synced, by orders on standard input
    #[command(hide = true)]
    Disks {
        /// Room of each
        #[arg(long)]
        bytes: u64,
        #[arg(required = true)]
        mountpoints: Vec<PathBuf>,
    },
    /// Start a cluster, print its endpoints and pids, and hold it until Ctrl-C
    Hold {
        #[command(flatten)]
        target: Target,
    },
    /// Serve the KV calls at once, with no log, no disk and no peers
    Ceiling {
        #[arg(long, value_name = "HOST:PORT")]
        listen: std::net::SocketAddr,
    },
}

#[derive(Args, Clone, Debug)]
struct RunningArgs {
    /// Where its session key is
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    etcd: Vec<String>,
    #[arg(long, default_value = "by-dev")]
    root_path: String,
    #[arg(long)]
    collection: i64,
    #[arg(long)]
    partition: i64,
    /// Virtual channels
    #[arg(long, value_delimiter = ',', required = true)]
    channels: Vec<String>,
    /// Id of the data node that has them
    #[arg(long)]
    data_node: i64,
}

impl RunningArgs {
    fn running(self) -> Running {
        let RunningArgs { etcd, root_path, collection, partition, channels, data_node } = self;
        Running { etcd, root_path, collection, partition, channels, data_node }
    }
}

#[derive(Args, Clone, Debug)]
struct PairsArgs {
    /// The quorate binary to compare with
    #[arg(long, value_name = "FILE")]
    old: PathBuf,
    /// The quorate binary that is judged [default: beside this program]
    #[arg(long, value_name = "FILE")]
    new: Option<PathBuf>,
    /// Measure with this `etcd-client-load`, too (`tests/clients/build-rust` builds it)
    #[arg(long, value_name = "FILE")]
    standard_client: Option<PathBuf>,
    #[arg(long, value_name = "FOLDER")]
    work_dir: Option<PathBuf>,
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Measured time of each case
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Killed leaders of each binary in each pair
    #[arg(long, default_value_t = 5)]
    failovers: usize,
    /// Only these operations
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Op>,
    /// Least median ratio of new to old that passes where the ranges do not overlap
    #[arg(long, default_value_t = 0.95)]
    ratio_min: f64,
}

impl PairsArgs {
    fn options(self) -> Result<PairsOptions> {
        Ok(PairsOptions {
            old: self.old,
            new: quorate_binary(self.new.as_ref())?,
            standard_client: self.standard_client,
            work_dir: self.work_dir,
            n_pairs: self.pairs,
            seconds: self.seconds,
            n_failovers: self.failovers,
            only: self.only,
            ratio_min: self.ratio_min,
        })
    }
}

#[derive(Args, Clone, Debug)]
struct LoadArgs {
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    #[arg(long, value_enum)]
    op: Op,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Over all endpoints
    #[arg(long, default_value_t = 12)]
    connections: usize,
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Not measured
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    warm_up: f64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Servers whose CPU time is measured
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pids: Vec<u32>,
}

impl LoadArgs {
    fn options(self) -> LoadOptions {
        LoadOptions {
            endpoints: self.endpoints,
            op: self.op,
            n_clients: self.clients,
            n_connections: self.connections,
            n_watchers: self.watchers,
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.seconds),
            pids: self.pids,
        }
    }
}

impl Target {
    fn kind(&self) -> Result<ClusterKind> {
        if let Some(etcd) = &self.etcd {
            return Ok(ClusterKind::Etcd(etcd.clone()));
        }
        let quorate = quorate_binary(self.quorate.as_ref())?;
        if self.require_assertions {
            assertions::require(&quorate)?;
        }
        Ok(ClusterKind::Quorate(quorate))
    }

    fn options(&self) -> Result<ClusterOptions> {
        Ok(ClusterOptions {
            extra_args: self.node_args.clone(),
            work_dir: self.work_dir.clone(),
            ..ClusterOptions::three(self.kind()?)
        })
    }
}

fn quorate_binary(named: Option<&PathBuf>) -> Result<PathBuf> {
    let quorate = match named {
        Some(quorate) => quorate.clone(),
        None => std::env::current_exe()?.with_file_name("quorate"),
    };
    if !quorate.exists() {
        bail!("there is no {}: build it, or name it with --quorate FILE", quorate.display());
    }
    Ok(quorate)
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
    // Before any runtime: it must not end by a signal that is for the program that drives it.
    if let Command::Disks { bytes, mountpoints } = &cli.command {
        disk::control::serve(*bytes, mountpoints)?;
        return Ok(ExitCode::SUCCESS);
    }
    // One thread is the cheapest load generator; everything else may wait for blocking calls.
    let mut builder = if matches!(cli.command, Command::Load { .. }) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime =
        builder.worker_threads(2).enable_all().build().context("starting the async runtime")?;
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
        Command::DiskFull { target, whose, fill, seconds } => {
            let cluster = target.options()?;
            let full = Duration::from_secs(seconds);
            let options = DiskFullOptions { cluster, whose, fills: fill, full };
            disk_full::run(&options).await?;
            Ok(verdict(true))
        }
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
        Command::Torture { target, seconds, network, seed } => {
            let options = TortureOptions {
                cluster: ClusterOptions { proxied: network, ..target.options()? },
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
        Command::PowerCut { target, cuts, seed } => {
            let options = PowerCutOptions {
                cluster: target.options()?,
                n_cuts: cuts,
                seed: seed.unwrap_or_else(rand::random),
                mix: Mix::default(),
            };
            Ok(verdict(power_cut::run(&options).await?))
        }
        Command::BitRot { target, whose, seed } => {
            let options = BitRotOptions {
                cluster: target.options()?,
                victims: whose,
                seed: seed.unwrap_or_else(rand::random),
            };
            Ok(verdict(bit_rot::run(&options).await?))
        }
        Command::Hostile { target, seconds, seed, growth_mib_max, p99_factor_max } => {
            let options = HostileOptions {
                cluster: target.options()?,
                duration: Duration::from_secs(seconds),
                seed: seed.unwrap_or_else(rand::random),
                growth_mib_max,
                p99_factor_max,
            };
            Ok(verdict(hostile::run(&options).await?))
        }
        Command::Snapshot { target, gib, kills, p99_factor_max, seed } => {
            let cluster = target.options()?;
            let options = SnapshotOptions {
                cluster,
                gib,
                n_kills: kills,
                seed,
                p99_factor_max: p99_factor_max.unwrap_or(snapshot::p99_factor_max(gib)),
            };
            Ok(verdict(snapshot::run(&options).await?))
        }
        Command::Backup { target, keys, seed } => {
            let cluster = target.options()?;
            backup::run(&BackupOptions { cluster, n_keys: keys, seed }).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Million { target, keys, json } => {
            let report = million::run(&target.options()?, keys).await?;
            report::line(if json { serde_json::to_string(&report)? } else { report.summary() });
            Ok(ExitCode::SUCCESS)
        }
        Command::Past { target, keys, versions, watchers, revisions, json } => {
            let options = PastOptions {
                cluster: target.options()?,
                n_keys: keys,
                n_versions: versions,
                n_watchers: watchers.into(),
                n_revisions: revisions,
            };
            let report = past::run(&options).await?;
            report::line(if json { serde_json::to_string(&report)? } else { report.summary() });
            Ok(ExitCode::SUCCESS)
        }
        Command::Coordinator {
            target,
            segments,
            data_nodes,
            channels,
            seconds,
            rounds,
            clients,
            only,
            failovers,
            json,
        } => {
            let options = CoordinatorOptions {
                cluster: target.options()?,
                n_segments: segments,
                n_data_nodes: data_nodes,
                n_channels: channels,
                seconds,
                n_rounds: rounds,
                clients,
                only,
                n_failovers: failovers,
            };
            let report = coordinator::run(&options).await?;
            report::line(if json { serde_json::to_string(&report)? } else { report.summary() });
            Ok(ExitCode::SUCCESS)
        }
        Command::Datacoord { running, method, clients, seconds, json } => {
            let running = running.running();
            let reports = coordinator::against(running, method, &clients, seconds).await?;
            if json {
                report::line(serde_json::to_string(&reports)?);
            } else {
                for report in reports {
                    report::line(report.summary());
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Segments { endpoints, count, collection, partition, channels, statistics } => {
            if let Some(folder) = statistics {
                coordinator::link_statistics(count, &folder)?;
            }
            let into = collection.zip(partition);
            let into = into.map(|(id, partition)| Collection { id, partition, channels });
            coordinator::write_segments(count, into, &endpoints).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench {
            quorate,
            etcd,
            work_dir,
            rounds,
            seconds,
            failovers,
            keys,
            past_keys,
            only,
            no_ceiling,
            output,
        } => {
            let options = BenchOptions {
                quorate: quorate_binary(quorate.as_ref())?,
                etcd,
                work_dir,
                n_rounds: rounds,
                seconds,
                n_failovers: failovers,
                n_keys: keys,
                n_past_keys: past_keys,
                only,
                peers_only: no_ceiling,
                output,
            };
            bench::run(&options).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pairs(args) => Ok(verdict(pairs::run(&args.options()?).await?)),
        Command::Load { load: args, json } => {
            let report = load::run(&args.options()).await?;
            report::line(if json { serde_json::to_string(&report)? } else { report.summary() });
            Ok(verdict(report.n_errors == 0))
        }
        Command::Disks { .. } => bail!("disks are served before the runtime starts"),
        Command::Hold { target } => {
            let cluster = Cluster::start(&target.options()?).await?;
            let pids: Vec<String> = cluster.pids().iter().map(u32::to_string).collect();
            report::line(format!(
                "--endpoints {} --pids {}",
                cluster.endpoints().join(","),
                pids.join(",")
            ));
            std::future::pending().await
        }
        Command::Ceiling { listen } => {
            ceiling::run(listen).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
