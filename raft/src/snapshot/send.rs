//! Reads a snapshot for a peer, part by part.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proto::quorate;

use crate::apply::Core;

use super::Image;

/// One part is at most this long.
const PART_BYTES_MAX: usize = 512 << 10;

/// A piece of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Place of the file in the manifest.
    pub file: u32,
    pub offset: u64,
    pub data: Bytes,
    pub crc32c: u32,
}

/// The files of a snapshot, in order. As long as it lives the snapshot stays, and the log is not
/// purged beyond it.
pub struct SnapshotSource {
    image: Arc<Image>,
    /// What the receiver has of each file.
    done: Vec<u64>,
    at: usize,
    open: Option<File>,
    _pin: Pin,
}

struct Pin {
    core: Arc<Core>,
    index: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.core.retention.unpin(self.index);
    }
}

impl SnapshotSource {
    pub(crate) fn new(core: Arc<Core>, image: Arc<Image>) -> SnapshotSource {
        let index = image.last_applied().map_or(0, |log_id| log_id.index);
        core.retention.pin(index);
        let done = vec![0; image.manifest().files.len()];
        SnapshotSource { image, done, at: 0, open: None, _pin: Pin { core, index } }
    }

    pub fn manifest(&self) -> &quorate::SnapshotManifest {
        self.image.manifest()
    }

    /// What the receiver has already, in bytes of each file: goes on from there.
    pub fn resume(&mut self, have: &[u64]) {
        for (at, file) in self.image.manifest().files.iter().enumerate() {
            self.done[at] = have.get(at).copied().unwrap_or(0).min(file.size_bytes);
        }
        self.at = 0;
        self.open = None;
    }

    /// Bytes that are still to be sent.
    pub fn remaining_bytes(&self) -> u64 {
        let files = self.image.manifest().files.iter().zip(&self.done);
        files.map(|(file, done)| file.size_bytes - done).sum()
    }

    /// The next part; `None` after the last. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be read or is shorter than the manifest says.
    pub fn next_part(&mut self) -> io::Result<Option<Part>> {
        let files = &self.image.manifest().files;
        while self.at < files.len() && self.done[self.at] >= files[self.at].size_bytes {
            self.at += 1;
            self.open = None;
        }
        let Some(file) = files.get(self.at) else {
            return Ok(None);
        };
        let offset = self.done[self.at];
        let left = usize::try_from(file.size_bytes - offset).unwrap_or(usize::MAX);
        let mut data = vec![0; left.min(PART_BYTES_MAX)];
        self.open_at(offset)?.read_exact(&mut data)?;
        self.done[self.at] += data.len() as u64;
        let crc32c = crc32c::crc32c(&data);
        let index = u32::try_from(self.at).map_err(io::Error::other)?;
        Ok(Some(Part { file: index, offset, data: data.into(), crc32c }))
    }

    fn path(&self) -> PathBuf {
        self.image.tables_dir().join(&self.image.manifest().files[self.at].name)
    }

    fn open_at(&mut self, offset: u64) -> io::Result<&mut File> {
        if self.open.is_none() {
            let mut file = File::open(self.path())?;
            file.seek(SeekFrom::Start(offset))?;
            self.open = Some(file);
        }
        Ok(self.open.as_mut().expect("opened above"))
    }
}
