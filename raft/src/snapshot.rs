//! Snapshots: images of the tables in directories of their own, built, sent, received, installed.
//!
//! ```text
//! snap/<id>/MANIFEST, snap/<id>/db/…   the newest image, offered to peers
//! recv/<id>.part/…                     one that is arriving, kept so that it can go on
//! sm/gen-N/…                           one that is verified and loaded, current once it says so
//! ```
//!
//! Everything slow happens before openraft hears of it: an install replaces one small file and a
//! pointer.

mod attempts;
mod build;
mod image;
mod manifest;
mod receive;
mod send;
mod stage;
mod turn;

use std::io;
use std::path::{Path, PathBuf};

use statemachine::versions;

use crate::rocks::StateOpenError;

pub use attempts::BuildTrouble;
pub use build::Builder;
pub use image::Image;
pub(crate) use image::Shelf;
pub use manifest::ManifestError;
pub use receive::Receiving;
pub(crate) use receive::sweep_received;
pub use send::{Part, SnapshotSource};
pub use stage::Staged;

/// An installed snapshot, offered to peers from now on.
pub(crate) type Installed = std::sync::Arc<Image>;

/// What openraft passes around for us.
pub enum SnapshotData {
    /// One of ours, to be sent.
    Image(std::sync::Arc<Image>),
    /// One that arrived, ready to be installed.
    Staged(Box<Staged>),
    /// Stands for one that could not be built: it keeps the engine running and is never sent.
    Unbuilt,
}

/// Why a snapshot was not built, received or installed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("snapshot: {0}")]
    Rocks(#[from] rocksdb::Error),
    #[error(transparent)]
    Open(#[from] StateOpenError),
    #[error(transparent)]
    Generation(#[from] crate::generation::GenerationError),
    #[error("snapshot: {0}")]
    State(#[from] statemachine::Fault),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(
        "the snapshot was written by RocksDB {found} with layout {schema}, this node has {known} \
         with layout {}: upgrade this node",
        versions::STATE.newest
    )]
    Incompatible { found: String, schema: u32, known: &'static str },
    #[error("the snapshot needs {needed} bytes, {} has {free} free", path.display())]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    #[error("part at {found} of {file}, expected at {expected}")]
    Offset { file: String, found: u64, expected: u64 },
    #[error("part at {offset} of {file} has checksum {found:08x}, its bytes give {computed:08x}")]
    Checksum { file: String, offset: u64, found: u32, computed: u32 },
    #[error("{file} has {found} bytes, the manifest says {expected}")]
    Size { file: String, found: u64, expected: u64 },
    #[error("{file} differs from its digest in the manifest")]
    Digest { file: String },
    #[error("the snapshot's {what} differ from its manifest")]
    Content { what: &'static str },
    #[error("the manifest names no file {index}")]
    NoFile { index: u32 },
    #[error("another snapshot is arriving")]
    Superseded,
    #[error("a snapshot that arrived before is being verified and loaded: send again later")]
    Busy,
    #[error("the snapshot was not built, so there is nothing to install")]
    Unbuilt,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path, source }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> io::Error {
        io::Error::other(error)
    }
}

/// Called at each step of building, staging and installing, by name, before it is made: where
/// tests look at, or break, what a crash would leave.
#[derive(Clone)]
pub struct OnStep(std::sync::Arc<dyn Fn(&'static str) + Send + Sync>);

impl OnStep {
    pub fn nothing() -> OnStep {
        OnStep::call(|_| ())
    }

    pub fn call(hook: impl Fn(&'static str) + Send + Sync + 'static) -> OnStep {
        OnStep(std::sync::Arc::new(hook))
    }

    fn reached(&self, step: &'static str) {
        (self.0)(step);
    }
}

impl std::fmt::Debug for OnStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnStep")
    }
}

const SNAPSHOT_DIR: &str = "snap";
const RECEIVE_DIR: &str = "recv";
const TABLES_DIR: &str = "db";
const MANIFEST_FILE: &str = "MANIFEST.quorate";
/// Ends of names of directories that are not complete.
const STAGED_SUFFIX: &str = "staged";
const PART_SUFFIX: &str = "part";
