//! What the coordinator does under load: assignments in a closed loop, with nothing and with many
//! segments on record, and how soon another node assigns when the leader is killed.
//!
//! A RootCoord of our own gives ids and timestamps, so that only the coordinator is measured.

mod assign;
mod root_coord;
mod segments;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use proto::etcd;
use proto::milvus::{common, data, etcd as meta, schema};
use serde::{Deserialize, Serialize};

use crate::cluster::usage::resident_bytes;
use crate::cluster::{Cluster, ClusterOptions};
use crate::numbers::{float, max, median, millis};
use crate::report;
pub use assign::AssignReport;
use assign::{Place, Target};

const COLLECTION: i64 = 449_000_000_000_000_000;
const PARTITION: i64 = 449_000_000_000_000_001;
const N_CHANNELS: usize = 4;
const CLIENTS: [usize; 3] = [1, 16, 64];
const PATIENCE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    pub cluster: ClusterOptions,
    /// Flushed segments that are on record before the role is on.
    pub n_segments: u64,
    pub seconds: u64,
    pub n_failovers: usize,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CoordinatorReport {
    pub n_segments: u64,
    pub load_s: f64,
    pub assigns: Vec<AssignReport>,
    /// The largest node.
    pub memory_mb: f64,
    /// A killed node's start until it answers a linearizable read.
    pub restart_s: f64,
    /// From SIGKILL of the leader to the first assignment.
    pub gaps_ms: Vec<f64>,
}

impl CoordinatorReport {
    /// Lines for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{} segments on record (loaded in {:.1} s), {:.0} MB in the largest node, a node is \
             back after {:.1} s\n",
            self.n_segments, self.load_s, self.memory_mb, self.restart_s
        );
        for assign in &self.assigns {
            text.push_str(&format!("{}\n", assign.summary()));
        }
        if !self.gaps_ms.is_empty() {
            text.push_str(&format!(
                "leader killed {} times: first assignment after {:.0} ms in the median, {:.0} ms \
                 at worst\n",
                self.gaps_ms.len(),
                median(&self.gaps_ms),
                max(&self.gaps_ms)
            ));
        }
        text
    }
}

/// Assigns from a DataCoord that runs already, stock or ours, for a collection that exists.
///
/// # Errors
/// It does not answer.
pub async fn against(
    etcd: &[String],
    root_path: &str,
    place: (i64, i64, Vec<String>),
    seconds: u64,
) -> Result<Vec<AssignReport>> {
    let (collection, partition, channels) = place;
    let target = Target::new(etcd, root_path, Place { collection, partition, channels })?;
    let mut reports = Vec::new();
    for n_clients in CLIENTS {
        let report = assign::run(&target, n_clients, Duration::from_secs(seconds)).await?;
        report::progress(report.summary());
        reports.push(report);
    }
    Ok(reports)
}

/// Measures three nodes of our own.
///
/// # Errors
/// A node exited by itself, or a call failed.
pub async fn run(options: &CoordinatorOptions) -> Result<CoordinatorReport> {
    let mut report = CoordinatorReport { n_segments: options.n_segments, ..Default::default() };
    let mut cluster = Cluster::start(&options.cluster).await?;
    // Before the role is on, its keys are written like any others.
    let loading = Instant::now();
    segments::load(options.n_segments, &cluster.endpoints()).await?;
    report.load_s = loading.elapsed().as_secs_f64();
    let (root_coord, _server) = root_coord::start().await?;
    prepare(&cluster, &root_coord).await?;

    cluster.kill_all()?;
    for node in &mut cluster.nodes {
        let address = node.ports.coordinator();
        node.process.add_args(
            ["--coordinator", "datacoord", "--listen-coordinator", &address].map(str::to_owned),
        );
    }
    cluster.start_all()?;
    cluster.wait_ready(PATIENCE).await?;
    let place = Place { collection: COLLECTION, partition: PARTITION, channels: channels() };
    let target = Target::new(&cluster.endpoints(), "by-dev", place)?;
    watch_channels(&target).await?;
    for n_clients in CLIENTS {
        let assigned =
            assign::run(&target, n_clients, Duration::from_secs(options.seconds)).await?;
        report::progress(assigned.summary());
        report.assigns.push(assigned);
        cluster.check_alive()?;
    }
    for pid in cluster.pids() {
        report.memory_mb = report.memory_mb.max(float(resident_bytes(pid)?) / 1e6);
    }
    for nth in 0..options.n_failovers {
        let (gap, restart) = kill_leader(&mut cluster, &target).await?;
        report::progress(format!("kill {}: {:.0} ms", nth + 1, millis(gap)));
        report.gaps_ms.push(millis(gap));
        report.restart_s = report.restart_s.max(restart.as_secs_f64());
    }
    Ok(report)
}

