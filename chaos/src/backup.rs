//! A backup under load, restored into a new cluster and compared key by key and by digest; and
//! damaged files, which must be refused.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proto::etcd;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::client::Client;
use crate::cluster::{Cluster, ClusterKind, ClusterOptions, command};
use crate::report;
use crate::workload::fill::{self, Fill};
use crate::workload::steady::Steady;

const PATIENCE: Duration = Duration::from_secs(120);
const PAGE_KEYS: i64 = 2000;
/// Damaged copies that are tried.
const N_DAMAGED: usize = 12;

/// What to do.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    pub cluster: ClusterOptions,
    pub n_keys: u64,
    pub seed: u64,
}

/// Saves, restores, compares and damages.
///
/// # Errors
/// Anything that is not as it must be.
pub async fn run(options: &BackupOptions) -> Result<()> {
    let ClusterKind::Quorate(binary) = &options.cluster.kind else {
        bail!("`quorate backup` is Quorate's");
    };
    let cluster = Cluster::start(&options.cluster).await?;
    let fill = Fill {
        prefix: "backup/".to_owned(),
        n_keys: options.n_keys,
        value_bytes: 200,
        n_ops: 50,
        n_clients: 8,
    };
    fill::run(&fill, &cluster.endpoints()).await?;
    let writers = Steady::start(&cluster.clients(), 8, Duration::ZERO)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let file = cluster.folder().join("under-load.qbk");
    let endpoints = cluster.endpoints().join(",");
    let args = ["backup", "save", &text(&file), "--endpoints", &endpoints];
    let manifest = command::run_json(binary, &args, PATIENCE).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let window = writers.take();
    writers.conclude().await?;
    ensure!(window.n_errors == 0, "{} writes failed during the backup", window.n_errors);
    let revision = field(&manifest, "revision")?.as_i64().context("the revision is no number")?;
    report::progress(format!("saved at revision {revision} while writing: {}", window.summary()));
    command::run_json(binary, &["backup", "verify", &text(&file)], PATIENCE).await?;

    let mut restored = Cluster::prepare(&options.cluster)?;
    for node in &restored.nodes {
        restore(binary, &file, &node.name, &node.data_dir, &restored.initial_cluster).await?;
    }
    restored.start_all()?;
    restored.wait_ready(PATIENCE).await?;
    let n_keys = compare(&cluster.nodes[0].client, &restored.nodes[1].client, revision).await?;
    report::progress(format!("restored into a new cluster: {n_keys} keys are equal"));
    let endpoints = restored.endpoints().join(",");
    let args = ["digest", "--scan", "--endpoints", &endpoints];
    let digests = command::run_json(binary, &args, PATIENCE).await?;
    let lines = digests.as_array().context("the digests are no list")?;
    ensure!(lines.len() == restored.nodes.len(), "digests of {} nodes", lines.len());
    // It is not the manifest's: a restore holds garbage collection back, and says so in a setting.
    let content = &lines[0]["content"];
    for line in lines {
        ensure!(line["content"] == *content, "digest {} is not {content}", line["content"]);
        ensure!(line["scanned"] == *content, "scanned digest {} is not {content}", line["scanned"]);
    }
    report::progress(format!("digest of all nodes: {content}"));
    damaged(options, binary, &file, &restored).await?;
    report::line(format!(
        "backup: saved under load at revision {revision}, {n_keys} keys and the digest equal in the \
         new cluster, {N_DAMAGED} damaged copies refused"
    ));
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn field<'a>(manifest: &'a Value, name: &str) -> Result<&'a Value> {
    manifest.get(name).with_context(|| format!("the manifest has no {name}: {manifest}"))
}

async fn restore(
    binary: &Path,
    file: &Path,
    name: &str,
    data_dir: &Path,
    initial_cluster: &str,
) -> Result<()> {
    let args = [
        "backup",
        "restore",
        &text(file),
        "--name",
        name,
        "--data-dir",
        &text(data_dir),
        "--initial-cluster",
        initial_cluster,
    ];
    let output = command::run(binary, &args, PATIENCE).await?;
    ensure!(output.succeeded, "{}{}", output.stdout, output.stderr);
    Ok(())
}

/// Every pair of the original at the backup's revision against the restored cluster's newest.
async fn compare(original: &Client, restored: &Client, revision: i64) -> Result<usize> {
    let mut next = bytes::Bytes::from_static(&[0]);
    let mut n_keys = 0;
    loop {
        let page = |revision: i64| etcd::RangeRequest {
            key: next.clone(),
            range_end: bytes::Bytes::from_static(&[0]),
            limit: PAGE_KEYS,
            revision,
            ..Default::default()
        };
        let expected = original.range(page(revision), PATIENCE).await?;
        let found = restored.range(page(0), PATIENCE).await?;
        ensure!(expected.count == found.count, "{} keys, not {}", found.count, expected.count);
        for (expected, found) in expected.kvs.iter().zip(&found.kvs) {
            ensure!(expected == found, "restored {found:?}, not {expected:?}");
        }
        ensure!(expected.kvs.len() == found.kvs.len(), "a page of {} keys", found.kvs.len());
        n_keys += expected.kvs.len();
        let Some(last) = expected.kvs.last().filter(|_| expected.more) else {
            return Ok(n_keys);
        };
        next = [&last.key[..], &[0]].concat().into();
    }
}

async fn damaged(
    options: &BackupOptions,
    binary: &Path,
    file: &Path,
    cluster: &Cluster,
) -> Result<()> {
    let whole = std::fs::read(file)?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let copy = cluster.folder().join("damaged.qbk");
    for number in 0..N_DAMAGED {
        let mut bytes = whole.clone();
        let at = random.random_range(0..bytes.len());
        let what = if number.is_multiple_of(4) {
            bytes.truncate(at);
            format!("cut off at byte {at}")
        } else {
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("one bit of byte {at} turned")
        };
        std::fs::write(&copy, bytes)?;
        let output = command::run(binary, &["backup", "verify", &text(&copy)], PATIENCE).await?;
        ensure!(!output.succeeded, "verify took a backup with {what}");
        let data_dir = cluster.folder().join(format!("damaged-{number}"));
        let made = restore(binary, &copy, "n1", &data_dir, &cluster.initial_cluster).await;
        ensure!(made.is_err(), "restore took a backup with {what}");
        ensure!(
            !data_dir.exists() || std::fs::read_dir(&data_dir)?.next().is_none(),
            "a refused restore left something in {}",
            data_dir.display()
        );
    }
    let data_dir = &cluster.nodes[0].data_dir;
    let over = restore(binary, file, "n1", data_dir, &cluster.initial_cluster).await;
    ensure!(over.is_err(), "restore wrote over the data of a running node");
    Ok(())
}
