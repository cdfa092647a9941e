//! Raises the feature level of a cluster once every member knows a higher one.
//!
//! An upgrade needs no command: as soon as the last node runs the newer release, its leader raises
//! the level. A member that does not answer holds it back, because an older binary stops at an entry
//! of a level that it does not know.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::quorate;
use proto::quorate::command::Kind;
use raft::{Node, Tenure};
use statemachine::versions::KNOWN_LEVEL;
use tokio::time::Instant;

use super::DutyOptions;
use super::driver::{Duty, DutyError};
use crate::rpc::peer::Topic;

const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Level {
    node: Node,
    period: Duration,
}

impl Level {
    pub(super) fn new(node: Node, options: &DutyOptions) -> Level {
        Level { node, period: options.level_period }
    }

    /// The highest level that each member knows; `None` of one that does not say.
    async fn known_levels(&self) -> Vec<Option<u32>> {
        let members: Vec<u64> =
            self.node.status().borrow().members.iter().map(|member| member.id).collect();
        let body = Bytes::from(quorate::LevelRequest {}.encode_to_vec());
        let answers = members.into_iter().map(|member| {
            self.node.ask(member, Topic::Level.into(), body.clone(), Instant::now() + ASK_TIMEOUT)
        });
        let answers = futures::future::join_all(answers).await;
        let known = |body: Bytes| quorate::LevelAnswer::decode(body).ok().map(|one| one.known);
        answers.into_iter().map(|answer| answer.ok().and_then(known)).collect()
    }
}

impl Duty for Level {
    const NAME: &'static str = "duty-level";

    fn period(&self) -> Duration {
        self.period
    }

    async fn round(&mut self, tenure: &Tenure) -> Result<(), DutyError> {
        let level = self.node.local_view().read(statemachine::State::level);
        if level >= KNOWN_LEVEL {
            return Ok(());
        }
        let Some(common) = common_level(&self.known_levels().await) else { return Ok(()) };
        if common <= level {
            return Ok(());
        }
        let raise = Kind::RaiseLevel(quorate::RaiseLevel { level: common });
        let command = quorate::Command { fence: None, kind: Some(raise) };
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        self.node.propose_fenced(tenure, command, deadline).await?.outcome?;
        tracing::info!(from = level, to = common, "feature level raised");
        Ok(())
    }
}

/// The highest level that all members know; `None` where one has not said.
fn common_level(known: &[Option<u32>]) -> Option<u32> {
    let known: Option<Vec<u32>> = known.iter().copied().collect();
    // The leader itself is among the members, and proposes nothing that it does not know.
    known?.into_iter().min().map(|common| common.min(KNOWN_LEVEL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_rises_to_what_every_member_knows_and_waits_for_the_silent() {
        let newest = Some(KNOWN_LEVEL);
        assert_eq!(common_level(&[newest, newest, newest]), newest);
        assert_eq!(common_level(&[newest, Some(2), newest]), Some(2));
        assert_eq!(common_level(&[newest, None, newest]), None);
        assert_eq!(common_level(&[newest, Some(KNOWN_LEVEL + 1)]), newest);
        assert_eq!(common_level(&[]), None);
    }
}
