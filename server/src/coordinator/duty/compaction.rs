//! Compaction: plans what pays, has data nodes execute it, completes it.
//!
//! A plan is on record before its node hears of it. Whoever leads finds the plans there and the
//! results at the nodes, and needs nothing else.

mod candidates;
mod completion;
mod dispatch;
pub(crate) mod execution;
pub(crate) mod planning;
pub(crate) mod policy;
mod results;

use proto::quorate::compaction_command::Kind;
use proto::quorate::{CompactionState, EndCompaction};

use crate::coordinator::{Failure, Lead};

/// Ends a plan, and says so.
async fn end(lead: &Lead, plan: i64, state: CompactionState, reason: &str) -> Result<(), Failure> {
    if state == CompactionState::Synced {
        tracing::info!(plan, reason, "compaction finished");
    } else {
        tracing::warn!(plan, reason, state = state.as_str_name(), "compaction ended");
    }
    let end =
        EndCompaction { plan, state: state.into(), reason: reason.to_owned(), overdue: false };
    lead.propose_compaction(Kind::End(end)).await?;
    Ok(())
}
