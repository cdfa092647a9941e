//! Turns the files of a snapshot into a loaded generation, and that into the current one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use proto::quorate;
use statemachine::digest;

use crate::convert::snapshot_meta_from_manifest;
use crate::durable;
use crate::generation::{self, Generation};
use crate::rocks::{Position, Tables};

use super::build::{Shared, sync_files};
use super::manifest;
use super::turn::Turn;
use super::{
    Image, Installed, OnStep, RECEIVE_DIR, STAGED_SUFFIX, SnapshotError, TABLES_DIR, io_error,
};

/// A snapshot whose tables are verified, open and loaded; only its being current is missing.
pub struct Staged {
    /// `None` once it is the node's.
    loaded: Option<(Generation, Position)>,
    sm_dir: PathBuf,
    staged_dir: PathBuf,
    image_dir: PathBuf,
    manifest: quorate::SnapshotManifest,
    on_step: OnStep,
    /// Dropped last: until then no other transfer begins.
    _turn: Option<Turn>,
}

impl Staged {
    pub fn manifest(&self) -> &quorate::SnapshotManifest {
        &self.manifest
    }

    /// Links the files of one of our own snapshots.
    pub(super) fn from_image(shared: &Shared, image: &Image) -> Result<Staged, SnapshotError> {
        let name = format!("{}.local", image.manifest().id);
        let dir = shared.data_dir.join(RECEIVE_DIR).join(name);
        durable::remove_dir(&dir).map_err(io_error(&dir))?;
        copy_image(&image.tables_dir(), &dir, image.manifest())?;
        let staged = Staged::from_files(shared, &dir, image.manifest(), None);
        durable::remove_dir(&dir).map_err(io_error(&dir))?;
        staged
    }

    /// Takes the files in `files_dir`, whose digests were checked, and checks what they hold.
    pub(super) fn from_files(
        shared: &Shared,
        files_dir: &Path,
        manifest: &quorate::SnapshotManifest,
        turn: Option<Turn>,
    ) -> Result<Staged, SnapshotError> {
        let started = Instant::now();
        let sm_dir = generation::state_dir(&shared.data_dir);
        let number = shared.allocate_generation();
        let generation_dir = generation::path_of(&sm_dir, number);
        let shelf_dir = shared.core.shelf.dir();
        let mut staged = Staged {
            loaded: None,
            sm_dir,
            staged_dir: shelf_dir.join(format!("{}-{number:06}.{STAGED_SUFFIX}", manifest.id)),
            image_dir: shelf_dir.join(&manifest.id),
            manifest: manifest.clone(),
            on_step: shared.on_step.clone(),
            _turn: turn,
        };
        shared.on_step.reached("stage: link");
        staged.link_image(files_dir)?;
        shared.on_step.reached("stage: move");
        sync_files(files_dir, manifest)?;
        durable::remove_dir(&generation_dir).map_err(io_error(&generation_dir))?;
        durable::rename_dir(files_dir, &generation_dir).map_err(io_error(&generation_dir))?;
        shared.on_step.reached("stage: load");
        let tables = Tables::open(&generation_dir, &shared.memory)?;
        // Goes away with its directory unless it becomes the current one.
        tables.retire();
        let position = check_position(&tables, manifest)?;
        check_content(&tables, manifest)?;
        let loaded = Generation::load(number, tables)?;
        let chain = loaded.state.read().digests().chain.to_be_bytes();
        if chain[..] != manifest.chain_digest[..] {
            return Err(SnapshotError::Content { what: "entries" });
        }
        staged.loaded = Some((loaded, position));
        tracing::info!(
            snapshot = manifest.id,
            size_bytes = manifest.size_bytes,
            took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "snapshot staged"
        );
        Ok(staged)
    }

    /// Keeps the files as they came, for peers that will need the same snapshot.
    fn link_image(&self, files_dir: &Path) -> Result<(), SnapshotError> {
        durable::remove_dir(&self.staged_dir).map_err(io_error(&self.staged_dir))?;
        let tables_dir = self.staged_dir.join(TABLES_DIR);
        copy_image(files_dir, &tables_dir, &self.manifest)?;
        sync_files(&tables_dir, &self.manifest)?;
        manifest::write(&self.staged_dir, &self.manifest)
    }

    /// Makes it the current generation. Whatever happens, a restart finds either all of the old
    /// state or all of this one.
    pub(crate) fn commit(
        mut self,
        node: u64,
    ) -> Result<(Generation, Position, Installed), SnapshotError> {
        let (loaded, position) = self.loaded.take().expect("staged once, committed once");
        // From here on a restart may need the directory, even if this call fails.
        loaded.tables.keep();
        self.on_step.reached("install: current");
        generation::set_current(&self.sm_dir, loaded.number, node)?;
        self.on_step.reached("install: publish");
        if self.image_dir.exists() {
            // One of our own, installed again: it is there already.
            durable::remove_dir(&self.staged_dir).map_err(io_error(&self.staged_dir))?;
        } else {
            durable::rename_dir(&self.staged_dir, &self.image_dir)
                .map_err(io_error(&self.image_dir))?;
        }
        self.on_step.reached("install: done");
        let image = Image::new(self.image_dir.clone(), self.manifest.clone());
        Ok((loaded, position, Arc::new(image)))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_dir(&self.staged_dir) {
            tracing::warn!(%error, "a staged snapshot stays until the next start");
        }
    }
}

/// Table files never change and are linked; RocksDB may append to the small ones.
fn copy_image(
    from: &Path,
    to: &Path,
    manifest: &quorate::SnapshotManifest,
) -> Result<(), SnapshotError> {
    std::fs::create_dir_all(to).map_err(io_error(to))?;
    for file in &manifest.files {
        let (source, target) = (from.join(&file.name), to.join(&file.name));
        let done = if file.name.ends_with(".sst") {
            std::fs::hard_link(&source, &target)
        } else {
            std::fs::copy(&source, &target).map(drop)
        };
        done.map_err(io_error(&target))?;
    }
    Ok(())
}

fn check_position(
    tables: &Tables,
    manifest: &quorate::SnapshotManifest,
) -> Result<Position, SnapshotError> {
    let position = tables.position()?;
    let meta = snapshot_meta_from_manifest(manifest)
        .map_err(|_error| SnapshotError::Content { what: "members" })?;
    if position.applied != meta.last_log_id {
        return Err(SnapshotError::Content { what: "applied entries" });
    }
    if position.membership != meta.last_membership {
        return Err(SnapshotError::Content { what: "members" });
    }
    Ok(position)
}

/// By a scan of all of it, not by what the rows say of themselves.
fn check_content(
    tables: &Tables,
    manifest: &quorate::SnapshotManifest,
) -> Result<(), SnapshotError> {
    let content = digest::recompute(tables)?;
    if content.to_be_bytes()[..] != manifest.content_digest[..] {
        return Err(SnapshotError::Content { what: "rows" });
    }
    Ok(())
}
