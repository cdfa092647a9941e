//! Hybrid timestamps from RootCoord: fresh ones for events, and an estimate for bounds.

use raft::Tenure;

use super::{Coordinator, Failure};

pub(crate) struct Tso {}

impl Tso {
    pub(crate) fn start(_coordinator: &Coordinator, _tenure: &Tenure) -> Tso {
        Tso {}
    }

    /// A timestamp that RootCoord gave after this call began. Callers at the same time share one.
    ///
    /// # Errors
    /// RootCoord does not answer.
    #[allow(clippy::unused_async, reason = "to be filled in")]
    pub(crate) async fn fresh(&self) -> Result<u64, Failure> {
        Err(Failure::Unavailable("no timestamps".to_owned()))
    }

    /// Not above what RootCoord would give now: the last timestamp, plus the time since it was
    /// asked for. Asks for a new one where it is older than 200 ms. For bounds only, never for events.
    ///
    /// # Errors
    /// RootCoord never answered in this tenure.
    pub(crate) async fn estimate(&self) -> Result<u64, Failure> {
        self.fresh().await
    }
}

/// Milliseconds since the Unix epoch of a hybrid timestamp.
pub(crate) fn physical_ms(ts: u64) -> u64 {
    ts >> 18
}

/// A hybrid timestamp later by some milliseconds.
pub(crate) fn later(ts: u64, ms: u64) -> u64 {
    ts.saturating_add(ms << 18)
}
