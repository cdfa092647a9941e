//! What a person looks at when something is odd, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Html;
use serde_json::{Value, json};

use super::Pages;

pub(super) async fn index(State(pages): State<Arc<Pages>>) -> Html<String> {
    let paths = [
        "/livez",
        "/readyz",
        "/leaderz",
        "/health",
        "/version",
        "/metrics",
        "/debug/status",
        "/debug/config",
        "/debug/settings",
        "/debug/views",
        "/api/v1/config",
        "/api/v1/segments",
        "/api/v1/channels",
        "/api/v1/compactions",
        "/api/v1/indexes",
        "/api/v1/imports",
        "/api/v1/gc",
    ];
    let links: Vec<String> =
        paths.iter().map(|path| format!("<li><a href=\"{path}\">{path}</a></li>")).collect();
    Html(format!(
        "<!doctype html><title>quorate {name}</title><h1>quorate {name}</h1><ul>{links}</ul>",
        name = pages.config.name,
        links = links.concat()
    ))
}

pub(super) async fn status(State(pages): State<Arc<Pages>>) -> Json<Value> {
    let status = pages.node.status().borrow().clone();
    let members: Vec<Value> = status
        .members
        .iter()
        .map(|member| {
            let progress = status.peers.get(&member.id);
            json!({
                "id": format!("{:016x}", member.id),
                "name": member.meta.name,
                "voter": member.voter,
                "peer": member.meta.endpoints.peer,
                "client": member.meta.endpoints.client,
                "http": member.meta.endpoints.http,
                "matched_index": progress.map(|progress| progress.matched),
                "forgot": progress.map(|progress| progress.forgot),
                "lag_entries": progress.map(|progress| progress.lag_entries),
                "silent_ms": progress
                    .and_then(|progress| progress.silent)
                    .map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
            })
        })
        .collect();
    Json(json!({
        "node": format!("{:016x}", status.node),
        "name": status.name,
        "cluster": format!("{:016x}", status.cluster),
        "state": status.state.to_string(),
        "role": status.role.to_string(),
        "term": status.term,
        "leader": status.leader.as_ref().map(|leader| leader.meta.name.clone()),
        "leader_since_ms": status.leader_since_unix_ms,
        "last_log_index": status.last_log_index,
        "committed_index": status.committed_index,
        "applied_index": status.applied.index,
        "snapshot_index": status.snapshot_index,
        "purged_index": status.purged_index,
        "joint": status.joint,
        "members": members,
        "uptime_ms": u64::try_from(pages.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// The effective configuration with the source of each value.
pub(super) async fn config(State(pages): State<Arc<Pages>>) -> Json<Value> {
    Json(json!(pages.config.effective))
}

pub(super) async fn settings(State(pages): State<Arc<Pages>>) -> Json<Value> {
    Json(pages.node.local_view().read(|state| {
        let settings = state.settings();
        json!({
            "root_path": settings.root_path,
            "quota_bytes": settings.quota_bytes,
            "retention_revisions": settings.retention_revisions,
            "retention_ms": settings.retention_ms,
            "feature_level": state.level(),
            "revision": state.revision(),
            "compacted_revision": state.compacted_revision(),
            "alarms": state.alarms().map(|alarm| format!("{:?}", alarm.kind)).collect::<Vec<_>>(),
        })
    }))
}

/// Rows of one kind that a page shows at most: it is made under the state's read lock.
const ROWS_MAX: usize = 100;
/// Looking for drift walks the whole catalogue; above this many copies a page does not.
const DRIFT_COPIES_MAX: usize = 50_000;

/// What the typed views hold: counts, who is alive, who consumes what, and what is amiss.
pub(super) async fn views(State(pages): State<Arc<Pages>>) -> Json<Value> {
    Json(pages.node.local_view().read(|state| {
        let views = state.views();
        let counts = views.counts();
        let sessions = views.sessions().rows().iter().take(ROWS_MAX);
        let channels = views.channels().rows().iter().take(ROWS_MAX);
        let drift = (counts.copies <= DRIFT_COPIES_MAX).then(|| {
            let keys = views.catalog().drift().into_iter().take(ROWS_MAX);
            keys.map(|key| key.to_string()).collect::<Vec<_>>()
        });
        json!({
            "keys": state.n_keys(),
            "leases": state.n_leases(),
            "index_memory_bytes": state.index_memory_bytes(),
            "rows": {
                "sessions": counts.sessions,
                "channels": counts.channels,
                "databases": counts.databases,
                "collections": counts.collections,
                "partitions": counts.partitions,
                "fields": counts.fields,
                "aliases": counts.aliases,
                "tombstones": counts.tombstones,
                "copies": counts.copies,
                "undecodable": counts.undecodable,
            },
            "sessions": sessions
                .map(|(key, row)| (key.to_string(), Value::from(row.to_string())))
                .collect::<serde_json::Map<_, _>>(),
            "channels": channels
                .map(|((node, name), row)| (format!("{node}/{name}"), Value::from(row.to_string())))
                .collect::<serde_json::Map<_, _>>(),
            // RootCoord restarts from its copies: these would come up otherwise than they are.
            "drift": drift,
            "undecodable": views
                .troubles(ROWS_MAX)
                .into_iter()
                .map(|trouble| {
                    json!({
                        "row": trouble.what,
                        "revision": trouble.revision,
                        "reason": trouble.reason,
                    })
                })
                .collect::<Vec<_>>(),
        })
    }))
}
