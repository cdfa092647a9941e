//! Compares what the voters hold: a minority that differs goes into quarantine.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::etcd::alarm_request::AlarmAction;
use proto::quorate;
use proto::quorate::command::Kind;
use raft::{Node, Tenure};
use statemachine::{Response, State};
use tokio::time::Instant;

use super::driver::{Duty, DutyError};
use super::{DutyOptions, quarantine};
use crate::rpc::peer::Topic;

const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A voter that has not applied the entry by then is left out of this round.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_PAUSE: Duration = Duration::from_millis(200);

/// How often the digests are compared while CORRUPT of a member is raised, which ends it.
const PERIOD_WITH_ALARM: Duration = Duration::from_secs(2);

pub(super) struct DigestCheck {
    node: Node,
    period: Duration,
    next: Instant,
}

/// No member has this id: the alarm is one of the whole cluster.
const CLUSTER: u64 = 0;

/// Digests of a node at one log entry, by node.
type Digests = BTreeMap<u64, quorate::Digest>;

/// What the digests of the voters say.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Equal,
    /// Too few answered to tell who is right, and those who did agree.
    Unknown,
    Minority {
        nodes: Vec<u64>,
        majority: quorate::Digest,
    },
    NoMajority,
}

/// The digests that this node recorded at the log entry, in wire form.
pub(crate) fn recorded_digest(state: &State, index: u64) -> Option<quorate::Digest> {
    state.digest_check(index).map(|check| quorate::Digest {
        chain: Bytes::copy_from_slice(&check.digests.chain.to_be_bytes()),
        content: Bytes::copy_from_slice(&check.digests.content.to_be_bytes()),
    })
}

impl DigestCheck {
    pub(super) fn new(node: Node, options: &DutyOptions) -> DigestCheck {
        DigestCheck { node, period: options.digest_period, next: Instant::now() }
    }

    async fn record(&self, tenure: &Tenure) -> Result<u64, DutyError> {
        let command = quorate::Command {
            fence: None,
            kind: Some(Kind::CheckDigest(quorate::CheckDigest {})),
        };
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let committed = self.node.propose_fenced(tenure, command, deadline).await?;
        let Response::DigestChecked { index } = committed.outcome? else {
            return Err(DutyError::Outcome);
        };
        Ok(index)
    }

    async fn collect(&self, index: u64, voters: &[u64]) -> Digests {
        let body = Bytes::from(quorate::DigestRequest { index }.encode_to_vec());
        let mut digests = Digests::new();
        let end = Instant::now() + ANSWER_WAIT_MAX;
        while digests.len() < voters.len() && Instant::now() < end {
            for voter in voters
                .iter()
                .filter(|voter| !digests.contains_key(voter))
                .copied()
                .collect::<Vec<_>>()
            {
                let deadline = Instant::now() + ASK_TIMEOUT;
                let answer =
                    self.node.ask(voter, Topic::Digest.into(), body.clone(), deadline).await;
                let answer = answer.ok().and_then(|body| quorate::DigestAnswer::decode(body).ok());
                if let Some(digest) = answer.and_then(|answer| answer.digest) {
                    digests.insert(voter, digest);
                }
            }
            if digests.len() < voters.len() {
                tokio::time::sleep(ANSWER_PAUSE).await;
            }
        }
        digests
    }

    async fn execute(
        &self,
        tenure: &Tenure,
        index: u64,
        verdict: Verdict,
    ) -> Result<(), DutyError> {
        match verdict {
            Verdict::Equal | Verdict::Unknown => Ok(()),
            Verdict::Minority { nodes, majority } => {
                tracing::error!(
                    index,
                    ?nodes,
                    "nodes differ from the majority and go into quarantine"
                );
                for node in &nodes {
                    quarantine::set(&self.node, tenure, *node, AlarmAction::Activate).await?;
                }
                // A leader that is wrong itself hands over before it goes.
                if nodes.contains(&tenure.node) {
                    let deadline = Instant::now() + PROPOSE_TIMEOUT;
                    if let Err(error) = self.node.transfer_leader(None, deadline).await {
                        tracing::warn!(%error, "leadership was not handed over");
                    }
                }
                let verdict = quorate::DigestVerdict { index, majority: Some(majority) };
                let body = Bytes::from(verdict.encode_to_vec());
                for node in nodes {
                    let deadline = Instant::now() + ASK_TIMEOUT;
                    self.node
                        .ask(node, Topic::DigestVerdict.into(), body.clone(), deadline)
                        .await?;
                }
                Ok(())
            }
            Verdict::NoMajority => {
                tracing::error!(index, "voters differ and no majority agrees: writes stop");
                // Of the cluster: which member is wrong cannot be known.
                quarantine::set(&self.node, tenure, CLUSTER, AlarmAction::Activate).await?;
                Ok(())
            }
        }
    }
}

