//! Measures the storage of one node: `cargo run --release -p quorate-raft --example
//! storage_figures -- [DIR] [KEYS]`. Prints figures, keeps nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a program for a developer's terminal"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, FuturesUnordered, StreamExt};
use openraft::RaftSnapshotBuilder;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use prost::Message;
use proto::{etcd, quorate};
use raft::apply::{OutcomeSink, Outcomes};
use raft::storage::{Storage, StorageControl, StorageOptions};
use raft::types::{
    Entry, EntryPayload, LeaderId, LogId, Membership, NodeMeta, Payload, TypeConfig,
};

const COMMANDS_PER_ENTRY: u64 = 50;
const VALUE_BYTES: usize = 300;

struct Nobody;

impl OutcomeSink for Nobody {
    fn applied(&self, _index: u64, _outcomes: Outcomes) {}
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let n_keys: u64 = args.next().map_or(200_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir_in(parent).unwrap();
    append(&dir.path().join("log")).await;
    state(&dir.path().join("a"), &dir.path().join("b"), n_keys).await;
}

fn open(dir: &Path, node: u64) -> Storage {
    Storage::open(StorageOptions::new(dir.to_owned(), node), Arc::new(Nobody)).unwrap()
}

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

fn normal(index: u64, payload: Bytes) -> Entry {
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(Payload(payload)) }
}

/// Synced appends, one after the other and with many in flight.
async fn append(dir: &Path) {
    let mut storage = open(dir, 1);
    let payload = Bytes::from(vec![7; 512]);
    let mut next = 0;
    for (batch, in_flight) in [(1, 1), (16, 1), (256, 1), (1024, 1), (1, 64), (16, 64)] {
        let started = Instant::now();
        let (mut batches, mut waiting) = (0_u64, FuturesUnordered::new());
        while started.elapsed() < Duration::from_secs(2) {
            while waiting.len() < in_flight {
                let entries: Vec<_> =
                    (next..next + batch).map(|index| normal(index, payload.clone())).collect();
                next += batch;
                let (done, flushed) = TypeConfig::oneshot();
                storage.log.append(entries, IOFlushed::signal(done)).await.unwrap();
                waiting.push(flushed);
            }
            waiting.next().await.unwrap().unwrap().unwrap();
            batches += 1;
        }
        while let Some(flushed) = waiting.next().await {
            flushed.unwrap().unwrap();
        }
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "append {batch:>4} entries of 512 B, {in_flight:>2} in flight: {:>9.0} entries/s",
            (batches * batch) as f64 / seconds
        );
    }
    let sync = &storage.control.metrics.log_sync;
    println!(
        "log sync: p50 {:?}, p99 {:?}, max {:?}",
        sync.quantile_per_mille(500),
        sync.quantile_per_mille(990),
        sync.max()
    );
    storage.control.stop().unwrap();
}

fn membership(index: u64) -> Entry {
    let node = NodeMeta { name: "n1".into(), ..NodeMeta::default() };
    let membership = Membership::new(vec![[1].into()], BTreeMap::from([(1, node)])).unwrap();
    Entry { log_id: log_id(index), payload: EntryPayload::Membership(membership) }
}

fn batch(index: u64, epoch: u64, first_seq: u64, kinds: Vec<quorate::command::Kind>) -> Entry {
    let commands = kinds.into_iter().map(|kind| quorate::Command { fence: None, kind: Some(kind) });
    let run = quorate::Run {
        origin: 1,
        epoch,
        first_seq,
        settled_below: first_seq,
        commands: commands.collect(),
    };
    let batch = quorate::Batch {
        at_ms: 1_000 + index,
        runs: vec![run.encode_to_vec().into()],
        ..Default::default()
    };
    normal(index, Bytes::from(batch.encode_to_vec()))
}

