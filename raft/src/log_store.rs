//! The Raft log on disk: entries, vote and purge mark, written by one thread, synced in groups.
//!
//! `append` puts entries into the tail in memory, from where they can be read at once, and hands
//! them to the writer; openraft hears from it when they are durable. Nothing here blocks an async
//! thread: what is not in memory is read on a blocking one.

mod disk;
pub mod entry_codec;
mod memory_log;
pub(crate) mod peek;
mod queue;
mod recover;
mod rocks_log;
mod tail;
mod wal_tail;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::failure::{Area, OnFailure};
use crate::retention::Ledger;
use crate::storage_metrics::StorageMetrics;
use crate::types::{Entry, EntryPayload, LogId, TypeConfig, Vote};

pub use disk::{DiskSeam, Fact, LogBatch, LogChange, LogDisk, VisitRow};
pub use memory_log::MemoryLog;
pub use recover::LogOpenError;
pub use rocks_log::{RocksLog, RocksLogError};

use queue::{Job, Queue};
use tail::Tail;
use writer::Writer;

/// Older entries are estimated in steps of so many.
const OLDER_STEP: u64 = 256;

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Newest entries kept in memory.
    pub tail_bytes_max: usize,
    /// Given to the log and not yet durable; beyond it `append` waits.
    pub queue_bytes_max: usize,
    /// One answer to a follower that catches up.
    pub read_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { tail_bytes_max: 16 << 20, queue_bytes_max: 64 << 20, read_bytes_max: 1 << 20 }
    }
}

struct Log {
    tail: Tail,
    last: Option<LogId>,
    purged: Option<LogId>,
    next_job: u64,
    /// Counts truncations: a read that spans one starts over.
    truncations: u64,
    ledger: Ledger,
    /// Index of the newest membership that was appended since the start.
    membership: Option<u64>,
}

#[derive(Default)]
struct Committed {
    newest: Option<LogId>,
    unsaved: Option<LogId>,
}

struct Shared {
    disk: Arc<dyn LogDisk>,
    options: LogOptions,
    metrics: Arc<StorageMetrics>,
    on_failure: OnFailure,
    queue: Queue,
    log: Mutex<Log>,
    /// The vote that is on the disk.
    vote: Mutex<Option<Vote>>,
    /// The vote that is on the disk or on its way there.
    newest_vote: Mutex<Option<Vote>>,
    committed: Mutex<Committed>,
    /// One more than the highest index that this node has known to be committed.
    committed_end: AtomicU64,
    /// One more than the index of the last durable entry; zero while there is none.
    durable_end: AtomicU64,
}

impl Shared {
    fn set_durable(&self, last_index: Option<u64>) {
        self.durable_end.store(last_index.map_or(0, |index| index + 1), Ordering::Release);
    }

    fn first_index(&self, log: &Log) -> u64 {
        log.purged.map_or(0, |log_id| log_id.index + 1)
    }
}

/// The thread that writes. Ends with the last handle on the log.
struct WriterThread {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl WriterThread {
    fn stop(&self) -> io::Result<()> {
        let Some(thread) = self.thread.lock().take() else {
            return Ok(());
        };
        self.shared.queue.push(Job::Stop);
        thread.join().unwrap_or_else(|_panic| Err(stopped()))
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the log was closed after a failure");
        }
    }
}

/// Reads and writes the log. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    writer: Arc<WriterThread>,
}

