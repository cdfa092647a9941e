//! Free space of the disk that holds the data directory, and what the node may write with it.
//!
//! A disk that fills up is a state, not a death. Below the low mark a node takes no entries and
//! does not campaign, so that nothing of it grows any more; what frees space still passes, and
//! uses up the ballast: space that was allocated beforehand and is given back in pieces. The last
//! piece is for votes and marks only.

mod ballast;
mod marks;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use proto::quorate;
use tokio::sync::watch::Sender;
use tonic::Status;

pub use marks::{StartRoom, start_room};
pub(crate) use marks::{is_no_space, note_full};
pub(crate) use watch::{rooms, watch};

use ballast::{BALLAST_DIR, Ballast};

/// A write of the log finds at least this much beside its own size, or a piece of the ballast goes.
const WRITE_BYTES_MIN: u64 = 2 << 20;
/// A flush of the state finds at least this much beside what it writes.
const FLUSH_BYTES_MIN: u64 = 8 << 20;
/// A vote is a few bytes, in a file whose blocks may have to be allocated.
const VOTE_BYTES_MIN: u64 = 1 << 20;

/// Where the marks are. Zero switches one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomPolicy {
    /// With less free space than this the node takes nothing that grows.
    pub low_bytes: u64,
    /// Allocated beforehand for what frees space, and for votes.
    pub ballast_bytes: u64,
}

impl RoomPolicy {
    /// No marks and no ballast: for tests, and for stores that nobody serves.
    pub const OFF: RoomPolicy = RoomPolicy { low_bytes: 0, ballast_bytes: 0 };
}

impl Default for RoomPolicy {
    fn default() -> RoomPolicy {
        RoomPolicy { low_bytes: 512 << 20, ballast_bytes: 64 << 20 }
    }
}

/// What a node may still write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoomLevel {
    /// Only votes and marks.
    Last,
    /// What frees space.
    Low,
    /// Everything.
    Plenty,
}

/// Free space as one node sees it. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomView {
    pub level: RoomLevel,
    pub free_bytes: u64,
    pub low_bytes: u64,
    /// What is left of the ballast.
    pub ballast_bytes: u64,
}

/// The room of one data directory, measured again and again.
#[derive(Debug)]
pub struct Room {
    data_dir: PathBuf,
    policy: RoomPolicy,
    free_bytes: AtomicU64,
    ballast: Mutex<Ballast>,
    level: Sender<RoomLevel>,
    /// This leader sends only what frees space: fewer than a majority are above their low marks.
    is_tight: AtomicBool,
}

impl Room {
    /// Measures, and allocates what is missing of the ballast where there is room for it.
    pub fn open(data_dir: &Path, policy: RoomPolicy) -> Arc<Room> {
        let ballast = Ballast::open(data_dir, policy.ballast_bytes);
        let room = Room {
            data_dir: data_dir.to_owned(),
            policy,
            free_bytes: AtomicU64::new(0),
            ballast: Mutex::new(ballast),
            level: Sender::new(RoomLevel::Plenty),
            is_tight: AtomicBool::new(false),
        };
        room.measure();
        Arc::new(room)
    }

    pub fn view(&self) -> RoomView {
        RoomView {
            // No borrow of the level may live while the ballast is waited for: see `measure`.
            level: self.level(),
            free_bytes: self.free_bytes.load(Ordering::Relaxed),
            low_bytes: self.policy.low_bytes,
            ballast_bytes: self.ballast.lock().size_bytes(),
        }
    }

    pub fn level(&self) -> RoomLevel {
        *self.level.borrow()
    }

