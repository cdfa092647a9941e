//! Milvus's things as JSON, on any node; and the few actions that operators call over HTTP, which
//! are passed on to the leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use proto::admin::{InspectRequest, Question};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Pages;
use crate::admin::service::act;
use crate::coordinator::{Failure, Lead};
use crate::edge::brief::cut;
use crate::inspect::{self, InspectError, Known};

pub(super) fn routes() -> Router<Arc<Pages>> {
    // Milvus's own paths take both methods: its backup tool sends GET.
    let pause = get(pause).post(self::pause);
    let resume = get(resume).post(self::resume);
    Router::new()
        .route("/api/v1/config", get(config))
        .route("/api/v1/compaction", post(compact))
        .route("/api/v1/explain/{subject}/{id}", get(explain))
        .route("/api/v1/{subject}", get(list))
        .route("/api/v1/{subject}/{id}", get(show))
        .route("/management/datacoord/garbage_collection/pause", pause)
        .route("/management/datacoord/garbage_collection/resume", resume)
}

/// The coordinator's settings by Milvus's keys, with their units.
async fn config(State(pages): State<Arc<Pages>>) -> Response {
    let Some(coordinator) = &pages.coordinator else { return no_role() };
    let pairs: serde_json::Map<String, Value> = coordinator
        .settings
        .effective
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::from(value.clone())))
        .collect();
    Json(json!(pairs)).into_response()
}

#[derive(Deserialize)]
struct Filters {
    #[serde(default)]
    collection: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    limit: u32,
    #[serde(default)]
    local: bool,
}

async fn list(
    State(pages): State<Arc<Pages>>,
    Path(subject): Path<String>,
    Query(filters): Query<Filters>,
) -> Response {
    let request = InspectRequest {
        question: Question::List.into(),
        collection: filters.collection,
        channel: filters.channel,
        state: filters.state,
        limit: filters.limit,
        local: filters.local,
        ..InspectRequest::default()
    };
    look(&pages, &subject, request).await
}

async fn show(
    State(pages): State<Arc<Pages>>,
    Path((subject, id)): Path<(String, String)>,
) -> Response {
    let request =
        InspectRequest { question: Question::Show.into(), id, ..InspectRequest::default() };
    look(&pages, &subject, request).await
}

async fn explain(
    State(pages): State<Arc<Pages>>,
    Path((subject, id)): Path<(String, String)>,
) -> Response {
    let request =
        InspectRequest { question: Question::Explain.into(), id, ..InspectRequest::default() };
    look(&pages, &subject, request).await
}

