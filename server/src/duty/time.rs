//! Sets cluster time back where it is ahead of what a majority of the voters' clocks says.
//!
//! Cluster time follows the voters' clocks at a bounded rate (`raft`), so this is for what drew it far
//! ahead: clocks of a majority that were wrong and have been set right.

use std::time::Duration;

use proto::quorate;
use proto::quorate::command::Kind;
use raft::{Node, Tenure};
use statemachine::{Response, limits, versions};
use tokio::time::Instant;

use super::DutyOptions;
use super::driver::{Duty, DutyError};

const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// One command clips so many records at most that the next round would be too late for the rest.
const COMMANDS_PER_ROUND_MAX: usize = 1_000;

pub(super) struct SetTime {
    node: Node,
    period: Duration,
    /// The last command left records to clip.
    more: bool,
}

impl SetTime {
    pub(super) fn new(node: Node, options: &DutyOptions) -> SetTime {
        SetTime { node, period: options.time_period, more: false }
    }
}

impl Duty for SetTime {
    const NAME: &'static str = "duty-time";

    fn period(&self) -> Duration {
        self.period
    }

    async fn round(&mut self, tenure: &Tenure) -> Result<(), DutyError> {
        let level = self.node.local_view().read(statemachine::State::level);
        if level < versions::HARDENING {
            return Ok(());
        }
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            let Some(at_ms) = target(self.node.now_ms(), self.node.time_ahead_ms(), self.more)
            else {
                return Ok(());
            };
            let set = Kind::SetTime(quorate::SetTime { at_ms });
            let command = quorate::Command { fence: None, kind: Some(set) };
            let deadline = Instant::now() + PROPOSE_TIMEOUT;
            let outcome = self.node.propose_fenced(tenure, command, deadline).await?.outcome?;
            let Response::TimeSet { at_ms, clipped, more } = outcome else {
                return Err(DutyError::Outcome);
            };
            tracing::warn!(at_ms, clipped, more, "cluster time was ahead and is set back");
            self.more = more;
        }
        Ok(())
    }
}

/// The time to set; `None` where it is right.
fn target(now_ms: u64, ahead_ms: Option<i64>, more: bool) -> Option<u64> {
    let ahead_ms = u64::try_from(ahead_ms.unwrap_or(0)).unwrap_or(0);
    if ahead_ms > limits::TIME_SET_BACK_MIN_MS {
        return Some(now_ms.saturating_sub(ahead_ms));
    }
    // Records that were clipped to an earlier time are not ahead of this one.
    more.then_some(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_set_back_only_where_it_is_far_ahead_and_until_no_record_is_left() {
        let limit = i64::try_from(limits::TIME_SET_BACK_MIN_MS).unwrap();
        assert_eq!(target(1_000_000, Some(limit), false), None);
        assert_eq!(
            target(1_000_000, Some(limit + 1), false),
            Some(999_999 - limits::TIME_SET_BACK_MIN_MS)
        );
        assert_eq!(target(1_000_000, Some(-limit - 1), false), None, "a time behind is slewed");
        assert_eq!(target(1_000_000, None, false), None);
        assert_eq!(target(1_000_000, Some(0), true), Some(1_000_000));
    }
}
