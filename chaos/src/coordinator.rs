//! What the coordinator does under load: assignments in a closed loop, with nothing and with many
//! segments on record, and how soon another node assigns when the leader is killed.
//!
//! A RootCoord of our own gives ids and timestamps, so that only the coordinator is measured.

mod calls;
mod data_nodes;
mod flushes;
mod passes;
mod queries;
mod root_coord;
mod segments;
mod standing;
mod target;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cluster::usage::{cpu_time_of_all, resident_bytes};
use crate::cluster::{Cluster, ClusterOptions};
use crate::numbers::{float, max, median, millis, percentile};
use crate::report;
use crate::synced_writes::{DiskReport, SyncedWrites};
use calls::Load;
pub use calls::{CallReport, Method};
pub use passes::PassReport;
pub use segments::{link_statistics, load as write_segments};
use standing::{Standing, stand};
use target::{Place, Target};

const ROOT_PATH: &str = "by-dev";
const COLLECTION: i64 = 449_000_000_000_000_000;
const N_CHANNELS: usize = 4;
/// Of each collection that only channels are asked of.
const CHANNELS_OF_COLLECTION: usize = 100;
/// Calls a second at which latencies are told.
const PACE: u32 = 1000;
/// Data nodes that are lost, one after the other.
const LOSSES: usize = 5;
/// The paced calls among many segments last so long in each round that looks at everything fall into
/// some of them.
const PACED_AMONG_MANY: Duration = Duration::from_secs(10);
/// Nodes that use less than a tenth of a core in all for so long are at rest.
const REST_WINDOW: Duration = Duration::from_secs(5);
const REST_PATIENCE: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    pub cluster: ClusterOptions,
    /// Flushed segments that are on record before the role is on.
    pub n_segments: u64,
    pub n_data_nodes: usize,
    /// Beside the few that rows are assigned on.
    pub n_channels: usize,
    pub seconds: u64,
    /// In turn with three nodes without segments, where there are segments.
    pub n_rounds: usize,
    pub clients: Vec<usize>,
    /// Of the calls that are not paced; all where it names none.
    pub only: Vec<Method>,
    pub n_failovers: usize,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CoordinatorReport {
    pub n_segments: u64,
    pub n_data_nodes: usize,
    pub n_channels: usize,
    pub load_s: f64,
    /// From the start of a coordinator to the acknowledgement of all channels.
    pub watched_s: f64,
    /// From then until RocksDB has tidied what was loaded.
    #[serde(default)]
    pub rest_s: f64,
    /// Every round of every case.
    pub calls: Vec<CallReport>,
    /// The same calls of three nodes without segments, each in turn with its like above: how fast a
    /// machine is changes from minute to minute.
    #[serde(default)]
    pub calls_beside: Vec<CallReport>,
    /// Beside the calls that are paced: none of them may take longer than the disk lets it.
    #[serde(default)]
    pub disk_beside_paced: Option<DiskReport>,
    pub flush_ms: Vec<f64>,
    pub queries: Vec<QueryReport>,
    pub losses: Vec<LossReport>,
    /// Looks beside calls that are paced.
    #[serde(default)]
    pub passes_paced: Vec<PassReport>,
    /// Looks beside as many calls as the machine answers; none where the leader changed.
    #[serde(default)]
    pub passes_under_load: Vec<PassReport>,
    /// The largest node.
    pub memory_mb: f64,
    /// A killed node's start until it answers a linearizable read.
    pub restart_s: f64,
    /// From SIGKILL of the leader to the first assignment.
    pub gaps_ms: Vec<f64>,
}

/// Questions about segments that one node answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueryReport {
    pub node: String,
    pub leads: bool,
    pub linearizable_per_s: f64,
    pub local_per_s: f64,
}

/// A data node whose session ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LossReport {
    pub n_channels: usize,
    pub assigned_ms: f64,
    pub watched_ms: f64,
}

