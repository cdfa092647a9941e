//! Builds a snapshot while writes go on: hard links to the tables, and a manifest.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use openraft::RaftSnapshotBuilder;
use parking_lot::Mutex;
use proto::quorate;
use statemachine::{digest, versions};

use crate::apply::Core;
use crate::convert::{log_id_to_proto, stored_membership_to_proto};
use crate::durable;
use crate::rocks::{StateMemory, Tables};
use crate::tasks;
use crate::types::{Snapshot, SnapshotMeta, TypeConfig};

use super::attempts::{Attempts, BuildTrouble};
use super::manifest::{self, DigestCache};
use super::turn::Turns;
use super::{
    Image, OnStep, STAGED_SUFFIX, SnapshotData, SnapshotError, Staged, TABLES_DIR, io_error,
};

/// Free space that building a snapshot leaves alone.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Builds and stages snapshots of one node. Clones share it.
#[derive(Clone)]
pub struct Builder {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) data_dir: PathBuf,
    pub(super) memory: StateMemory,
    pub(super) next_generation: AtomicU64,
    pub(super) on_step: OnStep,
    digests: DigestCache,
    building: Mutex<()>,
    attempts: Attempts,
    /// Whose transfer may write, and whether one is being verified and installed.
    pub(super) turns: Arc<Turns>,
}

impl Builder {
    pub(crate) fn new(
        core: Arc<Core>,
        data_dir: PathBuf,
        memory: StateMemory,
        on_step: OnStep,
    ) -> Builder {
        let next_generation = AtomicU64::new(core.current.load().number + 1);
        let shared = Shared {
            core,
            data_dir,
            memory,
            next_generation,
            on_step,
            digests: DigestCache::default(),
            building: Mutex::new(()),
            attempts: Attempts::default(),
            turns: Arc::default(),
        };
        Builder { shared: Arc::new(shared) }
    }

    /// Whether enough time has passed since an attempt that failed.
    pub(crate) fn may_try(&self) -> bool {
        self.shared.attempts.may_try(Instant::now())
    }

    /// Why there is no new snapshot; `None` while they can be built.
    pub(crate) fn trouble(&self) -> Option<BuildTrouble> {
        self.shared.attempts.trouble()
    }

    /// Makes whatever openraft hands over ready to be installed.
    pub(crate) async fn stage(&self, snapshot: SnapshotData) -> io::Result<Box<Staged>> {
        let image = match snapshot {
            SnapshotData::Staged(staged) => return Ok(staged),
            SnapshotData::Image(image) => image,
            SnapshotData::Unbuilt => return Err(SnapshotError::Unbuilt.into()),
        };
        let shared = self.shared.clone();
        let stage = move || Staged::from_image(&shared, &image);
        let staged = tasks::in_background("snapshot-stage", stage).await??;
        Ok(Box::new(staged))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    /// Never fails: to openraft an error here is the end of the node, and a node without a new
    /// snapshot is as sound as before.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let shared = self.shared.clone();
        let build = move || shared.try_build();
        let failed = match tasks::in_background("snapshot-build", build).await {
            Ok(Ok(built)) => return Ok(built),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let shared = self.shared.clone();
        let stand_in = move || shared.stand_in(&failed);
        tokio::task::spawn_blocking(stand_in).await.map_err(io::Error::other)
    }
}

impl Shared {
    fn try_build(&self) -> Result<Snapshot, SnapshotError> {
        self.check_room()?;
        let image = self.build()?;
        let meta = image.meta().map_err(|_error| SnapshotError::Content { what: "members" })?;
        self.attempts.succeeded();
        Ok(Snapshot { meta, snapshot: SnapshotData::Image(image) })
    }

