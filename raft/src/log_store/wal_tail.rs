//! Tells the end that a power cut tore from damage in the middle of RocksDB's write-ahead log.
//!
//! RocksDB takes a log that is cut short, and refuses one whose last record has a hole: pages
//! reach the disk in any order, so a cut can leave a record's last page without one before it.
//! Every batch of the log is synced before the next one is written, so at most one record can be
//! torn, and nothing can follow it. A valid start of a record behind the first bad one therefore
//! proves that synced bytes are damaged, and the log is refused. Without one, the bad record is
//! the one that was being written, which was never acknowledged: the file is cut in front of it.
//!
//! Rot in the very last synced record looks the same as a torn one. The mark that the state keeps
//! of the durable end of the log finds it, unless it is newer than the last flush of the state.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// RocksDB's format: fragments in blocks, none of which crosses the end of its block.
const BLOCK_BYTES: usize = 32 << 10;
/// Checksum, length, type; files that are used again have a log number behind it.
const HEADER_BYTES: usize = 7;
const RECYCLED_HEADER_BYTES: usize = 11;

/// What a log that RocksDB refused turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// No file has a bad fragment: whatever is wrong is elsewhere.
    Sound,
    /// The last record was torn; the file was cut in front of it.
    Cut { file: PathBuf, at: u64, cut_bytes: u64 },
    /// A valid record follows a bad one.
    Damaged { file: PathBuf, at: u64, next: PathBuf, next_at: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Full,
    First,
    Middle,
    Last,
    /// Facts about the file itself.
    Other,
}

impl Part {
    fn from_type(kind: u8) -> Option<(Part, usize)> {
        let part = match kind {
            1 | 5 => Part::Full,
            2 | 6 => Part::First,
            3 | 7 => Part::Middle,
            4 | 8 => Part::Last,
            9 | 10 | 11 | 130 | 131 => Part::Other,
            _ => return None,
        };
        let is_recycled = matches!(kind, 5..=8 | 11 | 131);
        Some((part, if is_recycled { RECYCLED_HEADER_BYTES } else { HEADER_BYTES }))
    }
}

/// The fragment at the start of `bytes`, which end with its block or with the file; its length
/// with its header.
fn fragment(bytes: &[u8]) -> Option<(Part, usize)> {
    let header = bytes.get(..HEADER_BYTES)?;
    let (part, header_bytes) = Part::from_type(header[6])?;
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let total = header_bytes + length;
    let masked = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    // The checksum begins with the type, so that it covers the log number of a recycled file.
    let covered = bytes.get(HEADER_BYTES - 1..total)?;
    (unmask(masked) == crc32c::crc32c(covered)).then_some((part, total))
}

/// RocksDB stores checksums in a form that is no checksum of what holds them.
fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_right(17)
}

/// Where the first record begins that is not whole and valid; `None` if all are. An end that is
/// just too short counts as well.
fn first_bad(bytes: &[u8]) -> Option<usize> {
    let mut record = None;
    let mut at = 0;
    while at < bytes.len() {
        let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
        if block_end - at < HEADER_BYTES {
            at = block_end;
            continue;
        }
        let begin = record.unwrap_or(at);
        let block = &bytes[at..block_end.min(bytes.len())];
        let Some((part, length)) = fragment(block) else {
            return Some(begin);
        };
        record = match (part, record) {
            (Part::Other, record) => record,
            (Part::Full, None) | (Part::Last, Some(_)) => None,
            (Part::First, None) => Some(at),
            (Part::Middle, Some(begin)) => Some(begin),
            (Part::Full | Part::First, Some(_)) | (Part::Middle | Part::Last, None) => {
                return Some(begin);
            }
        };
        at += length;
    }
    record
}

/// Where a record begins validly in `bytes` from `from` on. Behind a bad fragment of a block the
/// next one can be anywhere, so every place is tried.
fn next_start(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at + HEADER_BYTES <= bytes.len() {
        let block_end = ((at / BLOCK_BYTES + 1) * BLOCK_BYTES).min(bytes.len());
        match fragment(&bytes[at..block_end]) {
            Some((Part::Full | Part::First, _)) => return Some(at),
            Some((Part::Middle | Part::Last | Part::Other, length)) => at += length,
            None => at += 1,
        }
    }
    None
}

