//! Which transfer of a snapshot may touch the disk.
//!
//! Transfers of one snapshot share a directory, so that a broken one can go on. A later transfer
//! supersedes one that is still writing; one that is being verified, loaded or installed cannot be
//! stopped, so others wait for its end.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::SnapshotError;

#[derive(Default)]
pub(super) struct Turns(Mutex<Held>);

#[derive(Default)]
pub(super) struct Held {
    /// Number of the newest transfer.
    newest: u64,
    is_finishing: bool,
}

impl Turns {
    /// Begins a transfer; runs `open` while no other one can write.
    pub(super) fn begin<T>(
        &self,
        open: impl FnOnce(u64) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let mut held = self.0.lock();
        if held.is_finishing {
            return Err(SnapshotError::Busy);
        }
        held.newest += 1;
        open(held.newest)
    }

    /// Holds all other transfers off while `number` writes a part.
    pub(super) fn write(&self, number: u64) -> Result<MutexGuard<'_, Held>, SnapshotError> {
        let held = self.0.lock();
        if held.newest != number || held.is_finishing {
            return Err(SnapshotError::Superseded);
        }
        Ok(held)
    }

    /// Transfer `number` is complete: no other begins until what this gives is dropped.
    pub(super) fn finish(self: &Arc<Self>, number: u64) -> Result<Turn, SnapshotError> {
        self.write(number)?.is_finishing = true;
        Ok(Turn(Arc::clone(self)))
    }
}

/// Held until a complete transfer is installed or given up.
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.lock().is_finishing = false;
    }
}
