//! What other components load and show: segments, recovery, statistics.

use std::sync::Arc;

use proto::milvus::data;

use crate::coordinator::{Code, Failure, Lead};

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_segment_info(
    _lead: &Arc<Lead>,
    _request: data::GetSegmentInfoRequest,
) -> Result<data::GetSegmentInfoResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetSegmentInfo is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_segment_states(
    _lead: &Arc<Lead>,
    _request: data::GetSegmentStatesRequest,
) -> Result<data::GetSegmentStatesResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetSegmentStates is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_insert_binlog_paths(
    _lead: &Arc<Lead>,
    _request: data::GetInsertBinlogPathsRequest,
) -> Result<data::GetInsertBinlogPathsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetInsertBinlogPaths is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_collection_statistics(
    _lead: &Arc<Lead>,
    _request: data::GetCollectionStatisticsRequest,
) -> Result<data::GetCollectionStatisticsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetCollectionStatistics is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_partition_statistics(
    _lead: &Arc<Lead>,
    _request: data::GetPartitionStatisticsRequest,
) -> Result<data::GetPartitionStatisticsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetPartitionStatistics is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_recovery_info(
    _lead: &Arc<Lead>,
    _request: data::GetRecoveryInfoRequest,
) -> Result<data::GetRecoveryInfoResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetRecoveryInfo is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_recovery_info_v2(
    _lead: &Arc<Lead>,
    _request: data::GetRecoveryInfoRequestV2,
) -> Result<data::GetRecoveryInfoResponseV2, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetRecoveryInfoV2 is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_flushed_segments(
    _lead: &Arc<Lead>,
    _request: data::GetFlushedSegmentsRequest,
) -> Result<data::GetFlushedSegmentsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetFlushedSegments is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_segments_by_states(
    _lead: &Arc<Lead>,
    _request: data::GetSegmentsByStatesRequest,
) -> Result<data::GetSegmentsByStatesResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetSegmentsByStates is not served yet"))
}