impl CoordinatorReport {
    /// Lines for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = vec![format!(
            "{} segments on record (loaded in {:.1} s), {:.0} MB in the largest node",
            self.n_segments, self.load_s, self.memory_mb
        )];
        lines.push(format!(
            "{} data nodes, {} channels watched after {:.1} s",
            self.n_data_nodes, self.n_channels, self.watched_s
        ));
        lines.extend(self.calls.iter().map(CallReport::summary));
        let beside = self.calls_beside.iter().map(CallReport::summary);
        lines.extend(beside.map(|line| format!("without segments, in turn: {line}")));
        if let Some(disk) = &self.disk_beside_paced {
            lines.push(format!(
                "beside the paced calls one synced write took p50 {:.2} ms, p99 {:.2} ms, {:.0} ms \
                 at worst",
                disk.p50_ms, disk.p99_ms, disk.longest_ms
            ));
        }
        if !self.flush_ms.is_empty() {
            lines.push(format!(
                "{} flushes, from the call to the data node: p50 {:.0} ms, p99 {:.0} ms",
                self.flush_ms.len(),
                median(&self.flush_ms),
                percentile(&self.flush_ms, 0.99)
            ));
        }
        for query in &self.queries {
            lines.push(format!(
                "{}{}: {:.0} questions about segments a second, {:.0} without confirmation",
                query.node,
                if query.leads { " (leader)" } else { "" },
                query.linearizable_per_s,
                query.local_per_s
            ));
        }
        let looks = self.passes_paced.iter().map(|pass| (pass, "calls that are paced"));
        let under_load = self.passes_under_load.iter().map(|pass| (pass, "all that it answers"));
        for (pass, beside) in looks.chain(under_load) {
            lines.push(format!(
                "{} looks for {} beside {beside}: {:.0} ms each",
                pass.n_passes, pass.what, pass.mean_ms
            ));
        }
        for loss in &self.losses {
            lines.push(format!(
                "a data node with {} channels lost: reassigned after {:.0} ms, acknowledged after \
                 {:.0} ms",
                loss.n_channels, loss.assigned_ms, loss.watched_ms
            ));
        }
        if !self.gaps_ms.is_empty() {
            lines.push(format!(
                "leader killed {} times: first assignment after {:.0} ms in the median, {:.0} ms \
                 at worst; a node is back after {:.1} s",
                self.gaps_ms.len(),
                median(&self.gaps_ms),
                max(&self.gaps_ms),
                self.restart_s
            ));
        }
        lines.join("\n")
    }
}

/// A DataCoord that runs already, stock or ours, and a collection of it.
#[derive(Clone, Debug)]
pub struct Running {
    pub etcd: Vec<String>,
    pub root_path: String,
    pub collection: i64,
    pub partition: i64,
    pub channels: Vec<String>,
    /// That owns the channels.
    pub data_node: i64,
}

/// Calls it.
///
/// # Errors
/// It does not answer.
pub async fn against(
    running: Running,
    method: Method,
    clients: &[usize],
    seconds: u64,
) -> Result<Vec<CallReport>> {
    let Running { etcd, root_path, collection, partition, channels, data_node } = running;
    let data_nodes = vec![data_node; channels.len()];
    let place = Place { collection, partition, channels, data_nodes };
    let target = Target::new(&etcd, &root_path, place)?;
    let mut reports = Vec::new();
    for n_clients in clients {
        let load = closed(method, *n_clients, seconds);
        let report = calls::run(&target, load).await?;
        report::progress(report.summary());
        reports.push(report);
    }
    Ok(reports)
}

fn closed(method: Method, n_clients: usize, seconds: u64) -> Load {
    Load { method, n_clients, rate: None, duration: Duration::from_secs(seconds) }
}

/// Measures three nodes of our own.
///
/// # Errors
/// A node exited by itself, or a call failed.
pub async fn run(options: &CoordinatorOptions) -> Result<CoordinatorReport> {
    let mut cluster = Cluster::start(&options.cluster).await?;
    let result = measure(&mut cluster, options).await;
    if result.is_err() {
        let logs = cluster.log_tails();
        report::progress(format!("data stays in {}\n{logs}", cluster.keep_folder().display()));
    }
    result
}

