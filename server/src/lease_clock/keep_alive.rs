//! Renewals of this node's clients, gathered and sent to the leader in rounds.
//!
//! While one round is under way the next gathers, so a thousand clients cost a few messages.

use std::time::Duration;

use prost::Message;
use proto::quorate;
use raft::Node;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Leases;
use super::leader::UNDECIDED;
use crate::rpc::peer::Topic;
use crate::tasks;

/// Renewals that wait on one node; further streams wait for room.
pub(super) const WAITING_MAX: usize = 64 * 1024;
/// Renewals in one round.
const ROUND_MAX: usize = 4096;
/// A leader that does not answer within this is asked again, whoever leads then.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before what is undecided, or found no leader, is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Renewal {
    id: i64,
    deadline: Instant,
    answer: oneshot::Sender<i64>,
}

/// Nobody could say before the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no leader answered the renewal before its deadline")]
pub(crate) struct KeepAliveError;

impl Leases {
    /// The granted time to live in seconds, or 0 where the lease is gone.
    pub(crate) async fn keep_alive(
        &self,
        id: i64,
        deadline: Instant,
    ) -> Result<i64, KeepAliveError> {
        let (answer, answered) = oneshot::channel();
        let renewal = Renewal { id, deadline, answer };
        self.renewals.send(renewal).await.map_err(|_stopped| KeepAliveError)?;
        answered.await.map_err(|_given_up| KeepAliveError)
    }
}

pub(super) fn spawn(node: Node, mut inbox: mpsc::Receiver<Renewal>, stop: CancellationToken) {
    tasks::spawn("lease-keep-alive", async move {
        let mut waiting: Vec<Renewal> = Vec::new();
        loop {
            if waiting.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    // Cancel-safe: nothing is taken where it does not complete.
                    n_received = inbox.recv_many(&mut waiting, ROUND_MAX) => {
                        if n_received == 0 {
                            return;
                        }
                    }
                }
            }
            while waiting.len() < ROUND_MAX {
                let Ok(renewal) = inbox.try_recv() else { break };
                waiting.push(renewal);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // On a stop the renewals are dropped, which answers their streams.
                left = round(&node, waiting) => waiting = left,
            }
            if !waiting.is_empty() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    });
}

/// Asks the leader once; returns what has to be tried again.
async fn round(node: &Node, renewals: Vec<Renewal>) -> Vec<Renewal> {
    let now = Instant::now();
    let renewals: Vec<Renewal> = renewals
        .into_iter()
        .filter(|renewal| renewal.deadline > now && !renewal.answer.is_closed())
        .collect();
    if renewals.is_empty() {
        return renewals;
    }
    let request = quorate::KeepAliveRequest { ids: renewals.iter().map(|r| r.id).collect() };
    let body = request.encode_to_vec().into();
    let answer = node.ask_leader(Topic::KeepAlive.into(), body, now + ROUND_TIMEOUT).await;
    let answer = match answer.map(quorate::KeepAliveAnswer::decode) {
        Ok(Ok(answer)) if answer.ttl_s.len() == renewals.len() => answer,
        Ok(Ok(_) | Err(_)) => {
            tracing::error!("leader answered renewals in a way that cannot be read");
            return renewals;
        }
        Err(error) => {
            tracing::debug!(%error, "renewals wait for a leader");
            return renewals;
        }
    };
    let mut undecided = Vec::new();
    for (renewal, ttl_s) in renewals.into_iter().zip(answer.ttl_s) {
        if ttl_s == UNDECIDED {
            undecided.push(renewal);
        } else {
            // A stream that has gone does not need the answer.
            let _ = renewal.answer.send(ttl_s);
        }
    }
    undecided
}
