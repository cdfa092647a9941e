//! What is asked about the coordinator itself: health, metrics, configuration.

use std::sync::Arc;

use proto::milvus::{common, data, internal, milvus};

use crate::coordinator::failure::success;
use crate::coordinator::{Code, Coordinator, Failure, Lead};

/// Stands for a process that has no id yet.
const NO_SERVER: i64 = -1;

/// Answered by every node, whether it leads or not.
pub(super) fn component_states(coordinator: &Coordinator) -> milvus::ComponentStates {
    let (node_id, state) = match coordinator.lead() {
        Ok(lead) => (lead.server.0, common::StateCode::Healthy),
        Err(_) => (NO_SERVER, common::StateCode::StandBy),
    };
    let state = milvus::ComponentInfo {
        node_id,
        role: "datacoord".to_owned(),
        state_code: state.into(),
        extra_info: Vec::new(),
    };
    milvus::ComponentStates {
        state: Some(state),
        subcomponent_states: Vec::new(),
        status: Some(success()),
    }
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_time_tick_channel(
    _lead: &Arc<Lead>,
    _request: internal::GetTimeTickChannelRequest,
) -> Result<milvus::StringResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetTimeTickChannel is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_statistics_channel(
    _lead: &Arc<Lead>,
    _request: internal::GetStatisticsChannelRequest,
) -> Result<milvus::StringResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetStatisticsChannel is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_segment_info_channel(
    _lead: &Arc<Lead>,
    _request: data::GetSegmentInfoChannelRequest,
) -> Result<milvus::StringResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetSegmentInfoChannel is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn show_configurations(
    _lead: &Arc<Lead>,
    _request: internal::ShowConfigurationsRequest,
) -> Result<internal::ShowConfigurationsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "ShowConfigurations is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn get_metrics(
    _lead: &Arc<Lead>,
    _request: milvus::GetMetricsRequest,
) -> Result<milvus::GetMetricsResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "GetMetrics is not served yet"))
}

#[allow(clippy::unused_async, reason = "to be filled in")]
pub(super) async fn check_health(
    _lead: &Arc<Lead>,
    _request: milvus::CheckHealthRequest,
) -> Result<milvus::CheckHealthResponse, Failure> {
    Err(Failure::refused(Code::Unexpected, "CheckHealth is not served yet"))
}
