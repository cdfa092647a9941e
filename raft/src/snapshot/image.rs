//! A complete snapshot on this node's disk, and the shelf that holds the newest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proto::quorate;

use crate::convert::{ConvertError, log_id_from_proto, snapshot_meta_from_manifest};
use crate::durable;
use crate::storage_metrics::StorageMetrics;
use crate::types::{LogId, SnapshotMeta};

use super::{SNAPSHOT_DIR, SnapshotError, TABLES_DIR, io_error, manifest};

/// A snapshot directory that nothing changes any more. Once replaced, it goes when the last one
/// who reads it is done.
pub struct Image {
    dir: PathBuf,
    manifest: quorate::SnapshotManifest,
    replaced: AtomicBool,
}

impl Image {
    pub(super) fn new(dir: PathBuf, manifest: quorate::SnapshotManifest) -> Image {
        Image { dir, manifest, replaced: AtomicBool::new(false) }
    }

    pub fn manifest(&self) -> &quorate::SnapshotManifest {
        &self.manifest
    }

    pub fn last_applied(&self) -> Option<LogId> {
        self.manifest.last_applied.as_ref().map(log_id_from_proto)
    }

    /// # Errors
    /// The membership in the manifest is not valid.
    pub fn meta(&self) -> Result<SnapshotMeta, ConvertError> {
        snapshot_meta_from_manifest(&self.manifest)
    }

    pub(super) fn tables_dir(&self) -> PathBuf {
        self.dir.join(TABLES_DIR)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.replaced.load(Ordering::Acquire)
            && let Err(error) = durable::remove_dir(&self.dir)
        {
            // Deleted at the next start.
            tracing::warn!(%error, path = %self.dir.display(), "an old snapshot stays");
        }
    }
}

/// Holds the newest snapshot of this node.
pub(crate) struct Shelf {
    dir: PathBuf,
    newest: Mutex<Option<Arc<Image>>>,
    metrics: Arc<StorageMetrics>,
}

impl Shelf {
    /// Takes up what an earlier run left; deletes what is unfinished, damaged or older. A snapshot
    /// is never the only copy of anything, so none of that is worth stopping for, nor is a
    /// directory that cannot be used: building one fails then, and is tried again.
    pub(crate) fn open(data_dir: &Path, metrics: Arc<StorageMetrics>) -> Shelf {
        let dir = data_dir.join(SNAPSHOT_DIR);
        let newest = take_up(&dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "snapshots of an earlier run are not used");
            None
        });
        let shelf = Shelf { dir, newest: Mutex::new(newest.map(Arc::new)), metrics };
        shelf.measure();
        shelf
    }

    pub(crate) fn newest(&self) -> Option<Arc<Image>> {
        self.newest.lock().clone()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Offers a snapshot that is complete and durable; unless a newer one is there.
    pub(crate) fn put(&self, image: Arc<Image>) {
        let mut newest = self.newest.lock();
        if newest.as_ref().is_some_and(|newest| newest.dir == image.dir) {
            return;
        }
        let newer = newest.as_ref().is_none_or(|n| image.last_applied() >= n.last_applied());
        let older = if newer { newest.replace(image) } else { Some(image) };
        drop(newest);
        if let Some(older) = older {
            older.replaced.store(true, Ordering::Release);
        }
        self.measure();
    }

    /// Drops a snapshot that is of no use to a follower.
    pub(crate) fn clear(&self) {
        if let Some(image) = self.newest.lock().take() {
            image.replaced.store(true, Ordering::Release);
        }
        self.measure();
    }

    fn measure(&self) {
        let newest = self.newest.lock();
        let size = newest.as_ref().map_or(0, |image| image.manifest.size_bytes);
        let index = newest.as_ref().and_then(|image| image.last_applied());
        self.metrics.snapshot_size_bytes.set(size);
        self.metrics.snapshot_index.set(index.map_or(0, |log_id| log_id.index));
    }
}

/// The newest complete snapshot in `dir`; all others go.
fn take_up(dir: &Path) -> Result<Option<Image>, SnapshotError> {
    std::fs::create_dir_all(dir).map_err(io_error(dir))?;
    let mut newest: Option<Image> = None;
    for entry in std::fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        let image = match complete(&path) {
            Ok(image) => image,
            Err(error) => {
                tracing::info!(%error, path = %path.display(), "deleting a snapshot");
                durable::remove_dir(&path).map_err(io_error(&path))?;
                continue;
            }
        };
        let newer = newest.as_ref().is_none_or(|n| image.last_applied() > n.last_applied());
        let older = if newer { newest.replace(image) } else { Some(image) };
        if let Some(older) = older {
            older.replaced.store(true, Ordering::Release);
        }
    }
    Ok(newest)
}

fn complete(dir: &Path) -> Result<Image, SnapshotError> {
    let manifest = manifest::read(dir)?;
    let named = dir.file_name().is_some_and(|name| name.to_string_lossy() == manifest.id);
    if !named {
        return Err(SnapshotError::Content { what: "name" });
    }
    for file in &manifest.files {
        let path = dir.join(TABLES_DIR).join(&file.name);
        let found = path.metadata().map_err(io_error(&path))?.len();
        if found != file.size_bytes {
            let (file, expected) = (file.name.clone(), file.size_bytes);
            return Err(SnapshotError::Size { file, found, expected });
        }
    }
    Ok(Image::new(dir.to_owned(), manifest))
}
