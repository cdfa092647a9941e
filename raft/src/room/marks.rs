//! The end of a node that met the end of its disk, and when the next start may open the stores.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{BALLAST_DIR, free_bytes};

/// Left by a node whose disk had no room for a write: one line for each time.
const FULL_FILE: &str = "FULL";
/// What opening needs beside a copy of the log that it replays.
const START_BYTES_MIN: u64 = 32 << 20;
const LOG_DIR: &str = crate::storage::LOG_DIR;

/// Whether a message of RocksDB or of the system says that the disk is full. RocksDB passes the
/// system's words on and no other sign of it.
pub(crate) fn is_no_space(message: &str) -> bool {
    message.contains("No space left on device")
        || message.contains("Disk quota exceeded")
        || message.contains("Out of space")
        || message.contains("Max allowed space was reached")
}

/// Notes that this node ends because its disk is full; gives the whole ballast up, so that the note
/// and the next start have room.
pub(crate) fn note_full(data_dir: &Path, message: &str) -> io::Result<()> {
    let ballast = data_dir.join(BALLAST_DIR);
    if ballast.exists()
        && let Err(error) = std::fs::remove_dir_all(&ballast)
    {
        tracing::warn!(%error, "the ballast cannot be given up");
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut file = OpenOptions::new().create(true).append(true).open(data_dir.join(FULL_FILE))?;
    writeln!(file, "{seconds} {message}")?;
    file.sync_all()
}

/// What a start finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartRoom {
    Enough,
    /// Opening the stores would meet the end of the disk, perhaps half-way.
    Wait {
        free_bytes: u64,
        needed_bytes: u64,
        reason: String,
    },
}

/// Whether the stores in `data_dir` may be opened now. A node that met the end of its disk waits
/// for more room with each time that it happened, up to `low_bytes`.
pub fn start_room(data_dir: &Path, low_bytes: u64) -> StartRoom {
    let text = std::fs::read_to_string(data_dir.join(FULL_FILE)).unwrap_or_default();
    let n_full = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
    let Some(free_bytes) = free_bytes(data_dir) else {
        return StartRoom::Enough;
    };
    let least = START_BYTES_MIN + replayed_bytes(&data_dir.join(LOG_DIR));
    let needed_bytes = match n_full {
        // Nothing has failed: what has to be there for sure.
        0 => START_BYTES_MIN / 4,
        n => least.saturating_mul(1 << (n - 1).min(8)).min(low_bytes.max(least)),
    };
    if free_bytes >= needed_bytes {
        return StartRoom::Enough;
    }
    let reason = text.lines().last().unwrap_or("the disk is full").to_owned();
    StartRoom::Wait { free_bytes, needed_bytes, reason }
}

/// There is room again: the next end counts as the first.
pub(crate) fn forget_full(data_dir: &Path) {
    let path = data_dir.join(FULL_FILE);
    if path.exists()
        && let Err(error) = std::fs::remove_file(&path)
    {
        tracing::warn!(%error, path = %path.display(), "the note of a full disk stays");
    }
}

/// Bytes of write-ahead log, which a start writes once more as tables.
fn replayed_bytes(log_dir: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(log_dir) else {
        return 0;
    };
    let is_wal = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".log");
    files
        .flatten()
        .filter(|file| is_wal(&file.file_name()))
        .filter_map(|file| file.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_after_a_full_disk_waits_for_more_room_each_time() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(start_room(dir.path(), u64::MAX), StartRoom::Enough);
        for _ in 0..12 {
            note_full(dir.path(), "log: No space left on device").unwrap();
        }
        assert_eq!(start_room(dir.path(), 64 << 20), StartRoom::Enough, "never above the low mark");
        let text = std::fs::read_to_string(dir.path().join(FULL_FILE)).unwrap();
        assert_eq!(text.lines().count(), 12);
        assert!(is_no_space(&text));
        forget_full(dir.path());
        assert!(!dir.path().join(FULL_FILE).exists());
    }
}
