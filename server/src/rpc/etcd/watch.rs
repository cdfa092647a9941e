//! Watch: one stream holds many watches.
//!
//! The generated service would encode each response by itself. This one is written out, because
//! its codec takes events that are encoded already: a thousand watchers of one prefix share bytes.

mod codec;
mod responses;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use proto::etcd;
use proto::etcd::watch_request::RequestUnion;
use rand::Rng;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};
use tower::Service;

use super::Etcd;
use super::call::requires_leader;
use super::error::EtcdError;
use crate::tasks;
use crate::watch_hub::StreamQueue;
use codec::WatchCodec;
use responses::Responses;

/// How often a stream that needs a leader looks whether there is one.
const LEADER_CHECK: Duration = Duration::from_millis(250);

/// `etcdserverpb.Watch`.
#[derive(Clone)]
pub(super) struct WatchServer {
    api: Arc<Etcd>,
    receive_bytes_max: usize,
}

impl WatchServer {
    pub(super) fn new(api: Arc<Etcd>, receive_bytes_max: usize) -> WatchServer {
        WatchServer { api, receive_bytes_max }
    }
}

impl NamedService for WatchServer {
    const NAME: &'static str = "etcdserverpb.Watch";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<Request<Body>> for WatchServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = OpenStream(Arc::clone(&self.api));
        let receive_bytes_max = self.receive_bytes_max;
        Box::pin(async move {
            if request.uri().path() != "/etcdserverpb.Watch/Watch" {
                return Ok(Status::unimplemented("etcdserver: unknown method of Watch").into_http());
            }
            let mut grpc = Grpc::new(WatchCodec)
                .max_decoding_message_size(receive_bytes_max)
                .max_encoding_message_size(usize::MAX);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct OpenStream(Arc<Etcd>);

impl StreamingService<etcd::WatchRequest> for OpenStream {
    type Response = codec::Message;
    type ResponseStream = Responses;
    type Future = BoxFuture<Result<tonic::Response<Responses>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<etcd::WatchRequest>>) -> Self::Future {
        let api = Arc::clone(&self.0);
        Box::pin(async move {
            let needs_leader = requires_leader(request.metadata());
            if needs_leader && !api.headers.has_leader() {
                return Err(EtcdError::NoLeader.into());
            }
            let stream = api.hub.open();
            let responses = Responses::new(Arc::clone(&api), Arc::clone(&stream));
            let inbound = Inbound { requests: request.into_inner(), stream, needs_leader };
            tasks::spawn("watch-stream", serve(api, inbound));
            Ok(tonic::Response::new(responses))
        })
    }
}

struct Inbound {
    requests: Streaming<etcd::WatchRequest>,
    stream: Arc<StreamQueue>,
    needs_leader: bool,
}

/// Takes the client's requests until it leaves. What goes out is pulled by the transport.
async fn serve(api: Arc<Etcd>, mut inbound: Inbound) {
    let period = jittered(api.limits.watch_progress_period);
    let mut progress = tokio::time::interval_at(Instant::now() + period, period);
    let mut leader_check = tokio::time::interval(LEADER_CHECK);
    let mut leader_seen = Instant::now();
    let stream = Arc::clone(&inbound.stream);
    // An end that is not the client's own wish must be `Unavailable`: on anything else a client
    // gives the watch up instead of coming back.
    let end = loop {
        tokio::select! {
            () = stream.closed() => break None,
            message = next_request(&stream, &mut inbound.requests) => match message {
                Ok(Some(request)) => handle(&api, &stream, request).await,
                Ok(None) => break None,
                Err(_) => break Some(EtcdError::Stopped),
            },
            _ = progress.tick() => api.hub.tick(stream.id),
            now = leader_check.tick(), if inbound.needs_leader => {
                if api.headers.has_leader() {
                    leader_seen = now;
                } else if now - leader_seen >= api.limits.leaderless_max {
                    break Some(EtcdError::NoLeader);
                }
            }
        }
    };
    api.hub.close(&stream, end.map(Status::from));
}

/// Cancel-safe: a message is taken whole or not at all.
async fn next_request(
    stream: &StreamQueue,
    requests: &mut Streaming<etcd::WatchRequest>,
) -> Result<Option<etcd::WatchRequest>, Status> {
    stream.takes_requests().await;
    requests.message().await
}

async fn handle(api: &Arc<Etcd>, stream: &Arc<StreamQueue>, request: etcd::WatchRequest) {
    match request.request_union {
        Some(RequestUnion::CreateRequest(create)) => api.hub.create(stream.id, &create),
        Some(RequestUnion::CancelRequest(cancel)) => api.hub.cancel(stream.id, cancel.watch_id),
        Some(RequestUnion::ProgressRequest(_)) => api.hub.progress(stream.id).await,
        None => {}
    }
}

/// Spreads the notifications of many streams over time.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(1.0 + rand::rng().random_range(0.0..0.1))
}
