//! The thread that applies.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use statemachine::{Applied, EntryMeta, Fault, LogEntry, Readers};
use tokio::sync::oneshot;

use crate::failure::{Area, Failure};
use crate::generation::Generation;
use crate::log_store::entry_codec::payload_bytes;
use crate::rocks::{Pinned, Position};
use crate::snapshot::Staged;
use crate::types::{Entry, EntryPayload, LogId, Membership, StoredMembership, TypeConfig};

use super::{AppliedEvent, Core, Outcomes};

/// One is being applied, one is being read from the log.
const QUEUE_CHUNKS: usize = 1;

#[derive(Default)]
pub(super) struct Chunk {
    pub(super) entries: Vec<Entry>,
    pub(super) responders: Vec<ApplyResponder<TypeConfig>>,
    pub(super) size_bytes: usize,
}

impl Chunk {
    pub(super) fn push(&mut self, entry: Entry, responder: Option<ApplyResponder<TypeConfig>>) {
        self.size_bytes += payload_bytes(&entry);
        self.entries.push(entry);
        self.responders.extend(responder);
    }
}

enum Job {
    Apply(Chunk, oneshot::Sender<Result<(), Failure>>),
    Install(Box<Staged>, oneshot::Sender<Result<(), Failure>>),
    Stop,
}

/// Sends work to the thread.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    jobs: SyncSender<Job>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

fn gone() -> Failure {
    Failure { area: Area::State, message: "the thread that applies is gone".into() }
}

impl WorkerHandle {
    pub(super) async fn apply(&self, chunk: Chunk) -> Result<(), Failure> {
        let (done, applied) = oneshot::channel();
        // One caller, which waits for each answer, so there is always room.
        self.jobs.try_send(Job::Apply(chunk, done)).map_err(|_full| gone())?;
        applied.await.unwrap_or_else(|_closed| Err(gone()))
    }

    pub(super) async fn install(&self, staged: Box<Staged>) -> Result<(), Failure> {
        let (done, installed) = oneshot::channel();
        self.jobs.try_send(Job::Install(staged, done)).map_err(|_full| gone())?;
        installed.await.unwrap_or_else(|_closed| Err(gone()))
    }

    /// Lets the thread finish what it was given, and ends it. Blocks.
    pub(crate) fn stop(&self) {
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        if self.jobs.send(Job::Stop).is_ok() && thread.join().is_err() {
            tracing::error!("the thread that applies panicked");
        }
    }
}

pub(crate) struct Worker {
    core: Arc<Core>,
    jobs: Receiver<Job>,
    failed: Option<Failure>,
}

impl Worker {
    pub(crate) fn spawn(core: Arc<Core>) -> std::io::Result<WorkerHandle> {
        let (sender, jobs) = sync_channel(QUEUE_CHUNKS);
        let worker = Worker { core, jobs, failed: None };
        let thread =
            std::thread::Builder::new().name("apply".into()).spawn(move || worker.run())?;
        Ok(WorkerHandle { jobs: sender, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            match job {
                Job::Apply(chunk, done) => {
                    let result = self.guarded(|core| apply(core, chunk));
                    // The asker may be gone when the runtime shuts down.
                    drop(done.send(result));
                }
                Job::Install(staged, done) => {
                    let result = self.guarded(|core| install(core, *staged));
                    drop(done.send(result));
                }
                Job::Stop => break,
            }
        }
        self.core.ring.close();
    }

    fn guarded<T>(&mut self, work: impl FnOnce(&Core) -> Result<T, Fault>) -> Result<T, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        self.core.metrics.apply_now.start();
        let result = work(&self.core);
        self.core.metrics.apply_now.stop();
        result.map_err(|fault| {
            let failure = self.core.on_failure.report(Area::State, fault.to_string());
            self.failed = Some(failure.clone());
            failure
        })
    }
}

