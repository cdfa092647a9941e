//! Everything that this node keeps on its disk, opened and checked against each other.
//!
//! ```text
//! data/raftlog/        the log
//! data/sm/             the state, by generation
//! data/snap/           the newest snapshot
//! data/recv/           one that is arriving
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use proto::quorate;
use statemachine::Fault;
use tokio::sync::watch;

use crate::apply::{
    self, CompactionPace, Core, FlushPolicy, Flusher, OutcomeSink, Ring, RingLimits, StateHandle,
    StateMachine, Stop, Worker, WorkerHandle,
};
use crate::failure::{Area, Failure, OnFailure};
use crate::generation::{Generation, GenerationError};
use crate::log_store::{DiskSeam, LogOpenError, LogOptions, LogStore, RocksLog, RocksLogError};
use crate::retention::{Retention, RetentionPolicy};
use crate::rocks::{Position, RocksMemory, StateMemory, StateOpenError};
use crate::room::{Room, RoomLevel, RoomPolicy};
use crate::scrub::{self, ScrubPolicy};
use crate::snapshot::{
    BuildTrouble, Builder, Image, OnStep, Receiving, Shelf, SnapshotError, SnapshotSource, Staged,
    sweep_received,
};
use crate::storage_metrics::StorageMetrics;
use crate::types::{LogId, Vote};

pub(crate) const LOG_DIR: &str = "raftlog";

#[derive(Clone, Debug)]
pub struct StorageOptions {
    pub data_dir: PathBuf,
    /// Id of this node: what is on the disk must be its own.
    pub node: u64,
    pub log: LogOptions,
    pub log_disk: DiskSeam,
    pub memory: RocksMemory,
    pub flush: FlushPolicy,
    pub compaction: CompactionPace,
    pub retention: RetentionPolicy,
    pub room: RoomPolicy,
    pub scrub: ScrubPolicy,
    /// Begins with an empty state beside the one on disk, into which a snapshot is received.
    pub state: StateOnDisk,
    pub ring: RingLimits,
    pub on_failure: OnFailure,
    pub on_step: OnStep,
}

impl StorageOptions {
    pub fn new(data_dir: PathBuf, node: u64) -> StorageOptions {
        StorageOptions {
            on_failure: OnFailure::abort(data_dir.clone()),
            data_dir,
            node,
            log: LogOptions::default(),
            log_disk: DiskSeam::none(),
            memory: RocksMemory::default(),
            flush: FlushPolicy::default(),
            compaction: CompactionPace::default(),
            retention: RetentionPolicy::default(),
            room: RoomPolicy::OFF,
            scrub: ScrubPolicy::default(),
            state: StateOnDisk::Opened,
            ring: RingLimits::default(),
            on_step: OnStep::nothing(),
        }
    }
}

/// What becomes of the state that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOnDisk {
    Opened,
    /// It is wrong or damaged: nothing of it is read.
    Passed,
}

/// Why a node does not start on what is on its disk. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageOpenError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    RocksLog(#[from] RocksLogError),
    #[error("{}: {source}", path.display())]
    Log { path: PathBuf, source: LogOpenError },
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error(transparent)]
    State(#[from] StateOpenError),
    #[error(
        "{} ends at entry {found}, but entry {expected} had been made durable in it: the log was \
         replaced or went back, and with it this node would forget what it has acknowledged; \
         replace this node with `quorate member replace`",
        path.display()
    )]
    LogWentBack { path: PathBuf, found: String, expected: u64 },
    #[error(
        "{} begins after entry {purged}, but the state has applied only {applied}: the state went \
         back; replace this node with `quorate member replace`",
        path.display()
    )]
    StateWentBack { path: PathBuf, purged: LogId, applied: String },
}

impl StorageOpenError {
    /// The state is damaged and the log is sound.
    pub(crate) fn is_damaged_state(&self) -> bool {
        match self {
            StorageOpenError::State(error)
            | StorageOpenError::Generation(GenerationError::Open(error)) => error.is_damage(),
            StorageOpenError::Generation(_)
            | StorageOpenError::Io { .. }
            | StorageOpenError::RocksLog(_)
            | StorageOpenError::Log { .. }
            | StorageOpenError::LogWentBack { .. }
            | StorageOpenError::StateWentBack { .. } => false,
        }
    }
}

/// The storage of a running node.
pub struct Storage {
    pub log: LogStore,
    pub machine: StateMachine,
    pub control: StorageControl,
}

