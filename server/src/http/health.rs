//! Health as probes ask for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use raft::{Consistency, NodeState, Role};
use serde_json::json;
use tokio::time::Instant;

use crate::rpc::etcd::ETCD_VERSION;

use super::Pages;

/// How long `/health` may wait for the leader.
const HEALTH_WITHIN: Duration = Duration::from_secs(2);

/// The versions that etcd's clients compare, and ours.
pub(super) async fn version() -> Json<serde_json::Value> {
    Json(json!({
        "etcdserver": ETCD_VERSION,
        "etcdcluster": "3.5.0",
        "quorate": env!("CARGO_PKG_VERSION"),
    }))
}

/// In etcd's words: whether a linearizable read gets through, and no alarm is raised.
pub(super) async fn etcd_health(State(pages): State<Arc<Pages>>) -> Response {
    let reason =
        match pages.node.view(Consistency::Linearizable, Instant::now() + HEALTH_WITHIN).await {
            Ok(view) => view.read(|state| {
                state.alarms().next().map(|alarm| format!("ALARM {:?}", alarm.kind).to_uppercase())
            }),
            Err(error) => Some(error.to_string()),
        };
    let code = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "health": if reason.is_none() { "true" } else { "false" },
        "reason": reason.unwrap_or_default(),
    });
    (code, Json(body)).into_response()
}

/// Whether the process should be let alone. One that waits for a cluster is alive.
pub(super) async fn livez(State(pages): State<Arc<Pages>>) -> Response {
    let role = pages.node.status().borrow().role;
    match role {
        Role::Stopped => answer(StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        Role::Leader | Role::Follower | Role::Candidate | Role::Learner => {
            answer(StatusCode::OK, "ok")
        }
    }
}

/// Whether clients should be sent here.
pub(super) async fn readyz(State(pages): State<Arc<Pages>>) -> Response {
    let status = pages.node.status();
    let status = status.borrow();
    match (status.state >= NodeState::Keyspace, &status.leader) {
        (true, Some(_)) => answer(StatusCode::OK, "ok"),
        (true, None) => answer(StatusCode::SERVICE_UNAVAILABLE, "no leader is known"),
        (false, _) => answer(StatusCode::SERVICE_UNAVAILABLE, &status.state.to_string()),
    }
}

/// Whether this node leads, for load balancers that want only the leader.
pub(super) async fn leaderz(State(pages): State<Arc<Pages>>) -> Response {
    if pages.node.tenure().borrow().is_some() {
        return answer(StatusCode::OK, "leader");
    }
    let status = pages.node.status();
    let status = status.borrow();
    match &status.leader {
        Some(leader) => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{} leads, at {}", leader.meta.name, leader.meta.endpoints.client),
        ),
        None => answer(StatusCode::SERVICE_UNAVAILABLE, "no leader is known"),
    }
}

fn answer(code: StatusCode, text: &str) -> Response {
    (code, format!("{text}\n")).into_response()
}
