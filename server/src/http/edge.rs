//! A port that speaks HTTP/2 without TLS (gRPC) and HTTP/1.1 (probes, browsers) to whoever comes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use proto::admin::admin_server::AdminServer;
use raft::Gathered;
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tower::Service;
use tracing::{debug, warn};

use crate::admin::service::AdminService;
use crate::coordinator::Coordinator;
use crate::metrics::Calls;
use crate::rpc::datacoord::{self, DATA_COORD_PREFIX, DataCoordServer};
use crate::rpc::etcd::{Etcd, EtcdLimits, Gate, KV_PREFIX, KvService};
use crate::tasks::Tasks;

use super::Pages;

/// How many bytes a client may send on one stream, and on a connection, ahead of our reading. The
/// default of 64 KiB makes every large request wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Streams that a client cancelled and we have not yet seen. Clients of etcd cancel whenever their
/// deadline is short; the default of 20 would close their connection for it.
const RESET_STREAMS_MAX: usize = 1 << 16;

/// After the system refused a connection for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// As Milvus's own servers ping their clients.
const MILVUS_PING_EVERY: Duration = Duration::from_secs(60);
const MILVUS_PING_WITHIN: Duration = Duration::from_secs(10);

/// What answers on a port.
pub(crate) struct Edge {
    busiest: Option<Busiest>,
    router: Router,
    calls: Arc<Calls>,
    /// Who checks what calls say of whom they mean, and whose connections are cut when this node
    /// cannot answer any more.
    coordinator: Option<Arc<Coordinator>>,
    protocol: auto::Builder<TokioExecutor>,
}

/// The service that takes most of a port's load: it is called before any router.
enum Busiest {
    Kv(Gate<KvService>),
    DataCoord(DataCoordServer),
}

impl Edge {
    /// The etcd API, the administration, and the small pages that clients of etcd probe.
    pub(crate) fn for_clients(
        etcd: &Arc<Etcd>,
        admin: AdminService,
        pages: &Arc<Pages>,
        limits: &EtcdLimits,
    ) -> Edge {
        let routes = etcd.routes().add_service(AdminServer::new(admin));
        // The fallback of the gRPC routes answers what is neither of them.
        let router = routes.prepare().into_axum_router().merge(pages.probes());
        let calls = Arc::clone(&pages.calls);
        let busiest = Some(Busiest::Kv(etcd.kv()));
        Edge { busiest, router, calls, coordinator: None, protocol: protocol(limits) }
    }

    /// Milvus's coordinator API, and the probes for whoever looks there.
    pub(crate) fn for_coordinator(
        coordinator: &Arc<Coordinator>,
        pages: &Arc<Pages>,
        limits: &EtcdLimits,
    ) -> Edge {
        let router = datacoord::routes(coordinator)
            .prepare()
            .into_axum_router()
            .merge(pages.probes())
            .fallback_service(pages.elsewhere());
        let mut protocol = protocol(limits);
        protocol
            .http2()
            .keep_alive_interval(MILVUS_PING_EVERY)
            .keep_alive_timeout(MILVUS_PING_WITHIN);
        let calls = Arc::clone(&pages.calls);
        let busiest = Some(Busiest::DataCoord(datacoord::data_coord(coordinator)));
        Edge { busiest, router, calls, coordinator: Some(Arc::clone(coordinator)), protocol }
    }

    pub(crate) fn for_pages(pages: &Arc<Pages>, limits: &EtcdLimits) -> Edge {
        let calls = Arc::clone(&pages.calls);
        let protocol = protocol(limits);
        Edge { busiest: None, router: pages.all(), calls, coordinator: None, protocol }
    }

    /// Takes connections until the server stops.
    pub(crate) async fn serve(self, listener: TcpListener, tasks: Tasks) {
        let stop = tasks.stopping();
        let edge = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                // Cancel-safe: a connection that was not returned stays in the queue.
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = Arc::clone(&edge).connection(stream, tasks.clone());
                    tasks.spawn("connection", connection);
                }
                Err(error) => {
                    warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, tasks: Tasks) {
        // Answers are small and must not wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "the connection is gone already");
            return;
        }
        let service = service_fn(|request: Request<Incoming>| {
            let edge = Arc::clone(&self);
            async move {
                let call = edge.calls.begin(request.uri().path());
                let response = edge.answer(request).await;
                if let Some(call) = call {
                    edge.calls.end(&call, response.headers());
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection =
            self.protocol.serve_connection(TokioIo::new(Gathered::new(stream)), service);
        tokio::pin!(connection);
        let stop = tasks.stopping();
        let coordinator = self.coordinator.as_ref();
        // Without a coordinator nobody cancels it.
        let cut = coordinator.map(|coordinator| coordinator.connections.join()).unwrap_or_default();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cut.cancelled() => return,
            () = stop.cancelled() => {
                // Calls that run are answered; new ones are told to go elsewhere.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a connection ended");
        }
    }
}

impl Edge {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(coordinator) = &self.coordinator
            && let Some(status) = datacoord::refusal(coordinator, request.headers())
        {
            return status.into_http();
        }
        let path = request.uri().path();
        let Ok(response) = match &self.busiest {
            Some(Busiest::Kv(kv)) if path.starts_with(KV_PREFIX) => kv.clone().call(request).await,
            Some(Busiest::DataCoord(service)) if path.starts_with(DATA_COORD_PREFIX) => {
                service.clone().call(request).await
            }
            // In a box of its own: a call of the KV service has no room to spare for it.
            Some(_) | None => {
                let mut router = self.router.clone();
                Box::pin(router.call(request)).await.map(|response| response.map(Body::new))
            }
        };
        response
    }
}

fn protocol(limits: &EtcdLimits) -> auto::Builder<TokioExecutor> {
    // The executor only runs what belongs to one connection, and ends with it.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(u32::MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(limits.keepalive_period)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder.http1().timer(TokioTimer::new());
    builder
}
