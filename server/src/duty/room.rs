//! Raises NOSPACE while fewer than a majority of the voters have room on their disks, and clears it.
//!
//! The alarm of this cause is that of member 0, which is no node: alarms of the quota carry the id
//! of the leader that met it, and stay until an operator clears them.

use std::time::Duration;

use proto::etcd::AlarmType;
use proto::etcd::alarm_request::AlarmAction;
use raft::{Node, Tenure};
use statemachine::{AlarmKind, State};

use super::alarm;
use super::driver::{Duty, DutyError};

const PERIOD: Duration = Duration::from_millis(200);
/// Rounds in a row with room before the alarm is cleared, so that it does not flap.
const ROUNDS_WITH_ROOM: u32 = 5;
/// The member whose alarm it is.
const NO_MEMBER: u64 = 0;

/// Whether writes are refused because of full disks.
pub(crate) fn is_full(state: &State) -> bool {
    state.alarms().any(|alarm| alarm.kind == AlarmKind::NoSpace && alarm.member == NO_MEMBER)
}

pub(super) struct RoomAlarm {
    node: Node,
    rounds_with_room: u32,
}

impl RoomAlarm {
    pub(super) fn new(node: Node) -> RoomAlarm {
        RoomAlarm { node, rounds_with_room: 0 }
    }

    async fn set(&self, tenure: &Tenure, action: AlarmAction) -> Result<(), DutyError> {
        alarm::set(&self.node, tenure, (AlarmType::Nospace, NO_MEMBER), action).await
    }
}

impl Duty for RoomAlarm {
    const NAME: &'static str = "duty-room";

    fn period(&self) -> Duration {
        PERIOD
    }

    async fn round(&mut self, tenure: &Tenure) -> Result<(), DutyError> {
        let is_raised = self.node.local_view().read(is_full);
        if self.node.is_tight() {
            self.rounds_with_room = 0;
            if !is_raised {
                tracing::warn!("fewer than a majority have room on their disks: NOSPACE is raised");
                self.set(tenure, AlarmAction::Activate).await?;
            }
            return Ok(());
        }
        self.rounds_with_room = self.rounds_with_room.saturating_add(1);
        if is_raised && self.rounds_with_room >= ROUNDS_WITH_ROOM {
            tracing::info!("a majority has room on its disks again: NOSPACE is cleared");
            self.set(tenure, AlarmAction::Deactivate).await?;
        }
        Ok(())
    }
}
