//! The way of rows into segments: assignment, ticks, saved logs, checkpoints.

use std::sync::Arc;

use proto::milvus::{common, data};

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn assign_segment_id(
    _lead: &Arc<Lead>,
    _request: data::AssignSegmentIdRequest,
) -> Result<data::AssignSegmentIdResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "AssignSegmentID is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn report_data_node_tt_msgs(
    _lead: &Arc<Lead>,
    _request: data::ReportDataNodeTtMsgsRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "ReportDataNodeTtMsgs is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn save_binlog_paths(
    _lead: &Arc<Lead>,
    _request: data::SaveBinlogPathsRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "SaveBinlogPaths is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn update_channel_checkpoint(
    _lead: &Arc<Lead>,
    _request: data::UpdateChannelCheckpointRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "UpdateChannelCheckpoint is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn drop_virtual_channel(
    _lead: &Arc<Lead>,
    _request: data::DropVirtualChannelRequest,
) -> Result<data::DropVirtualChannelResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "DropVirtualChannel is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn update_segment_statistics(
    _lead: &Arc<Lead>,
    _request: data::UpdateSegmentStatisticsRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "UpdateSegmentStatistics is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn set_segment_state(
    _lead: &Arc<Lead>,
    _request: data::SetSegmentStateRequest,
) -> Result<data::SetSegmentStateResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "SetSegmentState is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn mark_segments_dropped(
    _lead: &Arc<Lead>,
    _request: data::MarkSegmentsDroppedRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "MarkSegmentsDropped is not served yet"))
}