/// Looks at the write-ahead logs in `dir`, oldest first, and cuts a torn end off. Nothing may have
/// the log open.
pub(super) fn mend(dir: &Path) -> io::Result<Tail> {
    let files = files(dir)?;
    for (place, file) in files.iter().enumerate() {
        let bytes = std::fs::read(file)?;
        let Some(bad) = first_bad(&bytes) else {
            continue;
        };
        // What begins at the bad place itself does not count: its end is what is bad.
        let behind = next_start(&bytes, bad + 1).map(|next| (file.clone(), next));
        let behind = match behind {
            Some(behind) => Some(behind),
            None => first_record(&files[place + 1..])?,
        };
        let at = bad as u64;
        if let Some((next, next_at)) = behind {
            return Ok(Tail::Damaged { file: file.clone(), at, next, next_at: next_at as u64 });
        }
        cut(file, at)?;
        let cut_bytes = bytes.len() as u64 - at;
        return Ok(Tail::Cut { file: file.clone(), at, cut_bytes });
    }
    Ok(Tail::Sound)
}

/// The first valid record in any of the files.
fn first_record(files: &[PathBuf]) -> io::Result<Option<(PathBuf, usize)>> {
    for file in files {
        if let Some(at) = next_start(&std::fs::read(file)?, 0) {
            return Ok(Some((file.clone(), at)));
        }
    }
    Ok(None)
}

fn cut(file: &Path, at: u64) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(file)?;
    file.set_len(at)?;
    file.sync_all()
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| is_log) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(checksum: u32) -> u32 {
        checksum.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    /// Appends a record as RocksDB does.
    fn append(log: &mut Vec<u8>, record: &[u8]) {
        let mut rest = record;
        let mut is_first = true;
        loop {
            let left = BLOCK_BYTES - log.len() % BLOCK_BYTES;
            if left < HEADER_BYTES {
                log.resize(log.len() + left, 0);
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(left - HEADER_BYTES));
            let kind = match (is_first, later.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut covered = vec![kind];
            covered.extend_from_slice(now);
            log.extend_from_slice(&mask(crc32c::crc32c(&covered)).to_le_bytes());
            log.extend_from_slice(&u16::try_from(now.len()).unwrap().to_le_bytes());
            log.extend_from_slice(&covered);
            if later.is_empty() {
                return;
            }
            (rest, is_first) = (later, false);
        }
    }

    fn record(seed: usize, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * 31 + seed * 7).to_le_bytes()[0]).collect()
    }

    /// Records of these sizes; where each begins.
    fn log(sizes: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (seed, size) in sizes.iter().enumerate() {
            starts.push(bytes.len());
            append(&mut bytes, &record(seed, *size));
        }
        (bytes, starts)
    }

    #[test]
    fn whole_records_are_sound_wherever_the_blocks_end() {
        for first in (BLOCK_BYTES - 40)..(BLOCK_BYTES + 4) {
            let (bytes, _) = log(&[first, 10, 70_000, 1]);
            assert_eq!(first_bad(&bytes), None, "first record of {first} bytes");
        }
    }

    #[test]
    fn any_page_of_the_last_record_may_be_missing() {
        let (bytes, starts) = log(&[100, 40_000, 64 << 10]);
        let last = starts[2];
        for page in (last / 4096)..=(bytes.len() / 4096) {
            let mut torn = bytes.clone();
            let from = (page * 4096).max(last);
            let to = ((page + 1) * 4096).min(torn.len());
            torn[from..to].fill(0);
            if torn == bytes {
                continue;
            }
            assert_eq!(first_bad(&torn), Some(last), "page {page}");
            assert_eq!(next_start(&torn, last + 1), None, "page {page}");
        }
        for length in last + 1..bytes.len() {
            assert_eq!(first_bad(&bytes[..length]), Some(last), "cut to {length}");
        }
    }

    #[test]
    fn a_flipped_bit_in_an_earlier_record_is_no_torn_end() {
        let (bytes, starts) = log(&[100, 40_000, 300, 64 << 10]);
        for at in (0..starts[3]).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let Some(bad) = first_bad(&damaged) else {
                // The padding at the end of a block is not read.
                assert!(BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES, "at {at}");
                continue;
            };
            assert!(next_start(&damaged, bad + 1).is_some(), "at {at}");
        }
    }

    #[test]
    fn a_record_in_a_later_file_proves_damage_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (mut bytes, starts) = log(&[100, 5_000]);
        bytes[starts[1] + 2_000] ^= 1;
        let (first, second) = (dir.path().join("000007.log"), dir.path().join("000012.log"));
        std::fs::write(&first, &bytes).unwrap();
        std::fs::write(&second, log(&[50]).0).unwrap();
        let at = starts[1] as u64;
        let damaged = Tail::Damaged { file: first.clone(), at, next: second.clone(), next_at: 0 };
        assert_eq!(mend(dir.path()).unwrap(), damaged);

        std::fs::write(&second, []).unwrap();
        let cut_bytes = bytes.len() as u64 - at;
        assert_eq!(mend(dir.path()).unwrap(), Tail::Cut { file: first, at, cut_bytes });
        assert_eq!(mend(dir.path()).unwrap(), Tail::Sound);
    }
}
