//! The barrier before a linearizable read, on every node.
//!
//! Reads gather in a group. At most one group is on its way to the leader; a read that comes in
//! meanwhile joins the next group, because the index on its way may be older than the read.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::Linearizer;
use parking_lot::Mutex;
use proto::quorate::{ReadIndexRequest, read_index_reply};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::leadership::Leadership;
use crate::peers::Peers;
use crate::tasks;
use crate::types::TypeConfig;

/// Between two attempts while no leader answers.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// One attempt must not hold its group longer: the leader may have changed meanwhile.
const ROUND_MAX: Duration = Duration::from_millis(500);

/// A moment after which the caller's view was the newest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// The leader that a quorum confirmed.
    pub(crate) leader: u64,
}

struct Waiter {
    deadline: Instant,
    done: oneshot::Sender<Round>,
}

pub(crate) struct ReadBarrier {
    waiting: Mutex<Vec<Waiter>>,
    work: Notify,
}

/// Asks for read indexes; one per node.
pub(crate) struct ReadRounds {
    pub(crate) node: u64,
    pub(crate) barrier: Arc<ReadBarrier>,
    pub(crate) engine: Engine,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Index up to which this node's state can be read.
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) runtime: Handle,
    pub(crate) cancel: CancellationToken,
}

impl ReadBarrier {
    pub(crate) fn new() -> Arc<ReadBarrier> {
        Arc::new(ReadBarrier { waiting: Mutex::default(), work: Notify::new() })
    }

    /// Resolves when a quorum confirmed a leader after this call, and this node has applied all
    /// that was committed then. `None` at the deadline.
    pub(crate) async fn pass(&self, deadline: Instant) -> Option<Round> {
        let (done, receiver) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.push(Waiter { deadline, done });
            waiting.len() == 1
        };
        if first {
            self.work.notify_one();
        }
        tokio::time::timeout_at(deadline, receiver).await.ok()?.ok()
    }

    fn take_group(&self) -> Vec<Waiter> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl ReadRounds {
    pub(crate) async fn run(self) {
        let cancel = self.cancel.clone();
        tokio::select! {
            // Waiters that are dropped see their channel close.
            () = self.serve() => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn serve(&self) {
        loop {
            self.barrier.work.notified().await;
            let mut group = self.barrier.take_group();
            while !group.is_empty() {
                match self.ask().await {
                    Some((index, leader)) => {
                        self.release(std::mem::take(&mut group), index, leader);
                    }
                    None => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                        // All of them came before the next attempt begins.
                        group.extend(self.barrier.take_group());
                        let now = Instant::now();
                        group.retain(|waiter| waiter.deadline > now && !waiter.done.is_closed());
                    }
                }
            }
        }
    }

    /// Answers the group once this node has applied `index`.
    fn release(&self, group: Vec<Waiter>, index: u64, leader: u64) {
        let finish = move |group: Vec<Waiter>| {
            for waiter in group {
                // Who waited may have gone.
                let _ = waiter.done.send(Round { leader });
            }
        };
        if *self.applied.borrow() >= index {
            finish(group);
            return;
        }
        let mut applied = self.applied.clone();
        let cancel = self.cancel.clone();
        tasks::spawn(&self.runtime, "read group", async move {
            let last_deadline = group.iter().map(|waiter| waiter.deadline).max();
            let reached = applied.wait_for(|applied| *applied >= index);
            tokio::select! {
                reached = reached => if reached.is_ok() { finish(group) },
                () = tokio::time::sleep_until(last_deadline.unwrap_or_else(Instant::now)) => {}
                () = cancel.cancelled() => {}
            }
        });
    }

    /// The index that a quorum's leader confirmed, and that leader.
    async fn ask(&self) -> Option<(u64, u64)> {
        let leadership = *self.leadership.borrow();
        let asking = async {
            match (leadership.mine, leadership.leader) {
                (Some(_), _) => {
                    let linearizer = read_linearizer(&self.engine).await.ok()?;
                    Some((linearizer.read_log_id().index(), self.node))
                }
                (None, Some(leader)) => {
                    let peer = self.peers.get(leader).ok()?;
                    let request = peer.request(ReadIndexRequest {});
                    let reply = peer.control().read_index(request).await.ok()?.into_inner();
                    match reply.result? {
                        read_index_reply::Result::Index(index) => Some((index, leader)),
                        read_index_reply::Result::NotLeader(_)
                        | read_index_reply::Result::Unavailable(_) => None,
                    }
                }
                (None, None) => None,
            }
        };
        tokio::time::timeout(ROUND_MAX, asking).await.ok().flatten()
    }
}

/// One round of confirmation by a quorum; concurrent ones share it inside the engine.
pub(crate) async fn read_linearizer(
    engine: &Engine,
) -> Result<Linearizer<TypeConfig>, RaftError<TypeConfig, LinearizableReadError<TypeConfig>>> {
    engine.get_read_linearizer(ReadPolicy::ReadIndex).await
}
