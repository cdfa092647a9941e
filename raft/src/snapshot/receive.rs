//! Takes a snapshot from a peer, part by part, so that a broken transfer can go on.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::quorate;

use statemachine::versions::{SNAPSHOT_ROCKSDB, STATE};

use crate::durable;

use super::build::{Builder, Shared, free_bytes};
use super::manifest;
use super::send::Part;
use super::{PART_SUFFIX, RECEIVE_DIR, SnapshotData, SnapshotError, Staged, TABLES_DIR, io_error};

/// Room beside the snapshot itself: its tables are compacted and written to from then on.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// What is written goes to the disk in steps of this size: all of it at the end would keep the log
/// waiting for the disk.
const SYNC_STEP_BYTES: u64 = 4 << 20;

/// A snapshot that is arriving. All calls block on the disk.
pub struct Receiving {
    shared: Arc<Shared>,
    number: u64,
    dir: PathBuf,
    manifest: quorate::SnapshotManifest,
    /// Bytes that each file has.
    have: Vec<u64>,
    open: Option<(usize, File)>,
    unsynced_bytes: u64,
}

impl Receiving {
    /// Begins, or goes on with, the transfer of a snapshot, and supersedes any other.
    ///
    /// # Errors
    /// The manifest is not usable by this binary, there is no room, or one that arrived before is
    /// still being verified or installed.
    pub fn begin(
        builder: &Builder,
        manifest: quorate::SnapshotManifest,
    ) -> Result<Receiving, SnapshotError> {
        manifest::check(&manifest)?;
        if !STATE.contains(manifest.schema) || manifest.rocksdb != SNAPSHOT_ROCKSDB {
            let (found, schema) = (manifest.rocksdb, manifest.schema);
            return Err(SnapshotError::Incompatible { found, schema, known: SNAPSHOT_ROCKSDB });
        }
        let shared = builder.shared.clone();
        let turns = Arc::clone(&shared.turns);
        turns.begin(|number| Receiving::open(shared, number, manifest))
    }

    fn open(
        shared: Arc<Shared>,
        number: u64,
        manifest: quorate::SnapshotManifest,
    ) -> Result<Receiving, SnapshotError> {
        let receive_dir = shared.data_dir.join(RECEIVE_DIR);
        let dir = receive_dir.join(format!("{}.{PART_SUFFIX}", manifest.id));
        std::fs::create_dir_all(&receive_dir).map_err(io_error(&receive_dir))?;
        sweep_parts(&receive_dir, Some(&dir))?;
        let tables_dir = dir.join(TABLES_DIR);
        if !matches!(manifest::read(&dir), Ok(known) if known == manifest) {
            durable::remove_dir(&dir).map_err(io_error(&dir))?;
            std::fs::create_dir_all(&tables_dir).map_err(io_error(&tables_dir))?;
            manifest::write(&dir, &manifest)?;
        }
        // Gone where an earlier, complete transfer was broken off while it was being loaded.
        std::fs::create_dir_all(&tables_dir).map_err(io_error(&tables_dir))?;
        let have = sizes(&tables_dir, &manifest);
        let receiving =
            Receiving { shared, number, dir, manifest, have, open: None, unsynced_bytes: 0 };
        receiving.check_room()?;
        Ok(receiving)
    }

