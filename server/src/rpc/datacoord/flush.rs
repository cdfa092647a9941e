//! Flush, and whether it is done.

use std::sync::Arc;

use proto::milvus::{data, milvus};

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn flush(
    _lead: &Arc<Lead>,
    _request: data::FlushRequest,
) -> Result<data::FlushResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "Flush is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_flush_state(
    _lead: &Arc<Lead>,
    _request: data::GetFlushStateRequest,
) -> Result<milvus::GetFlushStateResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetFlushState is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_flush_all_state(
    _lead: &Arc<Lead>,
    _request: milvus::GetFlushAllStateRequest,
) -> Result<milvus::GetFlushAllStateResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetFlushAllState is not served yet"))
}