fn put(n: u64) -> quorate::command::Kind {
    // In an order that is not that of the keys.
    let key = format!("by-dev/meta/key/{:012}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
    let value: Vec<u8> = (0..VALUE_BYTES).map(|i| (n >> (i % 8)) as u8 ^ i as u8).collect();
    quorate::command::Kind::Put(etcd::PutRequest {
        key: key.into(),
        value: value.into(),
        ..etcd::PutRequest::default()
    })
}

async fn apply(storage: &mut Storage, entries: Vec<Entry>) {
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    storage.machine.apply(stream::iter(items)).await.unwrap();
}

/// A stretch of work: on a busy machine the processor time says more than the clock.
struct Stretch {
    started: Instant,
    cpu: Duration,
}

impl Stretch {
    fn start() -> Stretch {
        Stretch { started: Instant::now(), cpu: cpu_time() }
    }

    fn report(&self, what: &str, n: u64, unit: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let cpu = (cpu_time() - self.cpu).as_secs_f64();
        let rate = n as f64 / seconds;
        println!("{what}: {seconds:.3} s, {cpu:.2} s of CPU, {rate:.0} {unit}/s");
    }
}

/// Of this process, in steps of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

async fn state(dir: &Path, other_dir: &Path, n_keys: u64) {
    let mut storage = open(dir, 1);
    let register = quorate::RegisterOrigin { node: 1, nonce: 1 };
    let register = quorate::command::Kind::RegisterOrigin(register);
    apply(&mut storage, vec![membership(0), batch(1, 0, 1, vec![register])]).await;
    let mut encoded: Vec<Entry> = Vec::new();
    let (mut index, mut applying, mut applying_cpu) = (2, Duration::ZERO, Duration::ZERO);
    let mut n = 0;
    while n < n_keys {
        for _ in 0..40 {
            let kinds = (n..n + COMMANDS_PER_ENTRY).map(put).collect();
            encoded.push(batch(index, 1, n + 2, kinds));
            n += COMMANDS_PER_ENTRY;
            index += 1;
        }
        let (started, cpu) = (Instant::now(), cpu_time());
        apply(&mut storage, std::mem::take(&mut encoded)).await;
        applying += started.elapsed();
        applying_cpu += cpu_time() - cpu;
    }
    println!(
        "apply {n} puts of {VALUE_BYTES} B: {:.3} s, {:.2} s of CPU, {:.0} puts/s",
        applying.as_secs_f64(),
        applying_cpu.as_secs_f64(),
        n as f64 / applying.as_secs_f64()
    );
    list(&storage.control, n);
    let stretch = Stretch::start();
    let mut builder = storage.machine.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap();
    drop(builder);
    let image = storage.control.newest_snapshot().unwrap();
    let size = image.manifest().size_bytes;
    stretch.report(&format!("build a snapshot of {size} B"), size >> 20, "MiB");
    drop(image);

    // Closed before it is opened again.
    storage.control.stop().unwrap();
    drop(storage);
    let stretch = Stretch::start();
    let storage = open(dir, 1);
    stretch.report("open and load", n, "keys");
    list(&storage.control, n);
    carry(&storage.control, other_dir).await;
    println!("resident: {}", resident());
    storage.control.stop().unwrap();
}

/// Every key in pages of 2,000.
fn list(control: &StorageControl, n_keys: u64) {
    let stretch = Stretch::start();
    let mut request = etcd::RangeRequest {
        key: b"\0".as_slice().into(),
        range_end: b"\0".as_slice().into(),
        limit: 2_000,
        ..etcd::RangeRequest::default()
    };
    let mut n = 0;
    loop {
        let (plan, pinned) = control.state.view().pin(|state| state.plan_range(&request));
        let response = plan.unwrap().fetch(&pinned).unwrap();
        n += response.kvs.len() as u64;
        let Some(last) = response.kvs.last().filter(|_| response.more) else {
            break;
        };
        let mut key = last.key.to_vec();
        key.push(0);
        request.key = key.into();
    }
    assert!(n > n_keys * 9 / 10, "{n} of {n_keys} keys were listed");
    stretch.report("list in pages of 2,000", n, "keys");
}

async fn carry(from: &StorageControl, other_dir: &Path) {
    let mut other = open(other_dir, 2);
    let mut source = from.snapshot_source(from.newest_snapshot().unwrap());
    let manifest = source.manifest().clone();
    let mib = manifest.size_bytes >> 20;
    let stretch = Stretch::start();
    let mut receiving = other.control.receive_snapshot(manifest.clone()).unwrap();
    while let Some(part) = source.next_part().unwrap() {
        receiving.write(&part).unwrap();
    }
    stretch.report("carry it over", mib, "MiB");
    let stretch = Stretch::start();
    let staged = receiving.finish().unwrap();
    stretch.report("verify, open and load it", mib, "MiB");
    let meta = raft::convert::snapshot_meta_from_manifest(&manifest).unwrap();
    let started = Instant::now();
    other.machine.install_snapshot(&meta, staged).await.unwrap();
    println!("install it: {:?}", started.elapsed());
    other.control.stop().unwrap();
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("unknown");
    line.to_owned()
}
