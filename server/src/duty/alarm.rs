//! Raises and clears alarms under the fence of a tenure.

use std::time::Duration;

use proto::etcd;
use proto::etcd::alarm_request::AlarmAction;
use proto::quorate;
use proto::quorate::command::Kind;
use raft::{Node, Tenure};
use tokio::time::Instant;

use super::driver::DutyError;

const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sets the alarm of a kind and a member; member 0 is the cluster.
pub(super) async fn set(
    node: &Node,
    tenure: &Tenure,
    (kind, member_id): (etcd::AlarmType, u64),
    action: AlarmAction,
) -> Result<(), DutyError> {
    let alarm = etcd::AlarmRequest { action: action.into(), member_id, alarm: kind.into() };
    let command = quorate::Command { fence: None, kind: Some(Kind::Alarm(alarm)) };
    let deadline = Instant::now() + PROPOSE_TIMEOUT;
    node.propose_fenced(tenure, command, deadline).await?.outcome?;
    Ok(())
}
