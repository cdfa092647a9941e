//! Space that is held so that it can be given back: files that are allocated, not sparse.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// In the data directory.
pub(super) const BALLAST_DIR: &str = "ballast";

/// Equal pieces, given up one by one.
const PIECES: usize = 4;
/// Zeros written at once where the file system cannot allocate.
const ZEROS_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Ballast {
    dir: PathBuf,
    piece_bytes: u64,
    /// Which pieces are there.
    held: [bool; PIECES],
}

impl Ballast {
    /// Takes up what an earlier run left; does not allocate.
    pub(super) fn open(data_dir: &Path, size_bytes: u64) -> Ballast {
        let dir = data_dir.join(BALLAST_DIR);
        let piece_bytes = size_bytes / PIECES as u64;
        let mut ballast = Ballast { dir, piece_bytes, held: [false; PIECES] };
        if piece_bytes == 0 {
            // Switched off: what an earlier run held is free again.
            drop(std::fs::remove_dir_all(&ballast.dir));
            return ballast;
        }
        for piece in 0..PIECES {
            let path = ballast.path(piece);
            let size = path.metadata().map_or(0, |meta| meta.len());
            ballast.held[piece] = size == piece_bytes;
            if size != piece_bytes {
                drop(std::fs::remove_file(path));
            }
        }
        ballast
    }

    fn path(&self, piece: usize) -> PathBuf {
        self.dir.join(piece.to_string())
    }

    fn n_held(&self) -> u64 {
        self.held.iter().filter(|held| **held).count() as u64
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.n_held() * self.piece_bytes
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        (PIECES as u64 - self.n_held()) * self.piece_bytes
    }

    pub(super) fn is_at_last_piece(&self) -> bool {
        self.n_held() <= 1
    }

    /// Gives the space of one piece back; whether there was one.
    pub(super) fn give_up(&mut self) -> bool {
        let Some(piece) = self.held.iter().rposition(|held| *held) else {
            return false;
        };
        self.held[piece] = false;
        let left_bytes = self.size_bytes();
        match std::fs::remove_file(self.path(piece)) {
            Ok(()) => tracing::warn!(left_bytes, "a piece of the ballast is given up"),
            Err(error) => tracing::warn!(%error, "a piece of the ballast cannot be given up"),
        }
        true
    }

    /// Allocates what is missing, as far as that goes.
    pub(super) fn fill(&mut self) {
        if self.piece_bytes == 0 {
            return;
        }
        for piece in 0..PIECES {
            if self.held[piece] {
                continue;
            }
            let path = self.path(piece);
            if let Err(error) = allocate(&self.dir, &path, self.piece_bytes) {
                drop(std::fs::remove_file(path));
                tracing::warn!(%error, "the ballast cannot be allocated");
                return;
            }
            self.held[piece] = true;
        }
    }
}

fn allocate(dir: &Path, path: &Path, size_bytes: u64) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let length = i64::try_from(size_bytes).map_err(io::Error::other)?;
    let flags = nix::fcntl::FallocateFlags::empty();
    match nix::fcntl::fallocate(&file, flags, 0, length) {
        Ok(()) => {}
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => {
            write_zeros(&mut file, size_bytes)?;
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

fn write_zeros(file: &mut File, size_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut left = size_bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS_BYTES);
        file.write_all(&zeros[..now])?;
        left -= now as u64;
    }
    Ok(())
}