/// What the node asks of its storage besides what openraft does. Clones share it.
#[derive(Clone)]
pub struct StorageControl {
    pub state: StateHandle,
    pub log: LogStore,
    pub metrics: Arc<StorageMetrics>,
    pub room: Arc<Room>,
    core: Arc<Core>,
    builder: Builder,
    worker: WorkerHandle,
    stop: Arc<Stop>,
    background: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Storage {
    /// Opens everything; blocks for as long as it takes to load the state.
    ///
    /// # Errors
    /// Something is damaged, another node's, of another version, or does not fit the rest.
    pub fn open(
        options: StorageOptions,
        sink: Arc<dyn OutcomeSink>,
    ) -> Result<Storage, StorageOpenError> {
        let data_dir = options.data_dir.clone();
        std::fs::create_dir_all(&data_dir)
            .map_err(|source| StorageOpenError::Io { path: data_dir.clone(), source })?;
        let metrics = Arc::new(StorageMetrics::default());
        let room = Room::open(&data_dir, options.room);
        let log_path = data_dir.join(LOG_DIR);
        let log_disk = Arc::new(RocksLog::open(&log_path)?.with_room(room.clone()));
        let log_probe = Arc::downgrade(&log_disk);
        let log = LogStore::open(
            options.log_disk.around(log_disk),
            options.node,
            options.log.clone(),
            metrics.clone(),
            options.on_failure.clone(),
        )
        .map_err(|source| StorageOpenError::Log { path: log_path.clone(), source })?;
        let has_history = log.last_log_id().is_some() || log.vote().is_some();
        let memory = StateMemory::new(&options.memory);
        let generation = match options.state {
            StateOnDisk::Opened => Generation::open(&data_dir, options.node, &memory, has_history)?,
            StateOnDisk::Passed => Generation::open_beside(&data_dir, &memory)?,
        };
        generation.tables.report_failures(&options.on_failure);
        let position = generation.tables.position()?;
        if options.state == StateOnDisk::Opened {
            check_log(&log_path, &log, options.node, &generation)?;
            check_state(&log_path, &log, &position)?;
        }
        let shelf = Shelf::open(&data_dir, metrics.clone());
        if let Err(error) = sweep_received(&data_dir) {
            tracing::warn!(%error, "what is left of a snapshot that arrived stays");
        }
        drop_stale_snapshot(&shelf, &log, &position);
        let core = Arc::new(Core {
            node: options.node,
            current: ArcSwap::from_pointee(generation),
            applied: watch::Sender::new(position.applied.map_or(0, |applied| applied.index)),
            position: Mutex::new(position),
            ring: Ring::new(options.ring),
            sink,
            flusher: Flusher::new(options.flush),
            shelf,
            retention: Retention::new(options.retention),
            room,
            metrics: metrics.clone(),
            on_failure: options.on_failure.clone(),
            log_durable: Box::new(log.durable_probe()),
            log_purged: Box::new(log.purged_probe()),
            log_bytes: Box::new(log.size_probe()),
        });
        let builder = Builder::new(core.clone(), data_dir.clone(), memory, options.on_step.clone());
        let paces = (options.compaction, options.scrub);
        start(core, builder, log, log_probe, paces)
            .map_err(|source| StorageOpenError::Io { path: data_dir, source })
    }
}

fn start(
    core: Arc<Core>,
    builder: Builder,
    log: LogStore,
    log_probe: Weak<RocksLog>,
    (pace, scrub): (CompactionPace, ScrubPolicy),
) -> io::Result<Storage> {
    let worker = Worker::spawn(core.clone())?;
    let stop = Arc::new(Stop::default());
    let flushing = core.clone();
    let flusher = std::thread::Builder::new()
        .name("state-flush".into())
        .spawn(move || flushing.flusher.run(&flushing))?;
    let (compacting, stopped) = (core.clone(), stop.clone());
    let compactor = std::thread::Builder::new()
        .name("compaction".into())
        .spawn(move || apply::compact(&compacting, &pace, &stopped))?;
    let (scrubbing, stopped) = (core.clone(), stop.clone());
    let scrubber = std::thread::Builder::new()
        .name("scrub".into())
        .spawn(move || scrub::run(&scrubbing, &scrub, &stopped))?;
    let (measuring, stopped) = (core.clone(), stop.clone());
    let measurer = std::thread::Builder::new()
        .name("room".into())
        .spawn(move || measure_room(&measuring, &log_probe, &stopped))?;
    let machine = StateMachine::new(core.clone(), worker.clone(), builder.clone());
    let control = StorageControl {
        state: machine.handle(),
        log: log.clone(),
        metrics: core.metrics.clone(),
        room: core.room.clone(),
        core,
        builder,
        worker,
        stop,
        background: Arc::new(Mutex::new(vec![flusher, compactor, scrubber, measurer])),
    };
    Ok(Storage { log, machine, control })
}

/// How often the free space is measured.
const ROOM_PERIOD: Duration = Duration::from_millis(100);
/// With less room no compaction begins: its output comes before its input goes.
const COMPACTION_BYTES_MIN: u64 = 128 << 20;

/// Measures the room until `stop`, and keeps RocksDB's background work within it: a compaction
/// that meets the end of the disk stops the store's background work for good.
fn measure_room(core: &Core, log: &Weak<RocksLog>, stop: &Stop) {
    let mut pauses = None;
    let mut forgot_full = false;
    while stop.rest(ROOM_PERIOD) {
        core.room.measure();
        let view = core.room.view();
        if view.level == RoomLevel::Plenty && !forgot_full {
            core.room.forget_full();
            forgot_full = true;
        }
        let tables = core.current.load_full().tables.clone();
        let log = log.upgrade();
        if tables.failed_jobs() > 0 {
            // The next start would meet it again.
            core.on_failure.report(Area::Rows, failed_job(view.free_bytes));
            return;
        }
        if log.as_ref().is_some_and(|log| log.failed_jobs() > 0) {
            core.on_failure.report(Area::Log, failed_job(view.free_bytes));
            return;
        }
        let is_short = view.low_bytes > 0 && view.free_bytes < COMPACTION_BYTES_MIN;
        if pauses == Some(is_short) {
            continue;
        }
        if pauses.replace(is_short).is_some() || is_short {
            tracing::warn!(
                paused = is_short,
                free_bytes = view.free_bytes,
                "compactions of tables"
            );
            tables.pause_compactions(is_short);
            if let Some(log) = log {
                log.pause_compactions(is_short);
            }
        }
    }
}

/// RocksDB keeps to itself why a job in the background failed.
fn failed_job(free_bytes: u64) -> String {
    let reason = match free_bytes < COMPACTION_BYTES_MIN {
        true => "No space left on device",
        false => "see its LOG file",
    };
    format!("a flush or compaction in the background failed: {reason}")
}

/// A log that lost its end looks like one of a healthy, late follower to openraft, and would vote.
fn check_log(
    path: &Path,
    log: &LogStore,
    node: u64,
    generation: &Generation,
) -> Result<(), StorageOpenError> {
    let Some(mark) = generation.tables.log_mark()?.filter(|mark| mark.node == node) else {
        return Ok(());
    };
    let last = log.last_log_id();
    if last.is_some_and(|last| last.index >= mark.durable_index) {
        return Ok(());
    }
    let found = last.map_or("nothing".to_owned(), |last| last.index.to_string());
    Err(StorageOpenError::LogWentBack {
        path: path.to_owned(),
        found,
        expected: mark.durable_index,
    })
}

/// What was purged must be in the state. The other way round is fine: entries are committed, and
/// applied, as soon as a majority has them, which need not include this node.
fn check_state(path: &Path, log: &LogStore, position: &Position) -> Result<(), StorageOpenError> {
    match (log.purged(), position.applied) {
        (Some(purged), applied) if applied.is_none_or(|at| at.index < purged.index) => {
            let applied = applied.map_or("nothing".to_owned(), |applied| applied.to_string());
            Err(StorageOpenError::StateWentBack { path: path.to_owned(), purged, applied })
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// A snapshot must join the log without a gap, or openraft would offer it to no avail.
fn drop_stale_snapshot(shelf: &Shelf, log: &LogStore, position: &Position) {
    let Some(snapshot) = shelf.newest().and_then(|image| image.last_applied()) else {
        return;
    };
    let purged = log.purged().map(|purged| purged.index);
    let applied = position.applied.map(|applied| applied.index);
    // Openraft purges up to what is applied when the log ends before it.
    let behind = log.last_log_id().map(|last| last.index) < applied;
    let begins = if behind { applied } else { purged };
    if Some(snapshot.index) < begins {
        tracing::info!(index = snapshot.index, "dropping a snapshot that is behind the log");
        shelf.clear();
    }
}

impl StorageControl {
    /// Whether openraft should be told to build a snapshot now.
    pub fn snapshot_is_due(&self) -> bool {
        self.core.retention.snapshot_is_due() && self.builder.may_try()
    }

    /// Whether a peer could need a snapshot that is not here, and one may be tried now.
    pub(crate) fn snapshot_is_missing(&self) -> bool {
        let newest = self.newest_snapshot().and_then(|image| image.last_applied());
        self.log.purged().is_some_and(|purged| newest < Some(purged)) && self.builder.may_try()
    }

    /// Frees what a snapshot holds that ends before the log begins: no peer can use it.
    pub(crate) fn drop_stale_snapshot(&self) {
        let newest = self.newest_snapshot().and_then(|image| image.last_applied());
        if newest.is_some() && newest < self.log.purged() {
            tracing::info!("dropping a snapshot that is behind the log");
            self.core.shelf.clear();
        }
    }

    /// Why snapshots cannot be built; `None` while they can.
    pub fn snapshot_trouble(&self) -> Option<BuildTrouble> {
        self.builder.trouble()
    }

    pub fn newest_snapshot(&self) -> Option<Arc<Image>> {
        self.core.shelf.newest()
    }

    /// Reads a snapshot for a peer. While it is held, the log stays from its end on.
    pub fn snapshot_source(&self, image: Arc<Image>) -> SnapshotSource {
        SnapshotSource::new(self.core.clone(), image)
    }

    /// Begins to take a snapshot from a peer. Blocks on the disk, as all calls of what it gives.
    ///
    /// # Errors
    /// The snapshot cannot be used here, or there is no room for it.
    pub fn receive_snapshot(
        &self,
        manifest: quorate::SnapshotManifest,
    ) -> Result<Receiving, SnapshotError> {
        Receiving::begin(&self.builder, manifest)
    }

    /// Makes a snapshot that arrived the state of the next start. Blocks.
    ///
    /// # Errors
    /// It does not join the log, or the disk fails.
    pub(crate) fn adopt(&self, staged: Staged) -> Result<Position, SnapshotError> {
        let applied = staged.manifest().last_applied.as_ref().map(|log_id| log_id.index);
        if applied < self.log.purged().map(|purged| purged.index) {
            return Err(SnapshotError::Content { what: "entries end before the log begins and" });
        }
        let (_generation, position, _image) = staged.commit(self.core.node)?;
        Ok(position)
    }

    /// Index up to which the log should be purged now, if any of it should. Followers that answer
    /// have everything up to `followed`, where there are any.
    pub fn purge_upto(&self, followed: Option<u64>) -> Option<u64> {
        let policy = &self.core.retention.policy;
        let snapshot = self.newest_snapshot().and_then(|image| image.last_applied());
        let stood_in = self.core.retention.newest_stand_in();
        let covered = snapshot.map(|snapshot| snapshot.index).max(stood_in)?;
        let mut upto = self.log.index_before(covered, policy.keep_log_bytes)?;
        if let Some(pin) = self.core.retention.lowest_pin()
            && self.log.size_bytes() <= policy.sending_log_bytes_max
        {
            upto = upto.min(pin);
        }
        if let Some(followed) = followed
            && self.log.size_bytes() <= policy.lagging_log_bytes_max
        {
            upto = upto.min(followed);
        }
        let purged = self.log.purged().map(|purged| purged.index);
        (Some(upto) > purged).then_some(upto)
    }

    pub(crate) fn quarantine(&self, reason: &str) {
        self.core.on_failure.report(Area::Rows, reason);
    }

    /// A read of the state failed.
    pub(crate) fn state_failed(&self, fault: &Fault) {
        self.core.on_failure.report(Area::Rows, fault.to_string());
    }

    /// The last vote on the disk.
    pub fn vote(&self) -> Option<Vote> {
        self.log.vote()
    }

    /// As [`StorageControl::stop`], off the async threads.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn shutdown(&self) -> Result<(), Failure> {
        let control = self.clone();
        let stopped = tokio::task::spawn_blocking(move || control.stop()).await;
        stopped
            .unwrap_or_else(|error| Err(Failure { area: Area::State, message: error.to_string() }))
    }

    /// Makes everything durable and stops all threads, after openraft has been shut down. Blocks.
    ///
    /// # Errors
    /// The storage failed.
    pub fn stop(&self) -> Result<(), Failure> {
        self.worker.stop();
        self.stop.stop();
        self.core.flusher.stop();
        for thread in self.background.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the storage panicked");
            }
        }
        // What is not flushed is applied again from the log.
        let has_room = self.room.allows_flush(self.core.metrics.state_unflushed_bytes.get());
        let flushed = if has_room { self.state.flush() } else { Ok(()) };
        let log = self.log.stop();
        flushed?;
        log.map_err(|error| Failure { area: Area::Log, message: error.to_string() })
    }
}
