//! What peers answer to appends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::errors::RPCError;
use openraft::raft::{StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;
use proto::quorate;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::log_store::LogStore;
use crate::notes::PeerNotes;
use crate::types::{LeaderId, TypeConfig, Vote};

use super::{Rpc, network_error, parse_ack, rpc_error};

/// Notes what a peer acknowledges, and sees when it lacks what it had acknowledged.
#[derive(Clone)]
pub(super) struct Ledger {
    pub(super) target: u64,
    pub(super) notes: Arc<PeerNotes>,
    pub(super) log: LogStore,
    /// The leadership under which this node asks; every request of a stream has the same.
    pub(super) leader: Arc<Mutex<Option<LeaderId>>>,
}

impl Ledger {
    pub(super) fn asks(&self, vote: &Vote) {
        *self.leader.lock() = Some(vote.leader_id);
    }

    pub(super) fn hears(&self, result: &Rpc<StreamAppendResult<TypeConfig>>) {
        let Some(leader) = *self.leader.lock() else { return };
        match result {
            Ok(Ok(Some(matched))) => {
                let committed = self.log.committed_index();
                self.notes.acknowledged(self.target, leader, matched.index, committed);
            }
            Ok(Err(StreamAppendError::Conflict(at))) => {
                if self.notes.lacks(self.target, leader, at.index) {
                    tracing::error!(
                        node = self.target,
                        index = at.index,
                        "a member lacks an entry that it had acknowledged: its disk lost it, or its \
                         directory was put back; replace it with `quorate member replace`"
                    );
                }
            }
            Ok(Ok(None) | Err(StreamAppendError::HigherVote(_))) | Err(_) => {}
        }
    }
}

/// Replies of a peer to appends, with an eye on how long they take.
pub(super) struct AckStream {
    pub(super) replies: tonic::Streaming<quorate::AppendReply>,
    pub(super) ledger: Ledger,
    /// The log is to be purged up to here.
    pub(super) cutoff: watch::Receiver<u64>,
    /// The last entry that was acknowledged on this stream.
    pub(super) matched: Option<u64>,
    pub(super) sent: Arc<AtomicU64>,
    pub(super) answered: u64,
    pub(super) watchdog: Duration,
    pub(super) timeout: RPCError<TypeConfig>,
    pub(super) ended: bool,
}

impl AckStream {
    /// Whether the peer still needs entries that are to go. Then the stream ends, and openraft finds
    /// that the peer needs a snapshot.
    fn is_cut_off(&self) -> bool {
        let cutoff = *self.cutoff.borrow();
        self.matched.is_some_and(|matched| matched < cutoff)
    }

    pub(super) async fn next(mut self) -> Option<(Rpc<StreamAppendResult<TypeConfig>>, AckStream)> {
        if self.ended {
            return None;
        }
        // openraft never gives a stream up. Without this, a connection that lost its other end
        // silently would stop replication to that peer for good.
        let mut waiting_since: Option<Instant> = None;
        let result = loop {
            if self.is_cut_off() {
                let status =
                    Status::aborted("the peer is too late for the log: a snapshot follows");
                break Err(network_error(&status));
            }
            match tokio::time::timeout(self.watchdog / 4, self.replies.message()).await {
                Ok(Ok(Some(reply))) => break parse_ack(&reply),
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => break Err(rpc_error(&status)),
                Err(_) if self.sent.load(Ordering::Relaxed) <= self.answered => {
                    waiting_since = None;
                }
                Err(_) => {
                    let since = *waiting_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.watchdog {
                        break Err(self.timeout.clone());
                    }
                }
            }
        };
        self.answered += 1;
        self.ledger.hears(&result);
        if let Ok(Ok(Some(matched))) = &result {
            self.matched = Some(matched.index);
        }
        self.ended = !matches!(result, Ok(Ok(_)));
        Some((result, self))
    }
}
