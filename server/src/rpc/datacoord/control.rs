//! What is asked about the coordinator itself: health, metrics, configuration.

mod system_info;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use proto::milvus::{common, data, internal, milvus};
use serde::Deserialize;
use statemachine::session::Role;
use statemachine::view::ServerId;

use crate::coordinator::failure::success;
use crate::coordinator::{Code, Coordinator, Failure, Lead};

/// Stands for a process that has no id yet.
const NO_SERVER: i64 = -1;

/// How long a node may take to say how it is. RootCoord asks for all of it every three seconds.
const NODE_WITHIN: Duration = Duration::from_secs(2);

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

/// Under which this component is named in metrics.
pub(super) fn component_name(coordinator: &Coordinator) -> String {
    let server = coordinator.lead().map_or(NO_SERVER, |lead| lead.server.0);
    format!("datacoord{server}")
}

/// Nobody reads that channel any more; the name is still asked for by old tools.
#[allow(clippy::unused_async, reason = "called like its neighbours")]
pub(super) async fn get_time_tick_channel(
    lead: &Arc<Lead>,
    _request: internal::GetTimeTickChannelRequest,
) -> Result<milvus::StringResponse, Failure> {
    Ok(channel_name(lead, &lead.settings().time_tick_channel))
}

/// There is none since 2.2; stock says it with the code of a missing channel.
#[allow(clippy::unused_async, reason = "called like its neighbours")]
pub(super) async fn get_statistics_channel(
    _lead: &Arc<Lead>,
    _request: internal::GetStatisticsChannelRequest,
) -> Result<milvus::StringResponse, Failure> {
    Err(Failure::refused(Code::ChannelNotFound, "no statistics channel[channel=no statistics]"))
}

#[allow(clippy::unused_async, reason = "called like its neighbours")]
pub(super) async fn get_segment_info_channel(
    lead: &Arc<Lead>,
    _request: data::GetSegmentInfoChannelRequest,
) -> Result<milvus::StringResponse, Failure> {
    Ok(channel_name(lead, &lead.settings().segment_info_channel))
}

fn channel_name(lead: &Lead, name: &str) -> milvus::StringResponse {
    let value = format!("{}-{name}", lead.settings().cluster);
    milvus::StringResponse { value, ..Default::default() }
}

/// The settings whose keys contain the pattern, as Milvus spells keys there: lower case.
#[allow(clippy::unused_async, reason = "called like its neighbours")]
pub(super) async fn show_configurations(
    lead: &Arc<Lead>,
    request: internal::ShowConfigurationsRequest,
) -> Result<internal::ShowConfigurationsResponse, Failure> {
    let pattern = request.pattern.to_ascii_lowercase();
    let pairs = lead.settings().effective.iter().filter_map(|(key, value)| {
        let key = key.to_ascii_lowercase();
        key.contains(&pattern).then(|| common::KeyValuePair { key, value: value.clone() })
    });
    Ok(internal::ShowConfigurationsResponse {
        configuations: pairs.collect(),
        ..Default::default()
    })
}

#[derive(Deserialize)]
struct MetricsRequest {
    metric_type: Option<String>,
}

/// What the quota of RootCoord and people's tools look at: this coordinator, and what every data
/// and index node says of itself. A node that does not answer is in it with its error.
pub(super) async fn get_metrics(
    lead: &Arc<Lead>,
    request: milvus::GetMetricsRequest,
) -> Result<milvus::GetMetricsResponse, Failure> {
    let asked: MetricsRequest = serde_json::from_str(&request.request).map_err(|error| {
        Failure::refused(Code::Unexpected, format!("failed to decode the request: {error}"))
    })?;
    match asked.metric_type.as_deref() {
        Some("system_info") => {}
        Some(other) => {
            let reason = format!("metric not found[metric={other}]");
            return Err(Failure::refused(Code::MetricNotFound, reason));
        }
        None => {
            let reason = "metric_type not found in request";
            return Err(Failure::refused(Code::Unexpected, reason));
        }
    }
    let view = lead.view().await?;
    let (data_nodes, index_nodes) = view.read(|state| {
        let sessions = state.views().sessions();
        let ids = |role| sessions.nodes(role).map(|(id, _)| id).collect::<Vec<ServerId>>();
        (ids(Role::DataNode), ids(Role::IndexNode))
    });
    let of_data_nodes = data_nodes.into_iter().map(|id| {
        let request = request.clone();
        async move {
            let answer = match lead.clients().data_node(id) {
                Ok(mut node) => node.metrics(request, NODE_WITHIN).await,
                Err(gone) => Err(gone),
            };
            system_info::of_node("datanode", id, answer.map(|answer| answer.response))
        }
    });
    let of_index_nodes = index_nodes.into_iter().map(|id| {
        let request = request.clone();
        async move {
            let answer = match lead.clients().index_node(id) {
                Ok(mut node) => node.metrics(request, NODE_WITHIN).await,
                Err(gone) => Err(gone),
            };
            system_info::of_node("indexnode", id, answer.map(|answer| answer.response))
        }
    });
    let (data_nodes, index_nodes) = tokio::join!(join_all(of_data_nodes), join_all(of_index_nodes));
    let response = system_info::of_cluster(lead, &view, data_nodes, index_nodes);
    Ok(milvus::GetMetricsResponse { response: response.to_string(), ..Default::default() })
}

/// Asks every data node how it is.
pub(super) async fn check_health(
    lead: &Arc<Lead>,
    _request: milvus::CheckHealthRequest,
) -> Result<milvus::CheckHealthResponse, Failure> {
    let view = lead.view().await?;
    let nodes: Vec<ServerId> = view
        .read(|state| state.views().sessions().nodes(Role::DataNode).map(|(id, _)| id).collect());
    let complaints = nodes.into_iter().map(|id| async move {
        let states = match lead.clients().data_node(id) {
            Ok(mut node) => node.component_states(NODE_WITHIN).await,
            Err(gone) => Err(gone),
        };
        match states {
            Ok(states) => {
                let code = states.state.map(|state| state.state_code()).unwrap_or_default();
                (code != common::StateCode::Healthy)
                    .then(|| format!("DataNode {id} is not healthy, its state is {code:?}"))
            }
            Err(error) => Some(error.to_string()),
        }
    });
    let reasons: Vec<String> = join_all(complaints).await.into_iter().flatten().collect();
    Ok(milvus::CheckHealthResponse {
        is_healthy: reasons.is_empty(),
        reasons,
        ..Default::default()
    })
}