fn apply(core: &Core, chunk: Chunk) -> Result<(), Fault> {
    let started = Instant::now();
    let Some(last) = chunk.entries.last().map(|entry| entry.log_id) else {
        return Ok(());
    };
    let n_entries = chunk.entries.len() as u64;
    let (entries, membership) = sort(chunk.entries, &core.position.lock().membership);
    let generation = core.current.load_full();
    let mark = core.log_mark(last.index);
    let prepared = if entries.is_empty() {
        None
    } else {
        Some(generation.state.read().prepare(
            generation.tables.as_ref(),
            &entries,
            Readers::Of(core.node),
        )?)
    };
    match &prepared {
        Some(prepared) => {
            generation.tables.write(prepared.changes(), &last, membership.as_ref(), mark)?;
        }
        None => {
            let nothing = statemachine::Changes::default();
            generation.tables.write(&nothing, &last, membership.as_ref(), mark)?;
        }
    }
    // Before the commit: from then on compaction may take what an answer is still to be read from.
    let image = prepared
        .as_ref()
        .filter(|prepared| prepared.has_deferred())
        .map(|_| Arc::new(Pinned::new(generation.tables.clone())));
    let applied = prepared.map(|prepared| {
        let commit = Instant::now();
        let applied = generation.commit(prepared);
        core.metrics.apply_commit.record(commit.elapsed());
        applied
    });
    advance(core, last, membership);
    core.flusher.wrote(chunk.size_bytes, n_entries);
    core.retention.applied(chunk.size_bytes as u64, n_entries);
    tell(core, last.index, applied, image, chunk.size_bytes);
    for responder in chunk.responders {
        responder.send(());
    }
    core.metrics.apply_entries.add(n_entries);
    core.metrics.apply_bytes.add(chunk.size_bytes as u64);
    core.metrics.apply_chunk.record(started.elapsed());
    Ok(())
}

/// Batches for the state, each with the members of its place in the log; memberships, of which only
/// the last counts, for consensus.
fn sort(
    entries: Vec<Entry>,
    before: &StoredMembership,
) -> (Vec<LogEntry>, Option<StoredMembership>) {
    let mut batches = Vec::with_capacity(entries.len());
    let mut members = ids_of(before.membership());
    let mut membership = None;
    for entry in entries {
        let LogId { leader_id, index } = entry.log_id;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(payload) => {
                let meta = EntryMeta { index, term: leader_id.term, node: leader_id.node_id };
                batches.push(LogEntry { meta, members: Arc::clone(&members), batch: payload.0 });
            }
            EntryPayload::Membership(new) => {
                members = ids_of(&new);
                membership = Some(StoredMembership::new(Some(entry.log_id), new));
            }
        }
    }
    (batches, membership)
}

fn ids_of(membership: &Membership) -> Arc<[u64]> {
    membership.nodes().map(|(id, _)| *id).collect()
}

fn advance(core: &Core, last: LogId, membership: Option<StoredMembership>) {
    let mut position = core.position.lock();
    position.applied = Some(last);
    if let Some(membership) = membership {
        position.membership = membership;
    }
    drop(position);
    core.metrics.applied_index.set(last.index);
    core.applied.send_replace(last.index);
}

fn tell(
    core: &Core,
    index: u64,
    applied: Option<Applied>,
    image: Option<Arc<Pinned>>,
    size_bytes: usize,
) {
    let Some(mut applied) = applied else {
        return;
    };
    for refused in std::mem::take(&mut applied.refused) {
        let (index, reason) = (refused.index, refused.reason.to_string());
        tracing::error!(index, reason, "a run of the log is not understood and was refused");
    }
    core.sink.timed(applied.at_ms, applied.time_epoch);
    let by_request = std::mem::take(&mut applied.outcomes);
    core.sink.applied(index, Outcomes { by_request, image });
    core.ring.publish(AppliedEvent::Applied(applied), size_bytes);
}

/// Makes a staged snapshot the state. Short: everything slow was done when it was staged.
fn install(core: &Core, staged: Staged) -> Result<(), Fault> {
    let started = Instant::now();
    let (generation, position, installed) =
        staged.commit(core.node).map_err(|error| Fault::Storage(error.to_string()))?;
    let (revision, compacted_revision, at_ms, time_epoch) = {
        let state = generation.state.read();
        (state.revision(), state.compacted_revision(), state.at_ms(), state.time_epoch())
    };
    generation.tables.report_failures(&core.on_failure);
    replace(core, generation, &position);
    core.shelf.put(installed);
    core.sink.timed(at_ms, time_epoch);
    core.sink.installed();
    core.ring.publish(AppliedEvent::Reset { revision, compacted_revision }, 0);
    core.retention.installed();
    core.metrics.snapshot_install.record(started.elapsed());
    Ok(())
}

fn replace(core: &Core, generation: Generation, position: &Position) {
    let replaced = core.current.swap(Arc::new(generation));
    replaced.tables.retire();
    // Closing tables writes out what they hold in memory, which nobody should wait for here.
    let closing = std::thread::Builder::new().name("retire".into());
    if let Err(error) = closing.spawn(move || drop(replaced)) {
        tracing::warn!(%error, "the replaced state is closed where it is last read");
    }
    *core.position.lock() = position.clone();
    core.flusher.reset();
    let index = position.applied.map_or(0, |applied| applied.index);
    core.metrics.applied_index.set(index);
    core.applied.send_replace(index);
}
