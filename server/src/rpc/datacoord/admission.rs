//! Checks what every call of Milvus says of whom it means: the cluster, and the very server whose
//! session was read when the connection was made.
//!
//! A client that is told "node not match" reads the session again at once. A node that does not
//! lead matches nobody: else one that asks only for the state of the component would stay with a
//! deposed leader for ever.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use http::{HeaderMap, Request, Response};
use std::future::{Ready, ready};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::coordinator::Coordinator;

#[derive(Clone)]
pub(crate) struct AdmissionLayer {
    coordinator: Arc<Coordinator>,
}

impl AdmissionLayer {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> AdmissionLayer {
        AdmissionLayer { coordinator }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner, coordinator: Arc::clone(&self.coordinator) }
    }
}

#[derive(Clone)]
pub(crate) struct Admission<S> {
    inner: S,
    coordinator: Arc<Coordinator>,
}

impl<S, B> Service<Request<B>> for Admission<S>
where
    S: Service<Request<B>, Response = Response<axum::body::Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let cluster = &self.coordinator.settings.cluster;
        let server = self.coordinator.lead().map_or(NO_SERVER, |lead| lead.server.0);
        match refusal(request.headers(), cluster, server) {
            None => Either::Left(self.inner.call(request)),
            Some(status) => {
                let response: Response<Body> = status.into_http();
                Either::Right(ready(Ok(response.map(axum::body::Body::new))))
            }
        }
    }
}

/// Of a node that does not lead.
const NO_SERVER: i64 = -1;

fn refusal(headers: &HeaderMap, cluster: &str, server: i64) -> Option<Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(meant) = text("cluster").filter(|meant| !meant.is_empty() && *meant != cluster) {
        return Some(Status::unknown(format!(
            "cross cluster routing[expectedCluster={cluster}][actualCluster={meant}]"
        )));
    }
    let meant: i64 = text("serverid")?.parse().ok()?;
    (meant != server).then(|| {
        Status::unknown(format!("node not match[expectedNodeID={meant}][actualNodeID={server}]"))
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(headers: &[(&'static str, &'static str)], expected: Expect) {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            })
            .collect();
        let refusal = refusal(&headers, "by-dev", 7);
        let shown = refusal.map(|status| format!("{:?} {}", status.code(), status.message()));
        expected.assert_eq(&shown.unwrap_or_else(|| "accepted".to_owned()));
    }

    #[test]
    fn a_call_that_means_another_cluster_or_server_is_refused() {
        check(&[], expect!["accepted"]);
        check(&[("cluster", ""), ("serverid", "seven")], expect!["accepted"]);
        check(&[("cluster", "by-dev"), ("serverid", "7")], expect!["accepted"]);
        check(
            &[("cluster", "by-dev"), ("serverid", "6")],
            expect!["Unknown node not match[expectedNodeID=6][actualNodeID=7]"],
        );
        check(
            &[("cluster", "prod"), ("serverid", "7")],
            expect!["Unknown cross cluster routing[expectedCluster=by-dev][actualCluster=prod]"],
        );
    }
}
