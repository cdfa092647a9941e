//! The small HTTP pages of a node: health for probes, metrics for Prometheus, debug for people.

mod api;
mod debug;
pub(crate) mod edge;
mod health;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use raft::Node;

use crate::config::checked::Config;
use crate::coordinator::Coordinator;
use crate::lease_clock::Leases;
use crate::metrics;
use crate::rpc::etcd::PastImages;
use crate::watch_hub::WatchHub;

/// What the pages are made of.
pub(crate) struct Pages {
    node: Node,
    leases: Arc<Leases>,
    hub: Arc<WatchHub>,
    past_images: Arc<PastImages>,
    config: Arc<Config>,
    coordinator: Option<Arc<Coordinator>>,
    started: Instant,
    calls: Arc<metrics::Calls>,
}

impl Pages {
    pub(crate) fn new(
        node: Node,
        leases: Arc<Leases>,
        hub: Arc<WatchHub>,
        past_images: Arc<PastImages>,
        config: Arc<Config>,
        coordinator: Option<Arc<Coordinator>>,
        started: Instant,
    ) -> Arc<Pages> {
        let calls = Arc::default();
        Arc::new(Pages { node, leases, hub, past_images, config, coordinator, started, calls })
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// What etcd's clients and probes look for on the client port too.
    fn probes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/version", get(health::version))
            .route("/health", get(health::etcd_health))
            .route("/livez", get(health::livez))
            .route("/readyz", get(health::readyz))
            .route("/leaderz", get(health::leaderz))
            .route("/metrics", get(metrics_page))
            .with_state(Arc::clone(self))
    }

    /// For a port that serves gRPC: what is neither gRPC nor a probe is told where pages are.
    fn elsewhere(&self) -> Router {
        let pages = self.config.advertise.http.clone();
        Router::new().fallback(move |headers: http::HeaderMap| {
            let is_grpc = headers
                .get(http::header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            let answer = if is_grpc {
                tonic::Status::unimplemented("no such method").into_http()
            } else {
                let text = format!("this port serves gRPC; pages are at http://{pages}/\n");
                let body = tonic::body::Body::new(axum::body::Body::from(text));
                let mut answer = http::Response::new(body);
                *answer.status_mut() = http::StatusCode::NOT_FOUND;
                answer
            };
            std::future::ready(answer.map(axum::body::Body::new))
        })
    }

    /// Everything, for the HTTP port.
    fn all(self: &Arc<Self>) -> Router {
        let debug = Router::new()
            .route("/", get(debug::index))
            .route("/debug/status", get(debug::status))
            .route("/debug/config", get(debug::config))
            .route("/debug/settings", get(debug::settings))
            .route("/debug/views", get(debug::views))
            .with_state(Arc::clone(self));
        self.probes().merge(debug).merge(api::routes().with_state(Arc::clone(self)))
    }
}

async fn metrics_page(
    axum::extract::State(pages): axum::extract::State<Arc<Pages>>,
) -> impl axum::response::IntoResponse {
    let mut text = metrics::node_page(&pages.node, pages.started);
    text.push_str(&metrics::services_page(
        &pages.leases,
        &pages.hub,
        &pages.past_images,
        &pages.calls,
    ));
    if let Some(coordinator) = &pages.coordinator {
        text.push_str(&metrics::coordinator_page(coordinator));
    }
    ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
