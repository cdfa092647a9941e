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
use crate::types::{Snapshot, TypeConfig};

use super::manifest::{self, DigestCache};
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
    /// Number of the transfer that may write; a later one supersedes it.
    pub(super) receiving: AtomicU64,
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
            receiving: AtomicU64::new(0),
        };
        Builder { shared: Arc::new(shared) }
    }

    /// Whether the disk has room for a snapshot that could also be made later.
    pub(crate) fn has_room(&self) -> bool {
        free_bytes(&self.shared.data_dir).is_none_or(|free| free >= FREE_BYTES_MIN)
    }

    /// Makes whatever openraft hands over ready to be installed.
    pub(crate) async fn stage(&self, snapshot: SnapshotData) -> io::Result<Box<Staged>> {
        let image = match snapshot {
            SnapshotData::Staged(staged) => return Ok(staged),
            SnapshotData::Image(image) => image,
        };
        let shared = self.shared.clone();
        let stage = move || Staged::from_image(&shared, &image);
        let staged = tasks::in_background("snapshot-stage", stage).await??;
        Ok(Box::new(staged))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let shared = self.shared.clone();
        let build = move || shared.build();
        let image = tasks::in_background("snapshot-build", build).await??;
        let meta = image.meta().map_err(io::Error::other)?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Image(image) })
    }
}

impl Shared {
    fn build(&self) -> Result<Arc<Image>, SnapshotError> {
        let _one = self.building.lock();
        let started = Instant::now();
        let generation = self.core.current.load_full();
        let shelf = &self.core.shelf;
        let id = format!("{:016x}-{:016x}", started_index(&self.core), rand::random::<u64>());
        let staged_dir = shelf.dir().join(format!("{id}.{STAGED_SUFFIX}"));
        let tables_dir = staged_dir.join(TABLES_DIR);
        durable::remove_dir(&staged_dir).map_err(io_error(&staged_dir))?;
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
