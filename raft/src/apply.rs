//! Applies committed entries: evaluate, write one batch, make visible, tell.
//!
//! All of it happens on one thread of its own, so that a slow disk never holds an async thread.

mod compactor;
mod flusher;
mod machine;
mod ring;
mod worker;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use statemachine::{Outcome, RequestId};
use tokio::sync::watch;

use crate::failure::OnFailure;
use crate::generation::Generation;
use crate::retention::Retention;
use crate::rocks::{LogMark, Pinned, Position};
use crate::room::Room;
use crate::snapshot::Shelf;
use crate::storage_metrics::StorageMetrics;
use crate::types::LogId;
use crate::view::View;

pub use compactor::CompactionPace;
pub use flusher::FlushPolicy;
pub use machine::StateMachine;
pub use ring::{AppliedEvent, Attention, RecvError, RingLimits, Subscription};

pub(crate) use compactor::{Stop, run as compact};
pub(crate) use flusher::Flusher;
pub(crate) use ring::Ring;
pub(crate) use worker::{Worker, WorkerHandle};

/// Takes the outcomes of commands to whoever waits for them.
pub trait OutcomeSink: Send + Sync + 'static {
    /// Called by the apply thread when every read that begins sees `index`. Must be short.
    fn applied(&self, index: u64, outcomes: Outcomes);

    /// The state has come to a cluster time, of the epoch that counts how often it was set back.
    fn timed(&self, _at_ms: u64, _time_epoch: u64) {}

    /// Another node's snapshot has become the state: outcomes of what it holds will not come.
    fn installed(&self) {}
}

/// What a chunk of entries answered.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// In the order of the commands.
    pub by_request: Vec<(RequestId, Outcome)>,
    /// The rows that deferred answers are read from, where there are such.
    pub image: Option<Arc<Pinned>>,
}

/// What the apply thread, readers and snapshots share.
pub(crate) struct Core {
    pub(crate) node: u64,
    pub(crate) current: ArcSwap<Generation>,
    pub(crate) position: Mutex<Position>,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) sink: Arc<dyn OutcomeSink>,
    pub(crate) flusher: Flusher,
    pub(crate) shelf: Shelf,
    pub(crate) retention: Retention,
    pub(crate) room: Arc<Room>,
    pub(crate) metrics: Arc<StorageMetrics>,
    pub(crate) on_failure: OnFailure,
    /// Asks the log for its durable end.
    pub(crate) log_durable: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Asks the log for the last entry that it purged.
    pub(crate) log_purged: Box<dyn Fn() -> Option<LogId> + Send + Sync>,
    /// Asks the log for its size.
    pub(crate) log_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Core {
    /// Never above what is applied: an entry above it may still be truncated.
    fn log_mark(&self, applied_index: u64) -> Option<LogMark> {
        let durable_index = (self.log_durable)()?.min(applied_index);
        Some(LogMark { node: self.node, durable_index })
    }
}

/// Reads and follows the state of this node. Clones share it.
#[derive(Clone)]
pub struct StateHandle {
    core: Arc<Core>,
}

impl StateHandle {
    pub(crate) fn new(core: Arc<Core>) -> StateHandle {
        StateHandle { core }
    }

    pub fn view(&self) -> View {
        View::new(self.core.current.load_full())
    }

    /// Index of the last entry that every read that begins now sees; 0 before the first.
    pub fn applied_index(&self) -> watch::Receiver<u64> {
        self.core.applied.subscribe()
    }

    pub fn position(&self) -> Position {
        self.core.position.lock().clone()
    }

    /// What is applied from now on.
    pub fn subscribe(&self) -> Subscription {
        self.core.ring.subscribe()
    }

    /// Wakes subscribers at each event, see [`Subscription::relax`].
    pub fn attend(&self) -> Attention {
        self.core.ring.attend()
    }

    /// Makes what is applied durable; waits for it, so call it from a blocking thread.
    ///
    /// # Errors
    /// The storage failed.
    pub fn flush(&self) -> Result<(), crate::failure::Failure> {
        self.core.flusher.flush_now(&self.core)
    }

    /// Size on disk of the live state.
    pub fn disk_bytes(&self) -> u64 {
        self.core.current.load().tables.disk_bytes()
    }

    pub fn memtable_bytes(&self) -> u64 {
        self.core.current.load().tables.memtable_bytes()
    }
}
