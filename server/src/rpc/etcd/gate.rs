//! Around each service: gives a message that is too large etcd's code.
//!
//! tonic refuses it before it is read, but with the code `OutOfRange`, which etcd's clients know
//! as a compacted revision.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

/// How tonic begins the text of that refusal.
const TOO_LARGE: &str = "Error, decoded message length too large";

#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    receive_bytes_max: usize,
}

impl<S> Gate<S> {
    pub(crate) fn new(inner: S, receive_bytes_max: usize) -> Gate<S> {
        Gate { inner, receive_bytes_max }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Answer { inner: self.inner.call(request), receive_bytes_max: self.receive_bytes_max }
    }
}

pub(crate) struct Answer<F> {
    inner: F,
    receive_bytes_max: usize,
}

impl<F, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = Result<Response<Body>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(Pin::new(&mut self.inner).poll(context))?;
        if is_too_large(&response) {
            response = too_large(self.receive_bytes_max).into_http();
        }
        Poll::Ready(Ok(response))
    }
}

/// Refusals travel as headers alone, so a good answer costs one look.
fn is_too_large(response: &Response<Body>) -> bool {
    response.headers().contains_key(Status::GRPC_STATUS)
        && Status::from_header_map(response.headers()).is_some_and(|status| {
            status.code() == Code::OutOfRange && status.message().starts_with(TOO_LARGE)
        })
}

fn too_large(limit_bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max (the limit is {limit_bytes} bytes: split the request)"
    ))
}
