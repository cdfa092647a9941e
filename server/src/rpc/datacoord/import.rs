//! Bulk import, as far as the coordinator has a part in it.

use std::sync::Arc;

use proto::milvus::{common, data};

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn import(
    _lead: &Arc<Lead>,
    _request: data::ImportTaskRequest,
) -> Result<data::ImportTaskResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "Import is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn save_import_segment(
    _lead: &Arc<Lead>,
    _request: data::SaveImportSegmentRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "SaveImportSegment is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn unset_is_importing_state(
    _lead: &Arc<Lead>,
    _request: data::UnsetIsImportingStateRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "UnsetIsImportingState is not served yet"))
}