    fn check_room(&self) -> Result<(), SnapshotError> {
        // A node that would be below its low mark with it could not use it.
        let spare = FREE_BYTES_MIN.max(self.shared.core.room.view().low_bytes);
        let needed = self.manifest.size_bytes - self.have.iter().sum::<u64>() + spare;
        match free_bytes(&self.dir) {
            Some(free) if free < needed => {
                Err(SnapshotError::NoRoom { path: self.dir.clone(), needed, free })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Bytes that are there already, of each file.
    pub fn have(&self) -> &[u64] {
        &self.have
    }

    /// # Errors
    /// The part is damaged or not the next one of its file, the disk fails, or another transfer
    /// has begun.
    pub fn write(&mut self, part: &Part) -> Result<(), SnapshotError> {
        let turns = Arc::clone(&self.shared.turns);
        let _mine = turns.write(self.number)?;
        let at = part.file as usize;
        let Some(file) = self.manifest.files.get(at) else {
            return Err(SnapshotError::NoFile { index: part.file });
        };
        let name = || file.name.clone();
        if part.offset != self.have[at] {
            let (found, expected) = (part.offset, self.have[at]);
            return Err(SnapshotError::Offset { file: name(), found, expected });
        }
        let end = part.offset.saturating_add(part.data.len() as u64);
        if end > file.size_bytes {
            let expected = file.size_bytes;
            return Err(SnapshotError::Size { file: name(), found: end, expected });
        }
        let computed = crc32c::crc32c(&part.data);
        if computed != part.crc32c {
            let (offset, found) = (part.offset, part.crc32c);
            return Err(SnapshotError::Checksum { file: name(), offset, found, computed });
        }
        let path = self.dir.join(TABLES_DIR).join(&file.name);
        self.unsynced_bytes += part.data.len() as u64;
        let sync = self.unsynced_bytes >= SYNC_STEP_BYTES;
        self.open_at(at, &path, part.offset)
            .and_then(|file| {
                file.write_all(&part.data)?;
                if sync { file.sync_data() } else { Ok(()) }
            })
            .map_err(io_error(&path))?;
        if sync {
            self.unsynced_bytes = 0;
        }
        self.have[at] = end;
        self.shared.core.metrics.snapshot_received_bytes.add(part.data.len() as u64);
        Ok(())
    }

    fn open_at(&mut self, at: usize, path: &Path, offset: u64) -> std::io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != at) {
            let mut file =
                OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            self.open = Some((at, file));
        }
        Ok(&mut self.open.as_mut().expect("opened above").1)
    }

    /// Verifies everything and loads it: minutes of a large snapshot. What it gives is ready for
    /// `install_full_snapshot`.
    ///
    /// # Errors
    /// Something is missing, damaged, or differs from the manifest; what arrived is deleted then.
    /// Or another transfer has begun.
    pub fn finish(mut self) -> Result<SnapshotData, SnapshotError> {
        let turn = self.shared.turns.finish(self.number)?;
        self.open = None;
        let staged = self.verify().and_then(|()| {
            let tables_dir = self.dir.join(TABLES_DIR);
            Staged::from_files(&self.shared, &tables_dir, &self.manifest, Some(turn))
        });
        // Its files are the generation's now, or useless.
        durable::remove_dir(&self.dir).map_err(io_error(&self.dir))?;
        Ok(SnapshotData::Staged(Box::new(staged?)))
    }

    fn verify(&self) -> Result<(), SnapshotError> {
        let started = std::time::Instant::now();
        for (at, file) in self.manifest.files.iter().enumerate() {
            let (name, expected) = (file.name.clone(), file.size_bytes);
            let path = self.dir.join(TABLES_DIR).join(&name);
            if self.have[at] != expected {
                return Err(SnapshotError::Size { file: name, found: self.have[at], expected });
            }
            if expected == 0 {
                File::create(&path).map_err(io_error(&path))?;
            }
            if manifest::digest(&path)?[..] != file.blake3[..] {
                return Err(SnapshotError::Digest { file: name });
            }
        }
        self.shared.core.metrics.snapshot_verify.record(started.elapsed());
        Ok(())
    }
}

fn sizes(tables_dir: &Path, manifest: &quorate::SnapshotManifest) -> Vec<u64> {
    let size = |file: &quorate::SnapshotFile| {
        let found = tables_dir.join(&file.name).metadata().map_or(0, |meta| meta.len());
        // Longer than it can be: begin it again.
        if found > file.size_bytes { 0 } else { found }
    };
    manifest.files.iter().map(size).collect()
}

/// Deletes what cannot be gone on with after a start: everything but transfers.
pub(crate) fn sweep_received(data_dir: &Path) -> Result<(), SnapshotError> {
    let dir = data_dir.join(RECEIVE_DIR);
    std::fs::create_dir_all(&dir).map_err(io_error(&dir))?;
    for entry in std::fs::read_dir(&dir).map_err(io_error(&dir))? {
        let path = entry.map_err(io_error(&dir))?.path();
        if path.extension().is_none_or(|extension| extension != PART_SUFFIX) {
            durable::remove_dir(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}

/// Deletes what other transfers left, but `keep`.
fn sweep_parts(dir: &Path, keep: Option<&Path>) -> Result<(), SnapshotError> {
    for entry in std::fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        if Some(path.as_path()) != keep {
            durable::remove_dir(&path).map_err(io_error(&path))?;
        }
    }
    Ok(())
}
