//! Compaction by hand, and how far it is.

use std::sync::Arc;

use proto::milvus::milvus;

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn manual_compaction(
    _lead: &Arc<Lead>,
    _request: milvus::ManualCompactionRequest,
) -> Result<milvus::ManualCompactionResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "ManualCompaction is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_compaction_state(
    _lead: &Arc<Lead>,
    _request: milvus::GetCompactionStateRequest,
) -> Result<milvus::GetCompactionStateResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetCompactionState is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_compaction_state_with_plans(
    _lead: &Arc<Lead>,
    _request: milvus::GetCompactionPlansRequest,
) -> Result<milvus::GetCompactionPlansResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetCompactionStateWithPlans is not served yet"))
}
