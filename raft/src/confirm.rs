//! A quorum confirms that this node still leads, for the reads that wait.
//!
//! openraft asks with a round of heartbeats to all, through its own core and that of each follower.
//! A read needs less: that no later leader was elected before it began. A later leader has a vote
//! of one node at least out of any majority, and a node's vote is on record before it is given. So
//! it is enough that a majority, asked after the read began, has none on record that is later.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use parking_lot::Mutex;
use proto::quorate::{ConfirmLeaderReply, ConfirmLeaderRequest};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::line::Lines;
use crate::log_store::LogStore;
use crate::peers::Peers;
use crate::tenure::Tenure;
use crate::types::{LeaderId, TypeConfig};

/// A voter that takes longer is not waited for alone: all others are asked, too.
const PATIENCE: Duration = Duration::from_millis(10);

/// Asks the voters; one per node.
pub(crate) struct Confirmer {
    node: u64,
    engine: Engine,
    metrics: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    log: LogStore,
    peers: Arc<Peers>,
    tenure: watch::Receiver<Option<Tenure>>,
    lines: Lines<ConfirmLeaderRequest, ConfirmLeaderReply>,
    /// Voters that answered last.
    prompt: Mutex<Vec<u64>>,
}

/// What this node takes for true of itself as the leader, until a quorum confirms it.
struct Claim {
    leader: LeaderId,
    /// Nothing that was committed when the claim was made is above it.
    index: u64,
    /// The other voters.
    others: BTreeSet<u64>,
}

impl Claim {
    /// With the leader itself, so many are a majority.
    fn n_needed(&self) -> usize {
        self.others.len().div_ceil(2)
    }
}

impl Confirmer {
    pub(crate) fn new(
        node: u64,
        engine: Engine,
        log: LogStore,
        peers: Arc<Peers>,
        tenure: watch::Receiver<Option<Tenure>>,
    ) -> Arc<Confirmer> {
        let metrics = engine.server_metrics();
        let (lines, prompt) = (Lines::default(), Mutex::default());
        Arc::new(Confirmer { node, engine, metrics, log, peers, tenure, lines, prompt })
    }

    /// The index that a read has to wait for which began before this call; `None` where no quorum
    /// confirms that this node leads.
    pub(crate) async fn confirm(&self) -> Option<u64> {
        // Before anyone is asked.
        let Some(claim) = self.claim() else {
            return self.confirm_by_engine().await;
        };
        let ask = |voter| self.ask(voter, claim.leader);
        let order = self.in_order(&claim.others);
        let confirmed = first_to_confirm(order, claim.n_needed(), PATIENCE, ask).await?;
        *self.prompt.lock() = confirmed;
        Some(claim.index)
    }

    /// As [`Confirmer::confirm`] for a read that began at `voter` before that saw that its newest
    /// vote is the one for `leader`; `None` where this is not enough.
    pub(crate) fn confirmed_by(&self, voter: u64, leader: LeaderId) -> Option<u64> {
        let claim = self.claim()?;
        let n_confirmed = usize::from(claim.leader == leader && claim.others.contains(&voter));
        (n_confirmed >= claim.n_needed()).then_some(claim.index)
    }

    /// `None` where this node does not lead, has not yet applied the first entry of its tenure, or
    /// where the voters are just being changed.
    fn claim(&self) -> Option<Claim> {
        let leader = self.tenure.borrow().as_ref()?.leader_id();
        if self.log.newest_vote()?.leader_id != leader {
            return None;
        }
        // What earlier leaders committed precedes the first entry of the tenure.
        let index = self.log.committed_index()?;
        // A membership counts from its append on; the metrics tell of it a little later.
        let appended = self.log.newest_membership();
        let metrics = self.metrics.borrow_watched();
        let membership = &metrics.membership_config;
        if membership.log_id().as_ref().map(|log_id| log_id.index) < appended {
            return None;
        }
        let [voters] = membership.membership().get_joint_config().as_slice() else {
            return None;
        };
        let mut others = voters.clone();
        others.remove(&self.node).then_some(Claim { leader, index, others })
    }

    /// Those that answered last in front.
    fn in_order(&self, voters: &BTreeSet<u64>) -> Vec<u64> {
        let mut order = self.prompt.lock().clone();
        order.retain(|voter| voters.contains(voter));
        let rest: Vec<u64> = voters.iter().copied().filter(|id| !order.contains(id)).collect();
        order.extend(rest);
        order
    }

