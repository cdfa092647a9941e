//! What garbage collection tells, and how it is paused.

use std::sync::Arc;

use proto::milvus::{common, data};

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn gc_confirm(
    _lead: &Arc<Lead>,
    _request: data::GcConfirmRequest,
) -> Result<data::GcConfirmResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GcConfirm is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn gc_control(
    _lead: &Arc<Lead>,
    _request: data::GcControlRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "GcControl is not served yet"))
}
