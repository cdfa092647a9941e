//! The disks of one cluster behind one lock, so that all of them can stop in one instant.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::content::PAGE_BYTES;
use super::cut::Dropped;
use super::fault::{Call, Faults};
use super::tree::{Body, Ino, Meta, Refusal, Tree};

/// All disks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shelf {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disks: Mutex<Vec<Disk>>,
    changed: Condvar,
}

/// One disk.
#[derive(Debug)]
pub struct Disk {
    pub tree: Tree,
    faults: Faults,
    /// Calls wait.
    is_frozen: bool,
    /// How often the power was cut. A call of an earlier time fails and has no effect.
    epoch: u64,
}

/// A disk may be used as it is now.
pub type Access<'a> = parking_lot::MappedMutexGuard<'a, Disk>;

/// Why a call ends without an effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// EIO: asked for, or the power was cut.
    Io,
    Refused(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl Shelf {
    /// Empty disks.
    #[must_use]
    pub fn new(n_disks: usize, n_bytes: u64) -> Shelf {
        let now = SystemTime::now();
        let meta = Meta { mode: 0o755, uid: 0, gid: 0, modified: now, changed: now };
        let disk = Disk {
            tree: Tree::new(pages(n_bytes), meta),
            faults: Faults::default(),
            is_frozen: false,
            epoch: 0,
        };
        let disks = Mutex::new((0..n_disks).map(|_| disk.clone_empty()).collect());
        Shelf { shared: Arc::new(Shared { disks, changed: Condvar::new() }) }
    }

    /// Waits until the disk serves calls of this epoch.
    ///
    /// # Errors
    /// The power was cut since, or the call is to fail.
    pub fn access(
        &self,
        disk: usize,
        epoch: u64,
        call: Call,
        ino: Option<Ino>,
    ) -> Result<Access<'_>, Failure> {
        let delay = {
            let disks = self.shared.disks.lock();
            let faults = &disks[disk].faults;
            let of_sync = if call == Call::Sync { faults.sync_delay } else { Default::default() };
            faults.delay + of_sync
        };
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        let mut disks = self.shared.disks.lock();
        while disks[disk].is_frozen && disks[disk].epoch == epoch {
            self.shared.changed.wait(&mut disks);
        }
        if disks[disk].epoch != epoch || disks[disk].fails(call, ino) {
            return Err(Failure::Io);
        }
        Ok(MutexGuard::map(disks, |disks| &mut disks[disk]))
    }

    /// As [`Shelf::access`], for what cannot fail: nothing is done for an earlier epoch.
    pub fn note(&self, disk: usize, epoch: u64, note: impl FnOnce(&mut Tree)) {
        let mut disks = self.shared.disks.lock();
        if disks[disk].epoch == epoch {
            note(&mut disks[disk].tree);
        }
    }

    /// Every call to these disks waits from this instant on.
    pub fn freeze(&self, disks: &[usize]) {
        let mut all = self.shared.disks.lock();
        disks.iter().for_each(|disk| all[*disk].is_frozen = true);
    }

    /// Calls that waited go on.
    pub fn thaw(&self, disks: &[usize]) {
        let mut all = self.shared.disks.lock();
        disks.iter().for_each(|disk| all[*disk].is_frozen = false);
        self.shared.changed.notify_all();
    }

    /// Cuts the power. Calls that wait fail, and so do all that belong to the time before.
    pub fn cut(&self, disks: &[usize], seed: u64) -> Vec<Dropped> {
        let mut all = self.shared.disks.lock();
        let mut random = StdRng::seed_from_u64(seed);
        let cut = |disk: &usize| {
            let disk = &mut all[*disk];
            disk.epoch += 1;
            disk.is_frozen = false;
            disk.tree.cut(&mut random)
        };
        let dropped = disks.iter().map(cut).collect();
        self.shared.changed.notify_all();
        dropped
    }

    #[must_use]
    pub fn epoch(&self, disk: usize) -> u64 {
        self.shared.disks.lock()[disk].epoch
    }

    pub fn set_faults(&self, disk: usize, faults: Faults) {
        let mut all = self.shared.disks.lock();
        all[disk].tree.taken_pages = pages(faults.taken_bytes);
        all[disk].faults = faults;
    }

    /// Flips drawn bits in the durable bytes of one file whose path holds `below`.
    ///
    /// # Errors
    /// There is no such file with anything in it.
    pub fn flip(&self, disk: usize, below: &str, n_bits: u64, seed: u64) -> Result<PathBuf> {
        let mut all = self.shared.disks.lock();
        let tree = &mut all[disk].tree;
        let mut files = Vec::new();
        for (ino, path) in tree.paths() {
            if let Ok(node) = tree.node(ino)
                && let Body::File(content) = &node.body
                && content.size() > 0
                && path.to_string_lossy().contains(below)
            {
                files.push((path, ino, content.size()));
            }
        }
        files.sort();
        let mut random = StdRng::seed_from_u64(seed);
        let drawn = crate::numbers::index(random.random(), files.len());
        let (path, ino, size) = files
            .get(drawn)
            .cloned()
            .with_context(|| format!("no file with bytes whose path holds `{below}`"))?;
        if let Body::File(content) = &mut tree.node_mut(ino).expect("it was just listed").body {
            for _ in 0..n_bits {
                content.flip(random.random_range(0..size * 8));
            }
        }
        Ok(path)
    }
}

impl Disk {
    fn clone_empty(&self) -> Disk {
        Disk { tree: self.tree.clone(), faults: self.faults.clone(), ..*self }
    }

    fn fails(&self, call: Call, ino: Option<Ino>) -> bool {
        if !self.faults.fails.contains(&call) {
            return false;
        }
        if self.faults.fails_below.is_empty() {
            return true;
        }
        let paths = self.tree.paths();
        let path = ino.and_then(|ino| paths.get(&ino));
        path.is_some_and(|path| path.to_string_lossy().contains(&self.faults.fails_below))
    }
}

fn pages(n_bytes: u64) -> u64 {
    n_bytes / u64::try_from(PAGE_BYTES).unwrap_or(1)
}