    /// Whether `voter` confirms `leader`; a node that is not reached does not.
    async fn ask(&self, voter: u64, leader: LeaderId) -> bool {
        let Ok(peer) = self.peers.get(voter) else { return false };
        let question = ConfirmLeaderRequest { term: leader.term, node: leader.node_id };
        let open =
            |questions| async move { peer.reads().confirm_leader(peer.request(questions)).await };
        self.lines.ask(voter, question, open).await.is_ok_and(|answer| answer.confirmed)
    }

    /// At the beginning of a leadership and while the voters change.
    async fn confirm_by_engine(&self) -> Option<u64> {
        let linearizer = self.engine.get_read_linearizer(ReadPolicy::ReadIndex).await.ok()?;
        Some(linearizer.read_log_id().index())
    }
}

/// The first `n_needed` of `voters` to confirm; `None` where there are not so many.
///
/// Asked are as many as are needed, from the front; one more for each that does not confirm; and all
/// when `patience` is over.
async fn first_to_confirm<F: Future<Output = bool>>(
    voters: Vec<u64>,
    n_needed: usize,
    patience: Duration,
    ask: impl Fn(u64) -> F,
) -> Option<Vec<u64>> {
    let asking = |voter: u64| {
        let answer = ask(voter);
        async move { (voter, answer.await) }
    };
    let mut rest = voters.into_iter();
    let mut asked: FuturesUnordered<_> = rest.by_ref().take(n_needed).map(asking).collect();
    let mut confirmed = Vec::with_capacity(n_needed);
    let late = tokio::time::sleep(patience);
    tokio::pin!(late);
    while confirmed.len() < n_needed {
        tokio::select! {
            Some((voter, confirms)) = asked.next() => match confirms {
                true => confirmed.push(voter),
                false => asked.extend(rest.next().map(asking)),
            },
            () = &mut late, if rest.len() > 0 => asked.extend(rest.by_ref().map(asking)),
            else => return None,
        }
    }
    Some(confirmed)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Copy)]
    enum Voter {
        Confirms,
        Refuses,
        Hangs,
        /// Long after patience is over.
        ConfirmsLate,
    }

    use Voter::{Confirms, ConfirmsLate, Hangs, Refuses};

    /// Who confirmed of voters 1, 2, 3 and so on, and who was asked.
    async fn first(n_needed: usize, voters: &[Voter]) -> (Option<Vec<u64>>, Vec<u64>) {
        let asked = RefCell::new(Vec::new());
        let by_id: BTreeMap<u64, Voter> = (1..).zip(voters.iter().copied()).collect();
        let ask = |id: u64| {
            asked.borrow_mut().push(id);
            let voter = by_id[&id];
            async move {
                match voter {
                    Confirms => true,
                    Refuses => false,
                    Hangs => std::future::pending().await,
                    ConfirmsLate => {
                        tokio::time::sleep(PATIENCE * 3).await;
                        true
                    }
                }
            }
        };
        let ids = by_id.keys().copied().collect();
        let confirmed = first_to_confirm(ids, n_needed, PATIENCE, ask).await;
        (confirmed, asked.into_inner())
    }

    #[tokio::test]
    async fn no_more_voters_are_asked_than_are_needed() {
        assert_eq!(first(0, &[]).await, (Some(vec![]), vec![]));
        assert_eq!(first(1, &[Confirms, Confirms]).await, (Some(vec![1]), vec![1]));
        let (confirmed, asked) = first(2, &[Confirms; 4]).await;
        assert_eq!((confirmed.map(|ids| ids.len()), asked), (Some(2), vec![1, 2]));
    }

    #[tokio::test]
    async fn another_voter_is_asked_for_one_that_does_not_confirm() {
        assert_eq!(first(1, &[Refuses, Confirms]).await, (Some(vec![2]), vec![1, 2]));
        assert_eq!(first(1, &[Hangs, Confirms]).await, (Some(vec![2]), vec![1, 2]));
        assert_eq!(first(2, &[Hangs, Confirms, Confirms]).await.0, Some(vec![2, 3]));
        assert_eq!(first(1, &[ConfirmsLate, Hangs]).await, (Some(vec![1]), vec![1, 2]));
    }

    #[tokio::test]
    async fn without_a_majority_nothing_is_confirmed() {
        assert_eq!(first(1, &[Refuses, Refuses]).await.0, None);
        assert_eq!(first(2, &[Confirms, Refuses, Refuses, Refuses]).await.0, None);
        // Who hangs is up to the caller's deadline.
        let hangs = first(1, &[Refuses, Hangs]);
        assert!(tokio::time::timeout(PATIENCE * 5, hangs).await.is_err());
    }
}
