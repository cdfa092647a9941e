//! Hands applied events to this node's watchers.
//!
//! The hub follows what this node applies. Watchers that are in sync with it are indexed by what
//! they cover and get each batch of events as it passes, encoded once for all that want the same.
//! One that starts in the past, or whose stream is full, leaves the index and catches up from
//! history, which is read for all such watchers together; so nothing is dropped and no watcher waits
//! for another.
//!
//! Invariant: a watcher gets every event of its range from its start revision on, once, in order.

mod batch;
mod catch_up;
mod feed;
mod history;
mod index;
mod range;
mod registry;
mod stream;
#[cfg(test)]
mod tests;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::etcd;
use raft::{Attention, Node};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::lease_clock::Leases;
use crate::rpc::etcd::EtcdLimits;
use registry::{Joined, Registry, WatchBounds};
use stream::StreamBounds;

pub(crate) use batch::Part;
pub(crate) use registry::Refused;
pub(crate) use stream::{Outgoing, StreamQueue};

/// How long a progress request waits for the hub to reach what was applied when it came.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(1);

/// One per node.
pub struct WatchHub {
    node: Node,
    /// Hears what was granted and revoked from here, so that one task follows what is applied.
    leases: Arc<Leases>,
    bounds: StreamBounds,
    registry: Mutex<Registry>,
    /// Held while there are streams; taken and dropped under the lock of the registry.
    attention: Mutex<Option<Attention>>,
    /// Up to here events were handed out.
    revision: watch::Sender<i64>,
    next_stream: AtomicU64,
    history: history::History,
    /// Hears that there may be a watcher to read history for.
    behind: Arc<Notify>,
    stop: CancellationToken,
}

impl WatchHub {
    /// Starts to follow `node`; ends with `stop`.
    pub fn start(
        node: Node,
        leases: Arc<Leases>,
        limits: &EtcdLimits,
        stop: CancellationToken,
    ) -> Arc<WatchHub> {
        let bounds = StreamBounds {
            bytes_max: limits.watch_stream_bytes_max,
            responses_max: limits.watch_stream_responses_max,
            answers_max: limits.watch_stream_answers_max,
        };
        let watch_bounds = WatchBounds {
            stream_watchers_max: limits.watch_stream_watchers_max,
            member_watchers_max: limits.watch_member_watchers_max,
            member_range_bytes_max: limits.watch_member_range_bytes_max,
        };
        let mut subscription = node.applied();
        subscription.relax();
        let revision = node.local_view().read(statemachine::State::revision);
        let hub = Arc::new(WatchHub {
            history: history::History::new(node.clone()),
            node,
            leases,
            bounds,
            registry: Mutex::new(Registry::new(revision, watch_bounds)),
            attention: Mutex::default(),
            revision: watch::Sender::new(revision),
            next_stream: AtomicU64::new(1),
            behind: Arc::default(),
            stop,
        });
        feed::spawn(&hub, subscription);
        catch_up::spawn(&hub);
        hub
    }

    pub(crate) fn open(&self) -> Arc<StreamQueue> {
        let id = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let stream = Arc::new(StreamQueue::new(id, self.bounds, Arc::clone(&self.behind)));
        if self.stop.is_cancelled() {
            stream.close(Some(Status::unavailable("etcdserver: server stopped")));
        }
        let mut registry = self.registry.lock();
        registry.open(Arc::clone(&stream));
        self.attention.lock().get_or_insert_with(|| self.node.attend());
        stream
    }

    pub(crate) fn close(&self, stream: &StreamQueue, status: Option<Status>) {
        {
            let mut registry = self.registry.lock();
            registry.close(stream.id);
            if registry.n_streams() == 0 {
                *self.attention.lock() = None;
            }
        }
        stream.close(status);
    }

    /// Answers a create request through the stream's queue and sets the watcher going.
    pub(crate) fn create(&self, stream: u64, request: &etcd::WatchCreateRequest) {
        let applied = self.applied_revision();
        let joined = self.registry.lock().create(stream, request, applied);
        match joined {
            Joined::InSync | Joined::Refused => {}
            Joined::Behind => self.behind.notify_one(),
        }
    }

    pub(crate) fn cancel(&self, stream: u64, watch_id: i64) {
        let applied = self.applied_revision();
        self.registry.lock().cancel(stream, watch_id, applied);
    }

    /// Answers a progress request, where every watcher of the stream is in sync.
    pub(crate) async fn progress(&self, stream: u64) {
        let applied = self.applied_revision();
        let mut revision = self.revision.subscribe();
        let reached = revision.wait_for(|revision| *revision >= applied);
        if tokio::time::timeout(PROGRESS_WAIT_MAX, reached).await.is_ok() {
            self.registry.lock().progress(stream);
        }
    }

    /// The period of progress notifications passed for this stream.
    pub(crate) fn tick(&self, stream: u64) {
        self.registry.lock().tick(stream);
    }

    /// The lowest revision that compaction must keep readable for this node's watchers.
    pub fn low_water(&self) -> Option<i64> {
        self.registry.lock().low_water()
    }

    pub fn n_watchers(&self) -> usize {
        self.registry.lock().n_watchers()
    }

    /// Watchers that read history.
    pub fn n_behind(&self) -> usize {
        self.registry.lock().n_behind()
    }

    /// Streams whose requests are not read, because their clients do not read the answers.
    pub fn n_unread(&self) -> usize {
        self.registry.lock().n_unread()
    }

    pub(crate) fn refused(&self) -> Refused {
        self.registry.lock().refused()
    }

    pub fn n_streams(&self) -> usize {
        self.registry.lock().n_streams()
    }

    /// Ends every stream in the way that makes clients come back elsewhere.
    fn end_all(&self) {
        for stream in self.registry.lock().drain() {
            stream.close(Some(Status::unavailable("etcdserver: server stopped")));
        }
    }

    fn applied_revision(&self) -> i64 {
        self.node.local_view().read(statemachine::State::revision)
    }
}