async fn look(pages: &Pages, subject: &str, request: InspectRequest) -> Response {
    let Some(subject) = inspect::subject(subject) else {
        return refuse(
            StatusCode::NOT_FOUND,
            &format!("nothing is called `{}`", cut(subject, 100)),
        );
    };
    let request = InspectRequest { subject: subject.into(), ..request };
    let settings = match &pages.coordinator {
        Some(coordinator) => Arc::clone(&coordinator.settings),
        None => Arc::default(),
    };
    let known = Known::by(pages.coordinator.as_ref(), &request);
    match inspect::answer(&pages.node, &settings, known, &request).await {
        Ok(sheet) => Json(inspect::json(&sheet)).into_response(),
        Err(error) => {
            let code = match &error {
                InspectError::Invalid(_) => StatusCode::BAD_REQUEST,
                InspectError::NotFound(_) => StatusCode::NOT_FOUND,
                InspectError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refuse(code, &error.to_string())
        }
    }
}

#[derive(Deserialize)]
struct Compaction {
    /// Name or id.
    collection: Value,
}

async fn compact(
    State(pages): State<Arc<Pages>>,
    uri: http::Uri,
    Json(request): Json<Compaction>,
) -> Response {
    let lead = match lead(&pages, &uri) {
        Ok(lead) => lead,
        Err(response) => return *response,
    };
    // An id, or a name as text.
    let named = request.collection.as_str().map(str::to_owned);
    let collection = named.unwrap_or_else(|| request.collection.to_string());
    done(act::compact(&lead, &collection).await)
}

async fn pause(
    State(pages): State<Arc<Pages>>,
    uri: http::Uri,
    headers: HeaderMap,
    Query(params): Query<BTreeMap<String, String>>,
) -> Response {
    if let Some(refusal) = from_a_page(&headers) {
        return refusal;
    }
    let lead = match lead(&pages, &uri) {
        Ok(lead) => lead,
        Err(response) => return *response,
    };
    match params.get("pause_seconds").and_then(|text| text.parse::<u64>().ok()) {
        Some(seconds) if seconds > 0 => {
            done(act::pause_garbage(&lead, seconds).await.map(|()| "OK".to_owned()))
        }
        Some(_) | None => {
            refuse(StatusCode::BAD_REQUEST, "pause_seconds must be a whole number above 0")
        }
    }
}

async fn resume(State(pages): State<Arc<Pages>>, uri: http::Uri, headers: HeaderMap) -> Response {
    if let Some(refusal) = from_a_page(&headers) {
        return refusal;
    }
    match lead(&pages, &uri) {
        Ok(lead) => done(act::pause_garbage(&lead, 0).await.map(|()| "OK".to_owned())),
        Err(response) => *response,
    }
}

/// Refuses what the page of another site, or a browser that fetches ahead, has sent: an action
/// that a GET can carry out must not follow from looking at a link. Browsers say so themselves.
fn from_a_page(headers: &HeaderMap) -> Option<Response> {
    let site = headers.get("sec-fetch-site")?;
    // Typed by a person, or sent by a page of this very node.
    let is_own = site == "same-origin" || site == "none";
    let is_meant = is_own && headers.get("sec-purpose").is_none();
    (!is_meant).then(|| {
        refuse(StatusCode::FORBIDDEN, "sent by the page of another site: use curl or `quorate gc`")
    })
}

/// This node's lead, or the way to the node that has it.
fn lead(pages: &Pages, uri: &http::Uri) -> Result<Arc<Lead>, Box<Response>> {
    let Some(coordinator) = &pages.coordinator else { return Err(Box::new(no_role())) };
    if let Ok(lead) = coordinator.lead() {
        return Ok(lead);
    }
    let status = pages.node.status();
    let leader = status.borrow().leader.clone();
    Err(Box::new(match leader {
        Some(leader) if leader.id != pages.node.id() => {
            Redirect::temporary(&format!("http://{}{uri}", leader.meta.endpoints.http))
                .into_response()
        }
        Some(_) | None => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "no node leads as the coordinator")
        }
    }))
}

fn done(outcome: Result<String, Failure>) -> Response {
    match outcome {
        Ok(told) => Json(json!({ "msg": told })).into_response(),
        Err(Failure::Refused { reason, .. }) => refuse(StatusCode::BAD_REQUEST, &reason),
        Err(failure @ (Failure::NotLeader | Failure::Unavailable(_) | Failure::Unknown(_))) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string())
        }
    }
}

fn no_role() -> Response {
    refuse(StatusCode::NOT_FOUND, "this node runs without --coordinator datacoord")
}

fn refuse(code: StatusCode, text: &str) -> Response {
    (code, Json(json!({ "error": text }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_not_taken_for_the_page_of_another_site() {
        let refused = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            from_a_page(&headers.collect()).is_some()
        };
        assert!(!refused(&[]), "curl and Milvus's backup tool");
        assert!(!refused(&[("sec-fetch-site", "none")]));
        assert!(refused(&[("sec-fetch-site", "cross-site")]));
        assert!(refused(&[("sec-fetch-site", "same-site")]));
        assert!(refused(&[("sec-fetch-site", "none"), ("sec-purpose", "prefetch")]));
    }
}
