//! Reads of the past beside writes: pages of a list at one revision, and many watchers that begin
//! far back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use proto::etcd;
use proto::etcd::watch_request::RequestUnion;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, prefix_end};
use crate::cluster::{Cluster, ClusterOptions};
use crate::numbers::grouped;
use crate::report;
use crate::workload::fill::{self, Fill};
use crate::workload::steady::{Steady, Window};

const PREFIX: &str = "past/";
const VALUE_BYTES: usize = 100;
const PAGE_KEYS: i64 = 500;
const WATCHED: &str = "watched/";
const STREAMS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// Writers beside the reads, and how long each pauses after an answer.
const WRITERS: usize = 16;
const THINK: Duration = Duration::from_millis(5);
/// Writers that make the history; none of them pauses.
const HISTORY_WRITERS: usize = 64;

/// What to run.
#[derive(Clone, Debug)]
pub struct PastOptions {
    pub cluster: ClusterOptions,
    pub n_keys: u64,
    /// How often each key was written before the list begins.
    pub n_versions: u64,
    pub n_watchers: usize,
    /// Revisions between the beginning of the watches and now.
    pub n_revisions: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PastReport {
    pub n_keys: u64,
    pub n_versions: u64,
    pub n_pages: usize,
    pub pages_s: f64,
    pub pages_put_max_ms: f64,
    pub n_watchers: usize,
    pub n_revisions: usize,
    /// From the first request until every watcher has every event.
    pub watch_s: f64,
    pub watch_put_p99_ms: f64,
    pub watch_put_max_ms: f64,
    pub n_put_errors: u64,
    pub terms: u64,
}

/// Measures both on a fresh cluster.
///
/// # Errors
/// A node exited by itself, a call failed, or an answer is wrong.
pub async fn run(options: &PastOptions) -> Result<PastReport> {
    let label = options.cluster.kind.label();
    let mut cluster = Cluster::start(&options.cluster).await?;
    for version in 1..=options.n_versions.max(1) {
        report::progress(format!(
            "{label}: writing {} keys, time {version} of {}",
            grouped(options.n_keys),
            options.n_versions.max(1)
        ));
        let fill = Fill {
            prefix: PREFIX.to_owned(),
            n_keys: options.n_keys,
            value_bytes: VALUE_BYTES,
            n_ops: 50,
            n_clients: 24,
        };
        fill::run(&fill, &cluster.endpoints()).await?;
    }
    let first_term = term(&cluster).await?;
    let nodes = cluster.clients();
    let writers = Steady::start(&nodes, WRITERS, THINK)?;
    let list = list(&nodes, options.n_keys).await?;
    let during_list = writers.take();
    report::progress(format!(
        "{label}: {} pages in {:.2?}; puts: {}",
        list.n_pages,
        list.took,
        during_list.summary()
    ));
    writers.conclude().await?;
    let (took, during) = watches(&nodes, options, label).await?;
    let last_term = term(&cluster).await?;
    cluster.check_alive()?;
    Ok(PastReport {
        n_keys: options.n_keys,
        n_versions: options.n_versions,
        n_pages: list.n_pages,
        pages_s: list.took.as_secs_f64(),
        pages_put_max_ms: during_list.max_ms,
        n_watchers: options.n_watchers,
        n_revisions: options.n_revisions,
        watch_s: took.as_secs_f64(),
        watch_put_p99_ms: during.p99_ms,
        watch_put_max_ms: during.max_ms,
        n_put_errors: during_list.n_errors + during.n_errors,
        terms: last_term - first_term + 1,
    })
}

async fn term(cluster: &Cluster) -> Result<u64> {
    let status = cluster.nodes[0].client.status(PATIENCE).await?;
    Ok(status.raft_term)
}

struct List {
    n_pages: usize,
    took: Duration,
}

/// Lists as Kubernetes does: the first page says the revision at which the others are read. Each
/// page is asked of another node.
async fn list(nodes: &[Client], n_keys: u64) -> Result<List> {
    let began = Instant::now();
    let mut next = bytes::Bytes::from_static(PREFIX.as_bytes());
    let mut revision = 0;
    let (mut n_seen, mut n_pages) = (0, 0);
    loop {
        let request = etcd::RangeRequest {
            key: next,
            range_end: prefix_end(PREFIX),
            limit: PAGE_KEYS,
            revision,
            ..Default::default()
        };
        let page = nodes[n_pages % nodes.len()].range(request, PATIENCE).await?;
        ensure!(
            u64::try_from(page.count)? == n_keys - n_seen,
            "page {n_pages} counts {} keys, not {}",
            page.count,
            n_keys - n_seen
        );
        n_pages += 1;
        n_seen += u64::try_from(page.kvs.len())?;
        if revision == 0 {
            revision = page.header.context("a header")?.revision;
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
        next = [&last.key[..], &[0]].concat().into();
    }
    ensure!(n_seen == n_keys, "the list has {n_seen} keys, not {n_keys}");
    Ok(List { n_pages, took: began.elapsed() })
}

/// Makes a history, then opens watches from its beginning, each of a key of its own, while others
/// write.
async fn watches(
    nodes: &[Client],
    options: &PastOptions,
    label: &str,
) -> Result<(Duration, Window)> {
    report::progress(format!("{label}: making {} revisions", options.n_revisions));
    let start = nodes[0].put("watches-begin", "here", PATIENCE).await? + 1;
    let n_events = make_history(nodes, options).await?;
    let writers = Steady::start(nodes, WRITERS, THINK)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = writers.take();
    let began = Instant::now();
    let mut streams = JoinSet::new();
    for stream in 0..STREAMS.min(options.n_watchers) {
        let keys: Vec<usize> = (stream..options.n_watchers).step_by(STREAMS).collect();
        let client = nodes[stream % nodes.len()].reconnected()?;
        streams.spawn(follow(client, keys, start, n_events));
    }
    while let Some(stream) = streams.join_next().await {
        stream.context("a watcher panicked")??;
    }
    let took = began.elapsed();
    let during = writers.take();
    writers.conclude().await?;
    report::progress(format!(
        "{label}: {} watches in {took:.2?}; puts before: {}; during: {}",
        options.n_watchers,
        before.summary(),
        during.summary()
    ));
    Ok((took, during))
}

fn watched_key(number: usize) -> String {
    format!("{WATCHED}{number:06}")
}

/// Writes the watched keys in turn; how often each was written.
async fn make_history(nodes: &[Client], options: &PastOptions) -> Result<usize> {
    let per_key = options.n_revisions / options.n_watchers;
    let mut writers = JoinSet::new();
    for writer in 0..HISTORY_WRITERS.min(options.n_watchers) {
        let client = nodes[writer % nodes.len()].clone();
        let keys: Vec<usize> = (writer..options.n_watchers).step_by(HISTORY_WRITERS).collect();
        writers.spawn(async move {
            for version in 0..per_key {
                for key in &keys {
                    let value = format!("{version:0100}");
                    client.put(watched_key(*key), value, PATIENCE).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.context("a writer panicked")??;
    }
    Ok(per_key)
}

/// One stream with a watch for each key, until each has its events.
async fn follow(client: Client, keys: Vec<usize>, start: i64, n_events: usize) -> Result<()> {
    let (sender, receiver) = tokio::sync::mpsc::channel(keys.len().max(1));
    for key in &keys {
        let create = etcd::WatchCreateRequest {
            key: watched_key(*key).into(),
            start_revision: start,
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        sender.send(etcd::WatchRequest { request_union }).await?;
    }
    let mut answers = client.watch().watch(ReceiverStream::new(receiver)).await?.into_inner();
    let mut missing: BTreeMap<i64, usize> = BTreeMap::new();
    let mut n_created = 0;
    while n_created < keys.len() || missing.values().any(|n| *n > 0) {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        let answer = answer.context("no event in time")??.context("the stream ended")?;
        if answer.canceled {
            bail!("watch {} was cancelled: {}", answer.watch_id, answer.cancel_reason);
        }
        if answer.created {
            n_created += 1;
            missing.insert(answer.watch_id, n_events);
            continue;
        }
        let left = missing.get_mut(&answer.watch_id).context("events of an unknown watch")?;
        *left = left.checked_sub(answer.events.len()).context("more events than were written")?;
    }
    Ok(())
}

impl PastReport {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} keys ({} versions): {} pages of {PAGE_KEYS} at one revision {:.2} s, slowest put \
             {:.0} ms; {} watches from {} revisions back {:.2} s, puts p99 {:.1} ms, slowest {:.0} \
             ms; {} failed puts, {} terms",
            grouped(self.n_keys),
            self.n_versions,
            self.n_pages,
            self.pages_s,
            self.pages_put_max_ms,
            self.n_watchers,
            self.n_revisions,
            self.watch_s,
            self.watch_put_p99_ms,
            self.watch_put_max_ms,
            self.n_put_errors,
            self.terms,
        )
    }
}