impl LogStore {
    /// Reads and checks the log of `node` and starts the thread that writes it.
    ///
    /// # Errors
    /// The log is damaged, of another layout or another node's.
    pub fn open(
        disk: Arc<dyn LogDisk>,
        node: u64,
        options: LogOptions,
        metrics: Arc<StorageMetrics>,
        on_failure: OnFailure,
    ) -> Result<LogStore, LogOpenError> {
        let recovered = recover::recover(disk.as_ref(), node, options.tail_bytes_max)?;
        let mut tail = Tail::new(options.tail_bytes_max);
        let last = recovered.newest.last().map(|entry| entry.log_id).or(recovered.purged);
        let ledger = ledger_of(recovered.purged, &recovered.newest);
        for entry in recovered.newest {
            tail.push(entry, 0);
        }
        tail.written(0);
        let log = Log {
            tail,
            last,
            purged: recovered.purged,
            next_job: 1,
            truncations: 0,
            ledger,
            membership: None,
        };
        let shared = Arc::new(Shared {
            disk,
            metrics,
            on_failure,
            queue: Queue::new(options.queue_bytes_max),
            options,
            log: Mutex::new(log),
            vote: Mutex::new(recovered.vote),
            newest_vote: Mutex::new(recovered.vote),
            committed_end: AtomicU64::new(0),
            committed: Mutex::new(Committed { newest: recovered.committed, unsaved: None }),
            durable_end: AtomicU64::new(0),
        });
        shared.set_durable(last.map(|log_id| log_id.index));
        let writer = Writer::new(shared.clone(), last.map(|log_id| log_id.index));
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || writer.run())
            .map_err(LogOpenError::Io)?;
        let writer = WriterThread { shared: shared.clone(), thread: Mutex::new(Some(thread)) };
        Ok(LogStore { shared, writer: Arc::new(writer) })
    }

    /// Index of the last entry that is on this node's disk for certain.
    pub fn durable_index(&self) -> Option<u64> {
        self.shared.durable_end.load(Ordering::Acquire).checked_sub(1)
    }

    /// A way to ask for [`LogStore::durable_index`] without holding the log open.
    pub fn durable_probe(&self) -> impl Fn() -> Option<u64> + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade()?.durable_end.load(Ordering::Acquire).checked_sub(1)
    }

    /// As [`LogStore::purged`], without holding the log open.
    pub fn purged_probe(&self) -> impl Fn() -> Option<LogId> + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade()?.log.lock().purged
    }

    /// As [`LogStore::size_bytes`], without holding the log open.
    pub fn size_probe(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade().map_or(0, |shared| shared.log.lock().ledger.size_bytes())
    }

    pub fn last_log_id(&self) -> Option<LogId> {
        let log = self.shared.log.lock();
        log.last.max(log.purged)
    }

    /// The vote that is on the disk.
    pub fn vote(&self) -> Option<Vote> {
        *self.shared.vote.lock()
    }

    /// The vote that is on the disk or on its way there: no later one has been given to anybody.
    pub(crate) fn newest_vote(&self) -> Option<Vote> {
        *self.shared.newest_vote.lock()
    }

    /// Someone else is about to hear that `index` is committed.
    pub(crate) fn note_committed(&self, index: u64) {
        self.shared.committed_end.fetch_max(index + 1, Ordering::SeqCst);
    }

    /// The highest index that this node, since its start, has known to be committed: no state
    /// that was visible here, or at a follower of this leader, is newer.
    pub(crate) fn committed_index(&self) -> Option<u64> {
        self.shared.committed_end.load(Ordering::SeqCst).checked_sub(1)
    }

    /// Index of the newest membership that was appended since the start.
    pub(crate) fn newest_membership(&self) -> Option<u64> {
        self.shared.log.lock().membership
    }

    /// Bytes of the entries that are not purged, roughly.
    pub fn size_bytes(&self) -> u64 {
        self.shared.log.lock().ledger.size_bytes()
    }

    /// The highest entry that can go when so many bytes are to stay in front of `upto`.
    pub(crate) fn index_before(&self, upto: u64, bytes: u64) -> Option<u64> {
        self.shared.log.lock().ledger.index_before(upto, bytes)
    }

    pub fn purged(&self) -> Option<LogId> {
        self.shared.log.lock().purged
    }

    /// Age of the write that runs now; zero while the disk answers.
    pub fn stall(&self) -> Duration {
        self.shared.metrics.log_stall()
    }

    /// Given to the log and not yet durable.
    pub fn unsynced_bytes(&self) -> usize {
        self.shared.queue.size_bytes()
    }

    /// Makes all that was given to the log durable, then stops its thread. Nothing may be
    /// appended afterwards. Blocks.
    ///
    /// # Errors
    /// The storage failed.
    pub fn stop(&self) -> io::Result<()> {
        self.writer.stop()
    }

    /// The entries of `start..end` that the log holds, at most about `bytes_max` of them; the
    /// range may begin before the log does, and end after it.
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if let Place::Memory(entries) = self.locate(start, end, bytes_max) {
            return Ok(entries);
        }
        let store = self.clone();
        let read = move || store.read_disk(start, end, bytes_max);
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// A step of what is about to be applied: a missing entry would be skipped for good.
    async fn read_run(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end, self.shared.options.read_bytes_max).await?;
        let found = entries.first().map(|entry| entry.log_id.index);
        let log_end = self.last_log_id().map_or(0, |last| last.index + 1);
        if found != Some(start) && start < end.min(log_end) {
            let message = format!("entry {start} is to be applied, the log has {found:?} there");
            return Err(io::Error::other(self.shared.on_failure.report(Area::Log, message)));
        }
        Ok(entries)
    }

    fn locate(&self, start: u64, end: u64, bytes_max: usize) -> Place {
        let log = self.shared.log.lock();
        let start = start.max(self.shared.first_index(&log));
        let log_end = log.last.map_or(0, |last| last.index + 1);
        let disk_end = log.tail.first_index().unwrap_or(log_end).min(end);
        if start >= disk_end {
            return Place::Memory(log.tail.range(start, end, bytes_max));
        }
        Place::Disk { start, disk_end, truncations: log.truncations }
    }

    /// Entries may move meanwhile: out of memory, or out of the log at either end.
    fn read_disk(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = start;
        let mut known_truncations = None;
        loop {
            let (from, disk_end) = match self.locate(next, end, bytes_max) {
                Place::Memory(newest) => {
                    // A read with a limit need not be complete, and the rest is cheap to ask for.
                    if entries.is_empty() || bytes_max == usize::MAX {
                        append_run(&mut entries, newest);
                    }
                    return Ok(entries);
                }
                Place::Disk { start: from, disk_end, truncations } => {
                    if known_truncations.replace(truncations).is_some_and(|t| t != truncations) {
                        entries.clear();
                        next = start;
                        continue;
                    }
                    (from, disk_end)
                }
            };
            let read =
                recover::read_rows_limited(self.shared.disk.as_ref(), from, disk_end, bytes_max);
            let read = read.map_err(|error| self.damaged(error))?;
            if self.shared.log.lock().truncations != known_truncations.unwrap_or(0) {
                continue;
            }
            self.shared.metrics.log_entries_read.add(read.len() as u64);
            next = read.last().map_or(disk_end, |entry| entry.log_id.index + 1);
            append_run(&mut entries, read);
            if bytes_max != usize::MAX && !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    fn damaged(&self, error: LogOpenError) -> io::Error {
        let damage = match error.into_io() {
            Ok(error) => return error,
            Err(damage) => damage,
        };
        io::Error::other(self.shared.on_failure.report(Area::Log, damage.to_string()))
    }
}

/// Where the next entries of a range are.
enum Place {
    Memory(Vec<Entry>),
    Disk { start: u64, disk_end: u64, truncations: u64 },
}

/// Puts `more` behind `entries`; where a purge came between them, only `more` is left.
fn append_run(entries: &mut Vec<Entry>, more: Vec<Entry>) {
    let (Some(last), Some(first)) = (entries.last(), more.first()) else {
        entries.extend(more);
        return;
    };
    if last.log_id.index + 1 != first.log_id.index {
        entries.clear();
    }
    entries.extend(more);
}

fn entry_bytes(entry: &Entry) -> u64 {
    (entry_codec::OVERHEAD_BYTES + entry_codec::payload_bytes(entry)) as u64
}

/// Sizes of older entries are not read at a start: they count as the newest do on average.
fn ledger_of(purged: Option<LogId>, newest: &[Entry]) -> Ledger {
    let mut ledger = Ledger::default();
    let Some(first) = newest.first() else {
        return ledger;
    };
    let size: u64 = newest.iter().map(entry_bytes).sum();
    let n_older = first.log_id.index - purged.map_or(0, |purged| purged.index + 1);
    let average = size / newest.len() as u64;
    for step in 0..n_older / OLDER_STEP {
        let start = first.log_id.index - n_older;
        ledger.append(start + (step + 1) * OLDER_STEP - 1, average * OLDER_STEP);
    }
    for entry in newest {
        ledger.append(entry.log_id.index, entry_bytes(entry));
    }
    ledger
}

fn stopped() -> io::Error {
    io::Error::other("the thread that writes the log is gone")
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.shared.vote.lock())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, self.shared.options.read_bytes_max).await
    }

    /// In steps: a range to apply may be hundreds of megabytes.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let steps = futures::stream::unfold(Some((self.clone(), start)), move |state| async move {
            let (store, next) = state?;
            if next >= end {
                return None;
            }
            match store.read_run(next, end).await {
                Ok(entries) => {
                    let next = entries.last()?.log_id.index + 1;
                    let step: Vec<_> = entries.into_iter().map(Ok).collect();
                    Some((futures::stream::iter(step), Some((store, next))))
                }
                Err(error) => Some((futures::stream::iter(vec![Err(error)]), None)),
            }
        });
        futures::StreamExt::flatten(steps)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let log = self.shared.log.lock();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last.max(log.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        // First: from the moment that it can be durable, nothing may count on an earlier one.
        *self.shared.newest_vote.lock() = Some(*vote);
        let (done, saved) = oneshot::channel();
        self.shared.queue.push(Job::SaveVote { vote: *vote, done });
        saved.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(log_id) = committed {
            self.note_committed(log_id.index);
        }
        let mut saved = self.shared.committed.lock();
        saved.newest = committed;
        saved.unsaved = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.committed.lock().newest)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.shared.queue.wait_for_room().await;
        let shared = &self.shared;
        let mut log = shared.log.lock();
        let number = log.next_job;
        log.next_job += 1;
        for entry in &entries {
            let index = entry.log_id.index;
            if let Some(last) = log.last.filter(|last| index != last.index + 1) {
                let message = format!("entry {index} appended after entry {}", last.index);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            log.last = Some(entry.log_id);
            if matches!(entry.payload, EntryPayload::Membership(_)) {
                log.membership = Some(index);
            }
            log.ledger.append(index, entry_bytes(entry));
            log.tail.push(entry.clone(), number);
        }
        // Under the lock, so that jobs stand in the order of what they do to the tail.
        shared.queue.push(Job::Append { number, entries, done: callback });
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let shared = &self.shared;
        let mut log = shared.log.lock();
        let from = last_log_id.map_or(0, |log_id| log_id.index + 1);
        let Some(last) = log.last.filter(|last| last.index >= from) else {
            return Ok(());
        };
        log.tail.truncate(from);
        log.ledger.truncate(from);
        log.truncations += 1;
        log.membership = log.membership.filter(|index| *index < from);
        log.last = last_log_id;
        shared.queue.push(Job::Truncate { from, to: last.index + 1 });
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let shared = &self.shared;
        let mut log = shared.log.lock();
        if log.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        let from = shared.first_index(&log);
        log.tail.purge(upto.index + 1);
        log.ledger.purge(upto.index);
        log.purged = Some(upto);
        if log.last.is_none_or(|last| last.index < upto.index) {
            log.last = Some(upto);
        }
        shared.queue.push(Job::Purge { from, upto });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
