//! A port that speaks HTTP/2 without TLS (gRPC) and HTTP/1.1 (probes, browsers) to whoever comes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use proto::admin::admin_server::AdminServer;
use raft::{Gathered, Place};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::debug;

use crate::admin::service::AdminService;
use crate::coordinator::Coordinator;
use crate::edge::doors::Door;
use crate::edge::elements;
use crate::edge::front::{Front, Speech};
use crate::edge::intake::{Measured, Messages};
use crate::edge::limits::{
    COORDINATOR_ELEMENTS_MAX, COORDINATOR_MESSAGE_BYTES_MAX, HEAD_WITHIN, SILENCE_MAX, STREAMS_MAX,
};
use crate::edge::listen::listen;
use crate::edge::outflow::Room;
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

/// Of the text of a refusal, as it travels.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

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
    door: Door,
    protocol: auto::Builder<TokioExecutor>,
    /// Pings of an idle client may come this close to each other.
    ping_min: Duration,
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
        let router = routes
            .prepare()
            .into_axum_router()
            .merge(pages.probes())
            .fallback_service(pages.elsewhere());
        let busiest = Some(Busiest::Kv(etcd.kv()));
        Edge::new(busiest, router, pages, &pages.doors.client, limits)
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
        let busiest = Some(Busiest::DataCoord(datacoord::data_coord(coordinator)));
        let mut edge = Edge::new(busiest, router, pages, &pages.doors.coordinator, limits);
        edge.coordinator = Some(Arc::clone(coordinator));
        edge.protocol
            .http2()
            .keep_alive_interval(MILVUS_PING_EVERY)
            .keep_alive_timeout(MILVUS_PING_WITHIN);
        edge
    }

    pub(crate) fn for_pages(pages: &Arc<Pages>, limits: &EtcdLimits) -> Edge {
        Edge::new(None, pages.all(), pages, &pages.doors.http, limits)
    }

    fn new(
        busiest: Option<Busiest>,
        router: Router,
        pages: &Pages,
        door: &Door,
        limits: &EtcdLimits,
    ) -> Edge {
        let (protocol, ping_min) = (protocol(limits), limits.keepalive_min);
        let (calls, door) = (Arc::clone(&pages.calls), door.clone());
        Edge { busiest, router, calls, coordinator: None, door, protocol, ping_min }
    }

    /// Takes as many connections as there are places, until the server stops.
    pub(crate) async fn serve(self, listener: TcpListener, tasks: Tasks) {
        let places = Arc::clone(&self.door.places);
        let edge = Arc::new(self);
        let of_connections = tasks.clone();
        let serve = move |stream, place| {
            Arc::clone(&edge).connection(stream, place, of_connections.stopping())
        };
        listen(listener, places, tasks, serve).await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, place: Place, stop: CancellationToken) {
        let give_way = Arc::new(Notify::new());
        let service = service_fn(|request: Request<Incoming>| {
            let edge = Arc::clone(&self);
            let give_way = Arc::clone(&give_way);
            place.asks();
            async move {
                let call = edge.calls.begin(request.uri().path());
                let mut response = edge.answer(request).await;
                if let Some(call) = call {
                    edge.calls.end(&call, response.headers());
                }
                if let Some(room) = response.extensions_mut().remove::<Arc<Room>>() {
                    response = response.map(|body| room.keep(body, &give_way));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let front = Front::new(stream, self.ping_min);
        let speech = front.speech();
        let stream = TokioIo::new(Gathered::new(front));
        let connection = self.protocol.serve_connection(stream, service);
        tokio::pin!(connection);
        let coordinator = self.coordinator.as_ref();
        // Without a coordinator nobody cancels it.
        let cut = coordinator.map(|coordinator| coordinator.connections.join()).unwrap_or_default();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cut.cancelled() => return,
            () = place.cut().cancelled() => return,
            () = give_way.notified() => return,
            () = silence(&speech) => {
                place.is_silent();
                return;
            }
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

/// Resolves where nothing that makes sense has come from a client in time.
async fn silence(speech: &Speech) {
    tokio::time::sleep(SILENCE_MAX).await;
    if speech.has_begun() {
        std::future::pending::<()>().await;
    }
}

impl Edge {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(coordinator) = &self.coordinator
            && let Some(status) = datacoord::refusal(coordinator, request.headers())
        {
            return status.into_http();
        }
        let is_grpc = is_grpc(request.headers());
        let messages = match STREAMING.contains(&request.uri().path()) {
            true => Messages::Stream,
            false => Messages::One,
        };
        let request = request.map(|body| Measured::new(body, messages, &self.door.intake));
        let mut response = match &self.busiest {
            Some(Busiest::Kv(kv)) if request.uri().path().starts_with(KV_PREFIX) => {
                let Ok(response) = kv.clone().call(request).await;
                response
            }
            // In boxes of their own: a call of the KV service has no room to spare for them.
            Some(Busiest::DataCoord(service)) if is_grpc => {
                Box::pin(self.coordinate(service, request)).await
            }
            Some(_) | None => Box::pin(self.route(request)).await,
        };
        if !is_grpc && is_grpc_answer(&response) {
            // Its client would take the code 200 for a success.
            return super::not_found("this is a method of gRPC: call it with a client of gRPC");
        }
        bound_refusal(&mut response);
        response
    }
}

impl Edge {
    /// A call of Milvus, all of which are unary. What it holds is counted before it is decoded.
    async fn coordinate(
        &self,
        service: &DataCoordServer,
        request: Request<Measured<Incoming>>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (bytes, _measure) = match body.collect(COORDINATOR_MESSAGE_BYTES_MAX).await {
            Ok(collected) => collected,
            Err(status) => return status.into_http(),
        };
        let message = bytes.get(GRPC_PREFIX_BYTES..).unwrap_or_default();
        if let Err(error) = elements::check(message, COORDINATOR_ELEMENTS_MAX) {
            return Status::resource_exhausted(error.to_string()).into_http();
        }
        let request = Request::from_parts(parts, Full::new(bytes));
        if request.uri().path().starts_with(DATA_COORD_PREFIX) {
            let Ok(response) = service.clone().call(request).await;
            return response;
        }
        self.route(request).await
    }

    async fn route<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let Ok(response) = self.router.clone().call(request).await;
        response.map(Body::new)
    }
}

/// Calls whose client sends many messages.
const STREAMING: [&str; 4] = [
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Before the message of a unary call: a flag, and its length.
const GRPC_PREFIX_BYTES: usize = 5;

/// Whether a request is a call of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn is_grpc_answer(response: &Response<Body>) -> bool {
    is_grpc(response.headers())
}

/// A refusal of gRPC travels in headers, which many clients bound to 8 KiB: one that is too long
/// breaks them. Texts are cut where they are made; this is for those of others.
fn bound_refusal(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    let Some(code) = headers.get(Status::GRPC_STATUS) else { return };
    if code == "12" && !headers.contains_key(Status::GRPC_MESSAGE) {
        let text = HeaderValue::from_static("etcdserver: unknown method");
        headers.insert(Status::GRPC_MESSAGE, text);
    }
    let Some(message) = headers.get(Status::GRPC_MESSAGE) else { return };
    if message.len() > REFUSAL_BYTES_MAX {
        let text = message.as_bytes();
        // A byte that is written as %XX is not cut in two.
        let begun = text[..REFUSAL_BYTES_MAX].iter().rposition(|byte| *byte == b'%');
        let end = begun.filter(|at| at + 3 > REFUSAL_BYTES_MAX).unwrap_or(REFUSAL_BYTES_MAX);
        let cut = [&text[..end], format!("... ({} bytes)", text.len()).as_bytes()].concat();
        if let Ok(value) = HeaderValue::from_bytes(&cut) {
            headers.insert(Status::GRPC_MESSAGE, value);
        }
    }
}

fn protocol(limits: &EtcdLimits) -> auto::Builder<TokioExecutor> {
    // The executor only runs what belongs to one connection, and ends with it.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(limits.keepalive_period)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    builder
}
