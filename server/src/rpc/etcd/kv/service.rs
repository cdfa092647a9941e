//! The KV service as the transport sees it.
//!
//! Written out instead of generated: these calls are nearly all of the load, and the edge hands
//! them over without a router in between, one allocation a call.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, StdError};
use tonic::server::{Grpc, NamedService};
use tower::{Service, service_fn};

use crate::rpc::etcd::Etcd;
use crate::rpc::etcd::codec::FittingCodec;

/// `etcdserverpb.KV`.
#[derive(Clone)]
pub(crate) struct KvService {
    api: Arc<Etcd>,
    receive_bytes_max: usize,
}

/// How the paths of this service begin.
pub(crate) const KV_PREFIX: &str = "/etcdserverpb.KV/";

impl KvService {
    pub(crate) fn new(api: Arc<Etcd>, receive_bytes_max: usize) -> KvService {
        KvService { api, receive_bytes_max }
    }
}

impl NamedService for KvService {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl<B> Service<Request<B>> for KvService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let receive_bytes_max = self.receive_bytes_max;
        /// One method: decodes, calls, encodes.
        macro_rules! unary {
            ($method:ident) => {{
                let api = Arc::clone(&self.api);
                Box::pin(async move {
                    let method = service_fn(move |request| {
                        let api = Arc::clone(&api);
                        async move { api.$method(request).await }
                    });
                    let mut grpc = Grpc::new(FittingCodec::default())
                        .max_decoding_message_size(receive_bytes_max)
                        .max_encoding_message_size(usize::MAX);
                    Ok(grpc.unary(method, request).await)
                })
            }};
        }
        match request.uri().path().strip_prefix(KV_PREFIX) {
            Some("Range") => unary!(range),
            Some("Put") => unary!(put),
            Some("Txn") => unary!(txn),
            Some("DeleteRange") => unary!(delete_range),
            Some("Compact") => unary!(compact),
            Some(_) | None => Box::pin(async {
                Ok(Status::unimplemented("etcdserver: unknown method of KV").into_http())
            }),
        }
    }
}
