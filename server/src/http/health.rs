//! Health as probes ask for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use raft::{Consistency, NodeState, Role};
use serde_json::json;
use statemachine::{Alarm, AlarmKind};
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

/// What a probe may ask for, in etcd's words.
#[derive(Default)]
pub(super) struct Wishes {
    /// Alarms, or checks, that do not count.
    exclude: Vec<String>,
    /// Whether this node alone is meant, without the others.
    serializable: bool,
    verbose: bool,
}

impl Wishes {
    fn of(uri: &Uri) -> Wishes {
        let mut wishes = Wishes::default();
        let pairs = form_urlencoded(uri.query().unwrap_or_default());
        for (name, value) in pairs {
            match name.as_str() {
                "exclude" if !value.is_empty() => wishes.exclude.push(value),
                "serializable" => wishes.serializable = value == "true",
                "verbose" => wishes.verbose = true,
                _ => {}
            }
        }
        wishes
    }

    fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|excluded| excluded == name)
    }
}

/// The pairs of a query. Names and values of probes are plain words, so nothing is decoded.
fn form_urlencoded(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    })
}

/// In etcd's words: whether no alarm is raised, there is a leader, and a read gets through.
pub(super) async fn etcd_health(State(pages): State<Arc<Pages>>, uri: Uri) -> Response {
    let wishes = Wishes::of(&uri);
    let reason = ill_health(&pages, &wishes).await;
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

async fn ill_health(pages: &Pages, wishes: &Wishes) -> Option<String> {
    let alarm = pages.node.local_view().read(|state| {
        let names = state
            .alarms()
            .filter(|alarm| alarm.kind.is_of_etcd() && concerns(pages, *alarm))
            .map(|alarm| format!("{:?}", alarm.kind).to_uppercase());
        names.into_iter().find(|name| !wishes.excludes(name))
    });
    if let Some(name) = alarm {
        return Some(format!("ALARM {name}"));
    }
    if wishes.serializable {
        return serializable_read(pages).err();
    }
    if pages.node.status().borrow().leader.is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    linearizable_read(pages).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

/// A check of `/livez` or `/readyz`; each has a path of its own below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    /// The process runs: one that still waits for a cluster or replays its log is to be left
    /// alone, though it cannot be read yet.
    Running,
}

impl Check {
    /// As etcd names them.
    pub(super) fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead | Check::Running => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
        }
    }

    async fn run(self, pages: &Pages) -> Result<(), String> {
        match self {
            Check::DataCorruption => data_corruption(pages),
            Check::SerializableRead => serializable_read(pages),
            Check::LinearizableRead => linearizable_read(pages).await,
            Check::Running => running(pages),
        }
    }
}

/// Whether the process should be let alone.
pub(super) const LIVEZ: [Check; 1] = [Check::Running];
/// Whether clients should be sent here.
pub(super) const READYZ: [Check; 3] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead];

/// Runs checks as etcd 3.5.11 does: what fails is always named, what passes on `?verbose`.
pub(super) async fn checks(pages: Arc<Pages>, uri: Uri, checks: &'static [Check]) -> Response {
    let wishes = Wishes::of(&uri);
    let mut told = String::new();
    let mut good = true;
    for check in checks.iter().filter(|check| !wishes.excludes(check.name())) {
        match check.run(&pages).await {
            Ok(()) => told.push_str(&format!("[+]{} ok\n", check.name())),
            Err(reason) => {
                good = false;
                told.push_str(&format!("[-]{} failed: {reason}\n", check.name()));
            }
        }
    }
    match (good, wishes.verbose) {
        (true, true) => answer(StatusCode::OK, &format!("{told}ok")),
        (true, false) => answer(StatusCode::OK, "ok"),
        (false, _) => answer(StatusCode::SERVICE_UNAVAILABLE, told.trim_end()),
    }
}

fn running(pages: &Pages) -> Result<(), String> {
    match pages.node.status().borrow().role {
        Role::Stopped => Err("stopped".to_owned()),
        Role::Leader | Role::Follower | Role::Candidate | Role::Learner => Ok(()),
    }
}

/// The wrong state of another member is no reason to send clients away from this one.
fn concerns(pages: &Pages, alarm: Alarm) -> bool {
    alarm.kind != AlarmKind::Corrupt || alarm.member == 0 || alarm.member == pages.node.id()
}

fn data_corruption(pages: &Pages) -> Result<(), String> {
    let raised = pages.node.local_view().read(|state| {
        state.alarms().any(|it| it.kind == AlarmKind::Corrupt && concerns(pages, it))
    });
    if raised { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
}

fn serializable_read(pages: &Pages) -> Result<(), String> {
    let state = pages.node.status().borrow().state;
    if state >= NodeState::Keyspace { Ok(()) } else { Err(state.to_string()) }
}

async fn linearizable_read(pages: &Pages) -> Result<(), String> {
    // A node that knows no leader does not have to be waited for.
    if pages.node.status().borrow().leader.is_none() {
        return Err("no leader is known".to_owned());
    }
    let within = Instant::now() + HEALTH_WITHIN;
    match pages.node.view(Consistency::Linearizable, within).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this node leads, for load balancers that want only the leader.
pub(super) async fn leaderz(State(pages): State<Arc<Pages>>) -> Response {
    let status = pages.node.status();
    let status = status.borrow();
    if status.is_leader() && pages.node.tenure().borrow().is_some() {
        return answer(StatusCode::OK, "leader");
    }
    match &status.leader {
        Some(leader) => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{} leads, at {}", leader.meta.name, leader.meta.endpoints.client),
        ),
        None if status.is_without_quorum() => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "no leader: a majority does not acknowledge this node",
        ),
        None => answer(StatusCode::SERVICE_UNAVAILABLE, "no leader is known"),
    }
}

fn answer(code: StatusCode, text: &str) -> Response {
    (code, format!("{text}\n")).into_response()
}
