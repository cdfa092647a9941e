//! What the coordinator counts for operators.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(crate) struct Counts {
    sessions_lost: AtomicU64,
    tenures: AtomicU64,
}

impl Counts {
    /// The session key was not ours any more though this node leads.
    pub(super) fn session_lost(&self) {
        self.sessions_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// This node began to serve as the coordinator.
    pub(super) fn took_over(&self) {
        self.tenures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn n_sessions_lost(&self) -> u64 {
        self.sessions_lost.load(Ordering::Relaxed)
    }

    pub(crate) fn n_tenures(&self) -> u64 {
        self.tenures.load(Ordering::Relaxed)
    }
}
