//! The barrier before a linearizable read, on every node.
//!
//! Reads gather in a group. At most one group is on its way to the leader; a read that comes in
//! meanwhile joins the next group, because the index on its way may be older than the read.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::quorate::{ReadIndexReply, ReadIndexRequest, read_index_reply};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::confirm::Confirmer;
use crate::leadership::Leadership;
use crate::line::Lines;
use crate::log_store::LogStore;
use crate::peers::Peers;
use crate::tasks;

/// Between two attempts while no leader answers.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// One attempt must not hold its group longer: the leader may have changed meanwhile.
const ROUND_MAX: Duration = Duration::from_millis(500);

/// A moment after which the caller's view was the newest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// The leader that a quorum confirmed.
    pub(crate) leader: u64,
    /// All that was committed before the round began.
    pub(crate) index: u64,
}

struct Waiter {
    deadline: Instant,
    /// Another node waits for its own state; told at once, or not at all.
    is_peer: bool,
    done: oneshot::Sender<Round>,
}

#[derive(Default)]
struct Waiting {
    group: Vec<Waiter>,
    /// Nobody asks any more.
    closed: bool,
}

pub(crate) struct ReadBarrier {
    waiting: Mutex<Waiting>,
    work: Notify,
}

/// Asks for read indexes; one per node.
pub(crate) struct ReadRounds {
    pub(crate) node: u64,
    pub(crate) barrier: Arc<ReadBarrier>,
    pub(crate) confirmer: Arc<Confirmer>,
    pub(crate) log: LogStore,
    pub(crate) peers: Arc<Peers>,
    pub(crate) lines: Lines<ReadIndexRequest, ReadIndexReply>,
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
    /// that was committed then. `None` soon after the deadline: one timer serves a whole group.
    pub(crate) async fn pass(&self, deadline: Instant) -> Option<Round> {
        self.join(deadline, false).await
    }

    /// The read index for another node's group, from the next round of this node's own reads.
    /// `None` where this node does not lead, or no quorum confirms it in time.
    pub(crate) async fn read_index(&self) -> Option<u64> {
        let round = self.join(Instant::now() + ROUND_MAX, true).await?;
        Some(round.index)
    }

    async fn join(&self, deadline: Instant, is_peer: bool) -> Option<Round> {
        let (done, receiver) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return None;
            }
            waiting.group.push(Waiter { deadline, is_peer, done });
            waiting.group.len() == 1
        };
        if first {
            self.work.notify_one();
        }
        receiver.await.ok()
    }

    fn take_group(&self) -> Vec<Waiter> {
        std::mem::take(&mut self.waiting.lock().group)
    }

    /// Those who wait see their channel close.
    fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.group.clear();
    }
}

impl ReadRounds {
    pub(crate) async fn run(self) {
        let cancel = self.cancel.clone();
        tokio::select! {
            // The group that is dropped with it sees its channels close.
            () = self.serve() => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn serve(&self) {
        loop {
            self.barrier.work.notified().await;
            let mut group = self.barrier.take_group();
            while !group.is_empty() {
                let Some(round) = self.ask().await else {
                    // A node that asks another one asks the next leader by itself.
                    group.retain(|waiter| !waiter.is_peer);
                    tokio::time::sleep(RETRY_PAUSE).await;
                    // All of them came before the next attempt begins.
                    group.extend(self.barrier.take_group());
                    let now = Instant::now();
                    group.retain(|waiter| waiter.deadline > now && !waiter.done.is_closed());
                    continue;
                };
                self.release(std::mem::take(&mut group), round);
            }
        }
    }

    /// Answers the group once this node has applied all that the round stands for.
    fn release(&self, group: Vec<Waiter>, round: Round) {
        let applied_already = *self.applied.borrow() >= round.index;
        let (now, later): (Vec<Waiter>, Vec<Waiter>) =
            group.into_iter().partition(|waiter| applied_already || waiter.is_peer);
        finish(now, round);
        if later.is_empty() {
            return;
        }
        let mut applied = self.applied.clone();
        let cancel = self.cancel.clone();
        tasks::spawn(&self.runtime, "read group", async move {
            let mut later = later;
            while let Some(first_deadline) = later.iter().map(|waiter| waiter.deadline).min() {
                tokio::select! {
                    reached = applied.wait_for(|applied| *applied >= round.index) => {
                        if reached.is_ok() {
                            finish(later, round);
                        }
                        return;
                    }
                    () = tokio::time::sleep_until(first_deadline) => {
                        later.retain(|waiter| waiter.deadline > first_deadline);
                    }
                    () = cancel.cancelled() => return,
                }
            }
        });
    }

    /// The index that a quorum's leader confirmed, and that leader.
    async fn ask(&self) -> Option<Round> {
        let leadership = *self.leadership.borrow();
        let asking = async {
            match (leadership.mine, leadership.leader) {
                (Some(_), _) => {
                    let index = self.confirmer.confirm().await?;
                    Some(Round { leader: self.node, index })
                }
                (None, Some(leader)) => {
                    let peer = self.peers.get(leader).ok()?;
                    // With the leader itself, a majority already where there are three nodes.
                    let vote = self.log.newest_vote()?.leader_id;
                    let question = ReadIndexRequest { term: vote.term, node: vote.node_id };
                    let open = |questions| async move {
                        peer.reads().read_index(peer.request(questions)).await
                    };
                    let reply = self.lines.ask(leader, question, open).await.ok()?;
                    match reply.result? {
                        read_index_reply::Result::Index(index) => Some(Round { leader, index }),
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

/// However it ends: nobody else would ever tell those who wait.
impl Drop for ReadRounds {
    fn drop(&mut self) {
        self.barrier.close();
    }
}

fn finish(group: Vec<Waiter>, round: Round) {
    for waiter in group {
        // Who waited may have gone.
        let _ = waiter.done.send(round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_is_told_when_nobody_asks_for_it_any_more() {
        let barrier = ReadBarrier::new();
        let far = Instant::now() + Duration::from_secs(3600);
        let waiting = barrier.pass(far);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        barrier.close();
        assert!(waiting.await.is_none());
        assert!(barrier.pass(far).await.is_none(), "it would wait for ever");
    }
}