    fn check_room(&self) -> Result<(), SnapshotError> {
        match free_bytes(&self.data_dir) {
            Some(free) if free < FREE_BYTES_MIN => {
                let path = self.data_dir.clone();
                Err(SnapshotError::NoRoom { path, needed: FREE_BYTES_MIN, free })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What openraft gets where no snapshot could be built. It claims no more than the newest one
    /// that exists, unless the log has grown too long or the disk is full: then it claims what the state has made
    /// durable, so that the log can be purged without a snapshot. A peer that needs one waits
    /// until one can be built.
    fn stand_in(&self, error: &str) -> Snapshot {
        let attempts = self.attempts.failed(error, Instant::now());
        self.core.metrics.snapshot_build_failures.add(1);
        tracing::warn!(error, attempts, "snapshot not built, trying again later");
        let policy = &self.core.retention.policy;
        let is_too_long = (self.core.log_bytes)() >= policy.unsnapshotted_log_bytes_max;
        // What a purge frees is what a full disk needs.
        let meta =
            if is_too_long || self.check_room().is_err() { self.durable_meta() } else { None };
        let newest = || self.core.shelf.newest().and_then(|image| image.meta().ok());
        let meta = meta.or_else(newest).unwrap_or_default();
        Snapshot { meta, snapshot: SnapshotData::Unbuilt }
    }

    /// Up to where the state is durable, and with it what the log need not hold any more.
    fn durable_meta(&self) -> Option<SnapshotMeta> {
        let position = self.core.position.lock().clone();
        let index = position.applied?.index;
        // A failure has been reported by then.
        self.core.flusher.flush_now(&self.core).ok()?;
        self.core.retention.stood_in(index);
        tracing::warn!(index, "the log is purged without a snapshot");
        Some(SnapshotMeta { last_log_id: position.applied, last_membership: position.membership })
    }

    fn build(&self) -> Result<Arc<Image>, SnapshotError> {
        let _one = self.building.lock();
        let started = Instant::now();
        let generation = self.core.current.load_full();
        let shelf = &self.core.shelf;
        let id = format!("{:016x}-{:016x}", started_index(&self.core), rand::random::<u64>());
        let staged_dir = shelf.dir().join(format!("{id}.{STAGED_SUFFIX}"));
        let unfinished = Unfinished(staged_dir.clone());
        let tables_dir = staged_dir.join(TABLES_DIR);
        std::fs::create_dir_all(&staged_dir).map_err(io_error(&staged_dir))?;
        self.on_step.reached("build: checkpoint");
        let before = self.core.retention.debt();
        generation.tables.checkpoint(&tables_dir)?;
        let (number, tables) = (generation.number, generation.tables.clone());
        drop(generation);

        // What the image holds is read from the image: it may be newer than when this began.
        let image = Tables::open_read_only(&tables_dir, &self.memory)?;
        let position = image.position()?;
        let stored = digest::stored(&image)?;
        drop(image);
        let files = self.digests.files(number, &tables_dir)?;
        drop(tables);
        let manifest = quorate::SnapshotManifest {
            format: versions::SNAPSHOT.newest,
            schema: versions::STATE.newest,
            rocksdb: versions::SNAPSHOT_ROCKSDB.into(),
            id: id.clone(),
            cluster: String::new(),
            last_applied: position.applied.as_ref().map(log_id_to_proto),
            membership: Some(stored_membership_to_proto(&position.membership)),
            revision: stored.revision,
            compacted_revision: stored.compacted_revision,
            content_digest: stored.digests.content.to_be_bytes().to_vec().into(),
            chain_digest: stored.digests.chain.to_be_bytes().to_vec().into(),
            size_bytes: files.iter().map(|file| file.size_bytes).sum(),
            files,
        };
        self.on_step.reached("build: manifest");
        sync_files(&tables_dir, &manifest)?;
        manifest::write(&staged_dir, &manifest)?;
        self.on_step.reached("build: rename");
        let dir = shelf.dir().join(&id);
        durable::rename_dir(&staged_dir, &dir).map_err(io_error(&dir))?;
        drop(unfinished);
        let image = Arc::new(Image::new(dir, manifest));
        shelf.put(image.clone());
        self.core.retention.built(before);
        self.core.metrics.snapshot_build.record(started.elapsed());
        tracing::info!(
            snapshot = image.manifest().id,
            index = image.last_applied().map_or(0, |log_id| log_id.index),
            size_bytes = image.manifest().size_bytes,
            took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "snapshot built"
        );
        Ok(image)
    }

    pub(super) fn allocate_generation(&self) -> u64 {
        self.next_generation.fetch_add(1, Ordering::Relaxed)
    }
}

/// Removes what an attempt that failed leaves: it would hold the space of its tables.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_dir(&self.0) {
            tracing::warn!(%error, "an unfinished snapshot stays until the next start");
        }
    }
}

fn started_index(core: &Core) -> u64 {
    core.position.lock().applied.map_or(0, |applied| applied.index)
}

/// Makes the files of an image, and their names, durable.
pub(super) fn sync_files(
    dir: &std::path::Path,
    manifest: &quorate::SnapshotManifest,
) -> Result<(), SnapshotError> {
    for file in &manifest.files {
        let path = dir.join(&file.name);
        std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io_error(&path))?;
    }
    durable::sync_dir(dir).map_err(io_error(dir))
}

/// Free space of the disk that holds `path`; `None` where the system does not say.
pub(super) fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}