async fn measure(cluster: &mut Cluster, options: &CoordinatorOptions) -> Result<CoordinatorReport> {
    let collections = collections(options);
    let mut report = CoordinatorReport {
        n_segments: options.n_segments,
        n_data_nodes: options.n_data_nodes,
        n_channels: collections.iter().map(|it| it.channels.len()).sum(),
        ..Default::default()
    };
    // Before the role is on, its keys are written like any others.
    let loading = Instant::now();
    segments::load(options.n_segments, None, &cluster.endpoints()).await?;
    report.load_s = loading.elapsed().as_secs_f64();
    let Standing { mut nodes, target, watched, root_coord: _root_coord } =
        stand(cluster, &collections, options.n_data_nodes).await?;
    report.watched_s = watched.as_secs_f64();
    if options.n_segments > 0 {
        report.rest_s = wait_rest(cluster).await?.as_secs_f64();
        report::progress(format!("at rest after {:.0} s", report.rest_s));
        let mut empty = Cluster::start(&options.cluster).await?;
        let beside = stand(&mut empty, &collections[..1], 1).await?;
        let beside = Some((&beside.target, options.n_rounds));
        measure_paced(options, cluster, &target, beside, &mut report).await?;
        let leader = cluster.wait_leader(PATIENCE).await?;
        let http = cluster.nodes[leader].ports.http();
        report.passes_paced = passes::read(&http).await?;
        measure_calls(&unpaced(options), &target, beside, &mut report).await?;
        let under_load = passes::read(&http).await?;
        report.passes_under_load = passes::since(&under_load, &report.passes_paced);
        empty.check_alive()?;
    } else {
        measure_paced(options, cluster, &target, None, &mut report).await?;
        measure_calls(&unpaced(options), &target, None, &mut report).await?;
    }
    cluster.check_alive()?;
    let n_flushed = options.n_channels.div_ceil(CHANNELS_OF_COLLECTION);
    let flushed = &collections[1..=n_flushed];
    if !flushed.is_empty() {
        report.flush_ms = flushes::run(&target, &nodes, flushed).await?;
        report::progress(format!("flush: p99 {:.0} ms", percentile(&report.flush_ms, 0.99)));
    }
    measure_queries(options, cluster, &mut report).await?;
    if options.n_data_nodes > 1 {
        for _ in 0..LOSSES {
            let loss = nodes.lose(PATIENCE).await?;
            report::progress(format!(
                "{} channels have moved: {:.0} ms",
                loss.n_channels,
                millis(loss.watched)
            ));
            report.losses.push(LossReport {
                n_channels: loss.n_channels,
                assigned_ms: millis(loss.assigned),
                watched_ms: millis(loss.watched),
            });
        }
    }
    for pid in cluster.pids() {
        report.memory_mb = report.memory_mb.max(float(resident_bytes(pid)?) / 1e6);
    }
    for nth in 0..options.n_failovers {
        let (gap, restart) = kill_leader(cluster, &target).await?;
        report::progress(format!("kill {}: {:.0} ms", nth + 1, millis(gap)));
        report.gaps_ms.push(millis(gap));
        report.restart_s = report.restart_s.max(restart.as_secs_f64());
    }
    Ok(report)
}

/// RocksDB goes on for a while with what was loaded, on the cores that are measured.
async fn wait_rest(cluster: &mut Cluster) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let before = cpu_time_of_all(&cluster.pids())?;
        tokio::time::sleep(REST_WINDOW).await;
        cluster.check_alive()?;
        let used = cpu_time_of_all(&cluster.pids())?.saturating_sub(before);
        if used < REST_WINDOW / 10 {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < REST_PATIENCE,
            "the nodes are not at rest after {REST_PATIENCE:?}"
        );
    }
}

/// Assignments as they come to a cluster that is not at its limit.
fn paced(options: &CoordinatorOptions) -> Load {
    let mut load = closed(Method::AssignSegmentId, 64, options.seconds);
    if options.n_segments > 0 {
        load.duration = load.duration.max(PACED_AMONG_MANY);
    }
    Load { rate: Some(PACE), ..load }
}

/// As many calls as are answered; the last ones leave many segments behind.
fn unpaced(options: &CoordinatorOptions) -> Vec<Load> {
    [Method::AssignSegmentId, Method::GetRecoveryInfo, Method::SaveBinlogPaths]
        .into_iter()
        .filter(|method| options.only.is_empty() || options.only.contains(method))
        .flat_map(|method| {
            let clients = options.clients.iter();
            clients.map(move |n_clients| closed(method, *n_clients, options.seconds))
        })
        .collect()
}