    /// On the leader: whether entries go out as such that free space.
    pub(crate) fn is_tight(&self) -> bool {
        self.is_tight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tight(&self, is_tight: bool) {
        if self.is_tight.swap(is_tight, Ordering::Relaxed) != is_tight {
            tracing::warn!(is_tight, "whether fewer than a majority have room on their disks");
        }
    }

    /// Whether an entry may be appended here. What frees space passes as long as there is ballast
    /// besides the last piece.
    pub(crate) fn takes(&self, frees_room: FreesRoom) -> bool {
        match (self.level(), frees_room) {
            (RoomLevel::Plenty, _) | (RoomLevel::Low, FreesRoom::Yes) => true,
            (RoomLevel::Low, FreesRoom::No) | (RoomLevel::Last, _) => false,
        }
    }

    /// Entries for which there is no room are refused before the engine takes them; heartbeats pass.
    ///
    /// # Errors
    /// There is no room for them.
    pub(crate) fn check(&self, request: &quorate::AppendRequest) -> Result<(), Status> {
        if request.entries.is_empty() || self.takes(FreesRoom::from(request.frees_room)) {
            return Ok(());
        }
        let RoomView { free_bytes, low_bytes, .. } = self.view();
        Err(Status::unavailable(format!(
            "no room on the disk: {free_bytes} bytes free, the low mark is {low_bytes}"
        )))
    }

    /// Looks at the disk. Called often: a foreign file can take all of it within moments.
    pub(crate) fn measure(&self) {
        let Some(free) = free_bytes(&self.data_dir) else {
            return;
        };
        self.free_bytes.store(free, Ordering::Relaxed);
        let mut ballast = self.ballast.lock();
        let missing = ballast.missing_bytes();
        let now = self.level();
        // Coming back needs a little more than staying, and room for the whole ballast.
        let low = self.policy.low_bytes;
        let needed = if now == RoomLevel::Plenty { low } else { low + low / 8 };
        if free >= needed.saturating_add(missing) {
            if missing > 0 {
                ballast.fill();
                self.free_bytes.store(free.saturating_sub(missing), Ordering::Relaxed);
            }
            self.set_level(RoomLevel::Plenty);
        } else if free >= needed && now == RoomLevel::Plenty {
            self.set_level(RoomLevel::Plenty);
        } else if ballast.is_at_last_piece() && free < WRITE_BYTES_MIN {
            self.set_level(RoomLevel::Last);
        } else {
            self.set_level(RoomLevel::Low);
        }
    }

    fn set_level(&self, level: RoomLevel) {
        self.level.send_if_modified(|now| {
            let before = std::mem::replace(now, level);
            if before != level {
                let free_bytes = self.free_bytes.load(Ordering::Relaxed);
                tracing::warn!(?before, ?level, free_bytes, "room on the disk");
            }
            before != level
        });
    }

    /// There is room again: the next end of this node counts as the first.
    pub(crate) fn forget_full(&self) {
        marks::forget_full(&self.data_dir);
    }

    /// The log is about to write so much: gives ballast up rather than meet the end of the disk.
    pub(crate) fn before_write(&self, size_bytes: u64) {
        self.make(size_bytes.saturating_mul(2).saturating_add(WRITE_BYTES_MIN), Give::AllButLast);
    }

    /// The log is about to write a vote or a mark, which must not fail as long as anything is left.
    pub(crate) fn before_vote(&self) {
        self.make(VOTE_BYTES_MIN, Give::All);
    }

    /// Whether a flush of so much may begin.
    pub(crate) fn allows_flush(&self, size_bytes: u64) -> bool {
        self.make(size_bytes.saturating_add(FLUSH_BYTES_MIN), Give::AllButLast)
    }

    /// Gives ballast up until there is room for so much; whether there is.
    fn make(&self, needed: u64, give: Give) -> bool {
        if self.policy.ballast_bytes == 0 {
            return true;
        }
        loop {
            match free_bytes(&self.data_dir) {
                Some(free) if free < needed => {}
                Some(_) | None => return true,
            }
            let mut ballast = self.ballast.lock();
            let given = match give {
                Give::All => ballast.give_up(),
                Give::AllButLast if ballast.is_at_last_piece() => false,
                Give::AllButLast => ballast.give_up(),
            };
            drop(ballast);
            if !given {
                return false;
            }
        }
    }
}

/// Whether an entry is one of those that a full cluster still takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreesRoom {
    Yes,
    No,
}

impl From<bool> for FreesRoom {
    fn from(frees: bool) -> FreesRoom {
        if frees { FreesRoom::Yes } else { FreesRoom::No }
    }
}

enum Give {
    AllButLast,
    All,
}

/// Free space of the disk that holds `path`; `None` where the system does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looks_and_whoever_measures_do_not_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::open(dir.path(), RoomPolicy { low_bytes: 1, ballast_bytes: 0 });
        let (done, ended) = std::sync::mpsc::channel();
        let view = |room: &Room| {
            let _seen = room.view();
        };
        let looks: [fn(&Room); 3] = [Room::measure, view, view];
        for look in looks {
            let (room, done) = (Arc::clone(&room), done.clone());
            std::thread::spawn(move || {
                (0..200_000).for_each(|_| look(&room));
                done.send(()).unwrap();
            });
        }
        for _ in looks {
            ended.recv_timeout(std::time::Duration::from_secs(60)).expect("they block each other");
        }
    }

    #[test]
    fn a_ballast_is_allocated_given_up_in_pieces_and_allocated_again() {
        let dir = tempfile::tempdir().unwrap();
        let policy = RoomPolicy { low_bytes: 1, ballast_bytes: 4 << 20 };
        let room = Room::open(dir.path(), policy);
        assert_eq!(room.view().level, RoomLevel::Plenty);
        assert_eq!(room.view().ballast_bytes, 4 << 20);
        let allocated = |dir: &Path| -> u64 {
            use std::os::unix::fs::MetadataExt;
            let files = std::fs::read_dir(dir.join(BALLAST_DIR)).unwrap();
            files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
        };
        assert!(allocated(dir.path()) >= 4 << 20, "the ballast is sparse");

        // No disk has so much: everything goes but the last piece, and that only for a vote.
        assert!(!room.make(u64::MAX, Give::AllButLast));
        assert_eq!(room.view().ballast_bytes, 1 << 20);
        assert!(!room.make(u64::MAX, Give::All));
        assert_eq!(room.view().ballast_bytes, 0);
        room.measure();
        assert_eq!(room.view().ballast_bytes, 4 << 20);
    }

    #[test]
    fn below_the_low_mark_only_what_frees_space_passes() {
        let dir = tempfile::tempdir().unwrap();
        let policy = RoomPolicy { low_bytes: u64::MAX / 4, ballast_bytes: 4 << 20 };
        let room = Room::open(dir.path(), policy);
        assert_eq!(room.level(), RoomLevel::Low);
        assert!(!room.takes(FreesRoom::No));
        assert!(room.takes(FreesRoom::Yes));
        let room = Room::open(dir.path(), RoomPolicy::OFF);
        assert!(room.takes(FreesRoom::No));
    }
}
