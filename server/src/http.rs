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
use crate::edge::brief::{TEXT_BYTES_MAX, cut};
use crate::edge::doors::Doors;
use crate::edge::outflow::Outflow;
use crate::lease_clock::Leases;
use crate::metrics;
use crate::rpc::etcd::{Etcd, PastImages};
use crate::watch_hub::WatchHub;

/// What the pages are made of.
pub(crate) struct Pages {
    node: Node,
    leases: Arc<Leases>,
    hub: Arc<WatchHub>,
    past_images: Arc<PastImages>,
    outflow: Arc<Outflow>,
    config: Arc<Config>,
    coordinator: Option<Arc<Coordinator>>,
    doors: Doors,
    started: Instant,
    calls: Arc<metrics::Calls>,
}

impl Pages {
    pub(crate) fn new(
        node: Node,
        leases: Arc<Leases>,
        etcd: &Etcd,
        config: Arc<Config>,
        coordinator: Option<Arc<Coordinator>>,
        doors: Doors,
        started: Instant,
    ) -> Arc<Pages> {
        let calls = Arc::default();
        Arc::new(Pages {
            node,
            leases,
            hub: Arc::clone(etcd.hub()),
            past_images: Arc::clone(etcd.past_images()),
            outflow: Arc::clone(etcd.outflow()),
            config,
            coordinator,
            doors,
            started,
            calls,
        })
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// What etcd's clients and probes look for on the client port too.
    fn probes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/version", get(health::version))
            .route("/health", get(health::etcd_health))
            .route("/leaderz", get(health::leaderz))
            .route("/metrics", get(metrics_page))
            .with_state(Arc::clone(self))
            .merge(self.checks("/livez", &health::LIVEZ))
            .merge(self.checks("/readyz", &health::READYZ))
    }

    /// All checks at `root`, and each at a path of its own below it.
    fn checks(self: &Arc<Self>, root: &str, all: &'static [health::Check]) -> Router {
        let run = |checks: &'static [health::Check]| {
            let pages = Arc::clone(self);
            get(move |uri: http::Uri| health::checks(Arc::clone(&pages), uri, checks))
        };
        all.iter().fold(Router::new().route(root, run(all)), |router, check| {
            router.route(&format!("{root}/{}", check.name()), run(std::slice::from_ref(check)))
        })
    }

    /// For a port that serves gRPC: what is neither gRPC nor a probe learns where pages are.
    fn elsewhere(&self) -> Router {
        let pages = self.config.advertise.http.clone();
        Router::new().fallback(move |uri: http::Uri, headers: http::HeaderMap| {
            let answer = match edge::is_grpc(&headers) {
                true => tonic::Status::unimplemented(unknown_method(uri.path())).into_http(),
                false => not_found(&format!("this port serves gRPC; pages are at http://{pages}/")),
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

/// Why a method of gRPC is not there.
fn unknown_method(path: &str) -> String {
    let path = cut(path, TEXT_BYTES_MAX);
    for (prefix, command) in [("/v3lockpb.Lock/", "lock"), ("/v3electionpb.Election/", "elect")] {
        if path.starts_with(prefix) {
            return format!(
                "etcdserver: {path} is not offered: use the client's recipe of leases and \
                 transactions, as `etcdctl {command}` and Go's `concurrency` package do"
            );
        }
    }
    format!("etcdserver: unknown method {path}")
}

/// The answer for a path that is not there.
fn not_found(text: &str) -> http::Response<tonic::body::Body> {
    let body = axum::body::Body::from(format!("{text}\n"));
    let mut answer = http::Response::new(tonic::body::Body::new(body));
    *answer.status_mut() = http::StatusCode::NOT_FOUND;
    answer
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
    text.push_str(&metrics::edge_page(&pages.node, &pages.doors, &pages.outflow));
    if let Some(coordinator) = &pages.coordinator {
        text.push_str(&metrics::coordinator_page(coordinator));
    }
    ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