async fn measure_paced(
    options: &CoordinatorOptions,
    cluster: &Cluster,
    target: &Target,
    beside: Option<(&Target, usize)>,
    report: &mut CoordinatorReport,
) -> Result<()> {
    let disk = SyncedWrites::start(cluster.folder())?;
    measure_calls(&[paced(options)], target, beside, report).await?;
    report.disk_beside_paced = Some(disk.end()?);
    Ok(())
}

async fn measure_calls(
    loads: &[Load],
    target: &Target,
    beside: Option<(&Target, usize)>,
    report: &mut CoordinatorReport,
) -> Result<()> {
    for load in loads {
        let Some((empty, n_rounds)) = beside else {
            report.calls.push(measure_call(target, *load, "").await?);
            continue;
        };
        for nth in 0..n_rounds {
            // Neither is always the first one.
            let own_first = nth % 2 == 1;
            if own_first {
                report.calls.push(measure_call(target, *load, "").await?);
            }
            report.calls_beside.push(measure_call(empty, *load, "empty: ").await?);
            if !own_first {
                report.calls.push(measure_call(target, *load, "").await?);
            }
        }
    }
    Ok(())
}

async fn measure_call(target: &Target, load: Load, of: &str) -> Result<CallReport> {
    let called = calls::run(target, load).await?;
    report::progress(format!("{of}{}", called.summary()));
    Ok(called)
}

async fn measure_queries(
    options: &CoordinatorOptions,
    cluster: &mut Cluster,
    report: &mut CoordinatorReport,
) -> Result<()> {
    let known = segments::ids(options.n_segments);
    if known.is_empty() {
        return Ok(());
    }
    let leader = cluster.wait_leader(PATIENCE).await?;
    let duration = Duration::from_secs(options.seconds);
    for (nth, node) in cluster.nodes.iter().enumerate() {
        let endpoint = node.client.endpoint();
        let query = QueryReport {
            node: node.name.clone(),
            leads: nth == leader,
            linearizable_per_s: queries::run(endpoint, &known, false, duration).await?,
            local_per_s: queries::run(endpoint, &known, true, duration).await?,
        };
        report::progress(format!("{}: {:.0} questions a second", query.node, query.local_per_s));
        report.queries.push(query);
    }
    Ok(())
}

/// Where rows or segments go.
#[derive(Clone, Debug)]
pub struct Collection {
    pub id: i64,
    pub partition: i64,
    /// Virtual ones.
    pub channels: Vec<String>,
}

impl Collection {
    fn of(id: i64, n_channels: usize) -> Collection {
        let name = |nth| format!("by-dev-rootcoord-dml_{nth}_{id}v{nth}");
        Collection { id, partition: id + 1, channels: (0..n_channels).map(name).collect() }
    }
}

/// One that rows are assigned on, those that have so many channels in all, and those of the segments
/// on record.
fn collections(options: &CoordinatorOptions) -> Vec<Collection> {
    let mut collections = vec![Collection::of(COLLECTION, N_CHANNELS)];
    let mut id = COLLECTION;
    let mut left = options.n_channels;
    while left > 0 {
        id += 10;
        let some = left.min(CHANNELS_OF_COLLECTION);
        collections.push(Collection::of(id, some));
        left -= some;
    }
    collections.extend(segments::collections(options.n_segments));
    collections
}

/// Kills the leader; the time to the first assignment, and that to the node's return.
async fn kill_leader(cluster: &mut Cluster, target: &Target) -> Result<(Duration, Duration)> {
    target.assign_until(PATIENCE).await.context("before the kill")?;
    let leader = cluster.wait_leader(PATIENCE).await?;
    let killed = cluster.nodes[leader].process.kill()?;
    target.assign_until(PATIENCE).await.context("after the kill")?;
    let gap = killed.elapsed();
    let started = Instant::now();
    cluster.nodes[leader].process.start()?;
    let deadline = Instant::now() + PATIENCE;
    let client = cluster.nodes[leader].client.reconnected()?;
    while client.get("health", Duration::from_secs(1)).await.is_err() {
        if Instant::now() > deadline {
            bail!("the node did not come back; {}", cluster.log_tails());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let restart = started.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok((gap, restart))
}
