//! Definitions of indexes and what is known of their builds.

use std::sync::Arc;

use proto::milvus::{common, index};

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn create_index(
    _lead: &Arc<Lead>,
    _request: index::CreateIndexRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "CreateIndex is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_index_state(
    _lead: &Arc<Lead>,
    _request: index::GetIndexStateRequest,
) -> Result<index::GetIndexStateResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetIndexState is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_segment_index_state(
    _lead: &Arc<Lead>,
    _request: index::GetSegmentIndexStateRequest,
) -> Result<index::GetSegmentIndexStateResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetSegmentIndexState is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_index_infos(
    _lead: &Arc<Lead>,
    _request: index::GetIndexInfoRequest,
) -> Result<index::GetIndexInfoResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetIndexInfos is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn drop_index(
    _lead: &Arc<Lead>,
    _request: index::DropIndexRequest,
) -> Result<common::Status, Failure> {
    Err(Failure::refused(Code::Unexpected, "DropIndex is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn describe_index(
    _lead: &Arc<Lead>,
    _request: index::DescribeIndexRequest,
) -> Result<index::DescribeIndexResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "DescribeIndex is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_index_statistics(
    _lead: &Arc<Lead>,
    _request: index::GetIndexStatisticsRequest,
) -> Result<index::GetIndexStatisticsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetIndexStatistics is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_index_build_progress(
    _lead: &Arc<Lead>,
    _request: index::GetIndexBuildProgressRequest,
) -> Result<index::GetIndexBuildProgressResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetIndexBuildProgress is not served yet"))
}