impl Duty for DigestCheck {
    const NAME: &'static str = "duty-digest";

    fn period(&self) -> Duration {
        self.period.min(PERIOD_WITH_ALARM)
    }

    async fn round(&mut self, tenure: &Tenure) -> Result<(), DutyError> {
        let alarmed = self.node.local_view().read(quarantine::corrupt_members);
        if alarmed.is_empty() && Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + self.period;
        let voters: Vec<u64> =
            self.node.status().borrow().voters().map(|member| member.id).collect();
        let index = self.record(tenure).await?;
        let digests = self.collect(index, &voters).await;
        let verdict = judge(voters.len(), &digests);
        tracing::debug!(index, ?verdict, answered = digests.len(), "digests compared");
        for member in alarmed.into_iter().filter(|member| is_cleared(*member, &digests, &verdict)) {
            tracing::info!(node = member, "a member agrees with the majority: CORRUPT is cleared");
            quarantine::set(&self.node, tenure, member, AlarmAction::Deactivate).await?;
        }
        self.execute(tenure, index, verdict).await
    }
}

/// Whether a member is known to hold what the majority holds.
fn is_cleared(member: u64, digests: &Digests, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Equal => digests.contains_key(&member),
        Verdict::Minority { majority, .. } => digests.get(&member) == Some(majority),
        Verdict::Unknown | Verdict::NoMajority => false,
    }
}

fn judge(n_voters: usize, digests: &Digests) -> Verdict {
    let mut nodes_by_digest: Vec<(&quorate::Digest, Vec<u64>)> = Vec::new();
    for (node, digest) in digests {
        match nodes_by_digest.iter_mut().find(|(known, _)| *known == digest) {
            Some((_, nodes)) => nodes.push(*node),
            None => nodes_by_digest.push((digest, vec![*node])),
        }
    }
    let majority = nodes_by_digest.iter().find(|(_, nodes)| nodes.len() > n_voters / 2);
    match (majority, nodes_by_digest.len()) {
        (Some(_), 1) => Verdict::Equal,
        (None, 0 | 1) => Verdict::Unknown,
        (Some((majority, right)), _) => Verdict::Minority {
            nodes: digests.keys().filter(|node| !right.contains(node)).copied().collect(),
            majority: (*majority).clone(),
        },
        // Some differ, but those who have not answered could still make a majority.
        (None, _) if digests.len() < n_voters => Verdict::Unknown,
        (None, _) => Verdict::NoMajority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: u8) -> quorate::Digest {
        quorate::Digest { chain: Bytes::from(vec![name]), content: Bytes::new() }
    }

    fn judged(n_voters: usize, names: &[(u64, u8)]) -> Verdict {
        judge(n_voters, &names.iter().map(|(node, name)| (*node, digest(*name))).collect())
    }

    #[test]
    fn a_majority_is_one_of_all_voters_not_of_those_who_answer() {
        assert_eq!(judged(3, &[(1, 7), (2, 7), (3, 7)]), Verdict::Equal);
        assert_eq!(judged(3, &[(1, 7), (2, 7)]), Verdict::Equal);
        assert_eq!(judged(3, &[(1, 7)]), Verdict::Unknown);
        assert_eq!(judged(3, &[(1, 7), (2, 8)]), Verdict::Unknown);
        assert_eq!(judged(3, &[(1, 7), (2, 8), (3, 9)]), Verdict::NoMajority);
        assert_eq!(judged(2, &[(1, 7), (2, 8)]), Verdict::NoMajority);
        let minority = Verdict::Minority { nodes: vec![2], majority: digest(7) };
        assert_eq!(judged(3, &[(1, 7), (2, 8), (3, 7)]), minority);
    }

    #[test]
    fn the_alarm_of_a_member_ends_when_it_is_known_to_agree() {
        let digests = |names: &[(u64, u8)]| -> Digests {
            names.iter().map(|(node, name)| (*node, digest(*name))).collect()
        };
        let all = digests(&[(1, 7), (2, 7), (3, 7)]);
        assert!(is_cleared(2, &all, &Verdict::Equal));
        let without = digests(&[(1, 7), (3, 7)]);
        assert!(!is_cleared(2, &without, &Verdict::Equal), "it has not answered");
        assert!(!is_cleared(2, &all, &Verdict::Unknown));
        let minority = Verdict::Minority { nodes: vec![3], majority: digest(7) };
        let differ = digests(&[(1, 7), (2, 7), (3, 8)]);
        assert!(is_cleared(2, &differ, &minority));
        assert!(!is_cleared(3, &differ, &minority));
    }
}
