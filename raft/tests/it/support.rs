//! Storage on a directory of its own, and entries to feed it with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use prost::Message;
use proto::{etcd, quorate};
use raft::apply::OutcomeSink;
use raft::failure::OnFailure;
use raft::storage::{Storage, StorageControl, StorageOpenError, StorageOptions};
use raft::types::{
    Entry, EntryPayload, LeaderId, LogId, Membership, NodeMeta, Payload, TypeConfig,
};
use statemachine::{Outcome, RequestId};

pub(crate) const NODE: u64 = 7;
const ORIGIN: u64 = 7;

/// Keeps every outcome.
#[derive(Default)]
pub(crate) struct Outcomes(pub(crate) Mutex<Vec<(RequestId, Outcome)>>);

impl OutcomeSink for Outcomes {
    fn applied(&self, _index: u64, outcomes: raft::apply::Outcomes) {
        self.0.lock().extend(outcomes.by_request);
    }
}

/// A data directory and what runs on it; dropping it stops that.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
    control: Option<StorageControl>,
}

impl Disk {
    pub(crate) fn new() -> (Disk, Storage) {
        Disk::of_node(NODE)
    }

    pub(crate) fn of_node(node: u64) -> (Disk, Storage) {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path(), |options| options.node = node).unwrap();
        (Disk { dir, control: Some(storage.control.clone()) }, storage)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Stops what runs, cleanly.
    pub(crate) fn stop(&mut self) {
        if let Some(control) = self.control.take() {
            control.stop().unwrap();
        }
    }

    /// A directory with the same files as this one has now, as after SIGKILL.
    pub(crate) fn killed(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.path(), copy.path());
        copy
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn options(dir: &Path) -> StorageOptions {
    StorageOptions {
        on_failure: OnFailure::call(|failure| panic!("{failure}")),
        ..StorageOptions::new(dir.to_owned(), NODE)
    }
}

pub(crate) fn open(
    dir: &Path,
    change: impl FnOnce(&mut StorageOptions),
) -> Result<Storage, StorageOpenError> {
    open_with(dir, Arc::new(Outcomes::default()), change)
}

pub(crate) fn open_with(
    dir: &Path,
    outcomes: Arc<Outcomes>,
    change: impl FnOnce(&mut StorageOptions),
) -> Result<Storage, StorageOpenError> {
    let mut options = options(dir);
    change(&mut options);
    Storage::open(options, outcomes)
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: NODE }, index)
}

/// The first entry: one voter.
pub(crate) fn membership_entry(index: u64) -> Entry {
    let node = NodeMeta { name: "n1".into(), ..NodeMeta::default() };
    let nodes = BTreeMap::from([(NODE, node)]);
    let membership = Membership::new(vec![[NODE].into()], nodes).unwrap();
    Entry { log_id: log_id(index), payload: EntryPayload::Membership(membership) }
}

fn batch_entry(index: u64, run: quorate::Run) -> Entry {
    let batch = quorate::Batch {
        at_ms: 1_000 + index,
        runs: vec![run.encode_to_vec().into()],
        ..Default::default()
    };
    let payload = Payload(Bytes::from(batch.encode_to_vec()));
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(payload) }
}

/// Registers the origin whose epoch is then `index`.
pub(crate) fn register_entry(index: u64) -> Entry {
    let register = quorate::RegisterOrigin { node: ORIGIN, nonce: 99 };
    let kind = Some(quorate::command::Kind::RegisterOrigin(register));
    batch_entry(
        index,
        quorate::Run {
            origin: ORIGIN,
            epoch: 0,
            first_seq: 1,
            settled_below: 0,
            commands: vec![quorate::Command { fence: None, kind }],
        },
    )
}

/// One command of the registered origin.
pub(crate) fn command_entry(index: u64, epoch: u64, kind: quorate::command::Kind) -> Entry {
    let commands = vec![quorate::Command { fence: None, kind: Some(kind) }];
    let run =
        quorate::Run { origin: ORIGIN, epoch, first_seq: index, settled_below: index, commands };
    batch_entry(index, run)
}

/// Puts one key, a different one for each index, with a value of so many bytes.
pub(crate) fn put_entry(index: u64, epoch: u64, value_bytes: usize) -> Entry {
    let key = format!("key/{:08}", index.wrapping_mul(2_654_435_761) % 100_000_000);
    let value: Vec<u8> = (0..value_bytes).map(|i| (index as usize * 31 + i) as u8).collect();
    let put = etcd::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    command_entry(index, epoch, quorate::command::Kind::Put(put))
}

/// Membership, registration, then puts: a log of `n` entries from the very beginning.
pub(crate) fn history(n: u64, value_bytes: usize) -> Vec<Entry> {
    (0..n)
        .map(|index| match index {
            0 => membership_entry(0),
            1 => register_entry(1),
            _ => put_entry(index, 1, value_bytes),
        })
        .collect()
}

pub(crate) fn puts(indexes: Range<u64>, value_bytes: usize) -> Vec<Entry> {
    indexes.map(|index| put_entry(index, 1, value_bytes)).collect()
}

/// Appends, durably, and applies.
pub(crate) async fn commit(storage: &mut Storage, entries: Vec<Entry>) {
    append(storage, entries.clone()).await;
    apply(storage, entries).await;
}

pub(crate) async fn append(storage: &mut Storage, entries: Vec<Entry>) {
    let (done, flushed) = TypeConfig::oneshot();
    storage.log.append(entries, IOFlushed::signal(done)).await.unwrap();
    flushed.await.unwrap().unwrap();
}

pub(crate) async fn apply(storage: &mut Storage, entries: Vec<Entry>) {
    let items = entries.into_iter().map(|entry| Ok((entry, None)));
    storage.machine.apply(stream::iter(items)).await.unwrap();
}

/// Number of live keys, revision and content digest.
pub(crate) fn facts(control: &StorageControl) -> (usize, i64, u128) {
    control.state.view().read(|state| (state.n_keys(), state.revision(), state.digests().content))
}

/// Stops it cleanly and closes its files.
pub(crate) fn close(storage: Storage) {
    storage.control.stop().unwrap();
}

/// Goes through openraft's own start: applies again what is committed.
pub(crate) async fn start(storage: &mut Storage) {
    use openraft::StorageHelper;
    StorageHelper::new(&mut storage.log, &mut storage.machine)
        .with_id(NODE)
        .get_initial_state()
        .await
        .unwrap();
}
