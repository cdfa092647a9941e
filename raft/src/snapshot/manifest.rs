//! What a snapshot holds, and how its reader knows that it got just that.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use parking_lot::Mutex;
use prost::Message;
use proto::quorate;
use statemachine::versions::SNAPSHOT;

use crate::durable;

use super::{MANIFEST_FILE, SnapshotError, io_error};

const READ_STEP_BYTES: usize = 1 << 20;
const CHECKSUM_BYTES: usize = 4;

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the snapshot's manifest is damaged: {0}")]
    Damaged(String),
    #[error("the snapshot's manifest has format {found}, this binary reads {SNAPSHOT}: upgrade it")]
    Format { found: u32 },
    #[error("the snapshot's manifest names a file {0:?}, which is no plain name")]
    Name(String),
}

/// Writes the manifest beside the files, durably.
pub(super) fn write(dir: &Path, manifest: &quorate::SnapshotManifest) -> Result<(), SnapshotError> {
    let path = dir.join(MANIFEST_FILE);
    let mut bytes = manifest.encode_to_vec();
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    durable::replace_file(&path, &bytes).map_err(io_error(&path))
}

pub(super) fn read(dir: &Path) -> Result<quorate::SnapshotManifest, SnapshotError> {
    let path = dir.join(MANIFEST_FILE);
    let bytes = std::fs::read(&path).map_err(io_error(&path))?;
    let damaged = |reason: &str| ManifestError::Damaged(format!("{}: {reason}", path.display()));
    let (message, checksum) =
        bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("it is too short"))?;
    if crc32c::crc32c(message) != u32::from_le_bytes(*checksum) {
        return Err(damaged("its checksum does not match").into());
    }
    let manifest =
        quorate::SnapshotManifest::decode(message).map_err(|error| damaged(&error.to_string()))?;
    check(&manifest)?;
    Ok(manifest)
}

/// Whether the manifest may be acted upon: file names in it must stay in their directory.
pub(super) fn check(manifest: &quorate::SnapshotManifest) -> Result<(), ManifestError> {
    if !SNAPSHOT.contains(manifest.format) {
        return Err(ManifestError::Format { found: manifest.format });
    }
    let names = manifest.files.iter().map(|file| &file.name).chain([&manifest.id]);
    for name in names {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(ManifestError::Name(name.clone()));
        }
    }
    Ok(())
}

/// Digest of a file, read in steps.
pub(super) fn digest(path: &Path) -> Result<[u8; 32], SnapshotError> {
    let mut hasher = blake3::Hasher::new();
    let mut read = || -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut step = vec![0; READ_STEP_BYTES];
        loop {
            match file.read(&mut step)? {
                0 => return Ok(()),
                n => hasher.update(&step[..n]),
            };
        }
    };
    read().map_err(io_error(path))?;
    Ok(*hasher.finalize().as_bytes())
}

#[derive(Clone, Copy)]
struct Known {
    size_bytes: u64,
    digest: [u8; 32],
}

/// Digests of table files, which never change: one snapshot after the next shares most of them.
#[derive(Default)]
pub(super) struct DigestCache {
    /// By generation and name.
    known: Mutex<BTreeMap<(u64, String), Known>>,
}

impl DigestCache {
    /// The files of an image of a generation, by name.
    pub(super) fn files(
        &self,
        generation: u64,
        dir: &Path,
    ) -> Result<Vec<quorate::SnapshotFile>, SnapshotError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io_error(dir))? {
            let entry = entry.map_err(io_error(dir))?;
            let size_bytes = entry.metadata().map_err(io_error(&entry.path()))?.len();
            names.push((entry.file_name().to_string_lossy().into_owned(), size_bytes));
        }
        names.sort();
        let mut known = BTreeMap::new();
        let mut files = Vec::with_capacity(names.len());
        for (name, size_bytes) in names {
            let key = (generation, name.clone());
            let cached = self.known.lock().get(&key).copied();
            let digest = match cached.filter(|cached| cached.size_bytes == size_bytes) {
                Some(cached) => cached.digest,
                None => digest(&dir.join(&name))?,
            };
            if name.ends_with(".sst") {
                known.insert(key, Known { size_bytes, digest });
            }
            let blake3 = digest.to_vec().into();
            files.push(quorate::SnapshotFile { name, size_bytes, blake3 });
        }
        *self.known.lock() = known;
        Ok(files)
    }
}
