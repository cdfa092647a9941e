//! Raises CORRUPT for a member that waits for the state of another one.
//!
//! The alarm of one member is for people to see and refuses nothing. The check of digests clears it
//! once the member agrees with the majority.

use std::time::Duration;

use proto::etcd::AlarmType;
use proto::etcd::alarm_request::AlarmAction;
use raft::{Node, Tenure, WaitsFor};
use statemachine::{AlarmKind, State};

use super::alarm;
use super::driver::{Duty, DutyError};

const PERIOD: Duration = Duration::from_secs(1);

/// The members of which CORRUPT is raised.
pub(super) fn corrupt_members(state: &State) -> Vec<u64> {
    let of_members =
        state.alarms().filter(|alarm| alarm.kind == AlarmKind::Corrupt && alarm.member != 0);
    of_members.map(|alarm| alarm.member).collect()
}

pub(super) async fn set(
    node: &Node,
    tenure: &Tenure,
    member: u64,
    action: AlarmAction,
) -> Result<(), DutyError> {
    alarm::set(node, tenure, (AlarmType::Corrupt, member), action).await
}

pub(super) struct QuarantineAlarm {
    node: Node,
}

impl QuarantineAlarm {
    pub(super) fn new(node: Node) -> QuarantineAlarm {
        QuarantineAlarm { node }
    }
}

impl Duty for QuarantineAlarm {
    const NAME: &'static str = "duty-quarantine";

    fn period(&self) -> Duration {
        PERIOD
    }

    async fn round(&mut self, tenure: &Tenure) -> Result<(), DutyError> {
        let raised = self.node.local_view().read(corrupt_members);
        for (member, trouble) in self.node.troubles() {
            if trouble.waits_for == WaitsFor::State && !raised.contains(&member) {
                tracing::warn!(node = member, reason = trouble.reason, "CORRUPT is raised");
                set(&self.node, tenure, member, AlarmAction::Activate).await?;
            }
        }
        Ok(())
    }
}