fn channels() -> Vec<String> {
    (0..N_CHANNELS).map(|nth| format!("by-dev-rootcoord-dml_{nth}_{COLLECTION}v{nth}")).collect()
}

fn physical(channel: &str) -> String {
    channel.rsplit_once('_').map_or(channel, |(physical, _)| physical).to_owned()
}

fn schema_of_four_fields() -> schema::CollectionSchema {
    let field = |field_id: i64, name: &str, kind: schema::DataType| schema::FieldSchema {
        field_id,
        name: name.to_owned(),
        data_type: kind.into(),
        is_primary_key: field_id == 100,
        ..Default::default()
    };
    let vector = schema::FieldSchema {
        type_params: vec![common::KeyValuePair { key: "dim".to_owned(), value: "128".to_owned() }],
        ..field(101, "vector", schema::DataType::FloatVector)
    };
    schema::CollectionSchema {
        name: "bench".to_owned(),
        fields: vec![
            field(0, "RowID", schema::DataType::Int64),
            field(1, "Timestamp", schema::DataType::Int64),
            field(100, "id", schema::DataType::Int64),
            vector,
        ],
        ..Default::default()
    }
}

/// Writes what a RootCoord would have: its session and the collection.
async fn prepare(cluster: &Cluster, root_coord: &str) -> Result<()> {
    let session = serde_json::json!({
        "ServerID": 1, "ServerName": "rootcoord", "Address": root_coord, "Exclusive": true,
        "TriggerKill": true, "Version": "2.3.5", "IndexEngineVersion": {}, "LeaseID": 0,
    });
    let info = meta::CollectionInfo {
        id: COLLECTION,
        schema: Some(schema_of_four_fields()),
        virtual_channel_names: channels(),
        physical_channel_names: channels().iter().map(|channel| physical(channel)).collect(),
        shards_num: i32::try_from(N_CHANNELS)?,
        state: meta::CollectionState::CollectionCreated.into(),
        ..Default::default()
    };
    let pairs = [
        ("by-dev/meta/session/rootcoord".to_owned(), session.to_string().into_bytes()),
        (
            format!("by-dev/meta/root-coord/database/collection-info/1/{COLLECTION}"),
            info.encode_to_vec(),
        ),
    ];
    for (key, value) in pairs {
        let put = etcd::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        cluster.nodes[0].client.kv().put(put).await?;
    }
    Ok(())
}

async fn watch_channels(target: &Target) -> Result<()> {
    let start_positions = channels()
        .iter()
        .map(|channel| common::KeyDataPair { key: physical(channel), data: vec![1; 8].into() })
        .collect();
    let request = data::WatchChannelsRequest {
        collection_id: COLLECTION,
        channel_names: channels(),
        start_positions,
        schema: Some(schema_of_four_fields()),
        ..Default::default()
    };
    let answer: data::WatchChannelsResponse =
        target.call_until("WatchChannels", &request, PATIENCE).await?;
    let status = answer.status.unwrap_or_default();
    ensure!(status.code == 0, "WatchChannels: {}", status.reason);
    Ok(())
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
