//! What a node answers while it takes no part yet: to each call, on each port, why.
//!
//! It waits for room on its disk before it opens its stores, or for the state of another node in
//! the place of its own, which must not be used.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::future::join_all;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::RwLock;
use raft::{
    Acceptor, NodeOptions, Replacement, StartError, StartRoom, WAITS_FOR_KEY, WaitsFor,
    quarantine_reason, start_room,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::listen::Listeners;
use crate::config::checked::show_size;
use crate::tasks;

/// How often the free space is measured.
const PERIOD: Duration = Duration::from_millis(500);
/// How often the log says that the node still waits.
const REMINDER: u32 = 120;

/// What the node waits for, and the reason that it gives to whoever calls.
struct Waiting {
    waits_for: WaitsFor,
    reason: RwLock<String>,
}

impl Waiting {
    fn begin(waits_for: WaitsFor, reason: String) -> Arc<Waiting> {
        Arc::new(Waiting { waits_for, reason: RwLock::new(reason) })
    }
}

/// Returns once there is room to open the stores in `data_dir`. Safe to cancel.
pub(super) async fn for_room(listeners: &Listeners, data_dir: &Path, low_bytes: u64) {
    let StartRoom::Wait { .. } = start_room(data_dir, low_bytes) else {
        return;
    };
    let waiting = Waiting::begin(WaitsFor::Room, String::new());
    let mut ports = vec![&listeners.client, &listeners.peer, &listeners.http];
    ports.extend(&listeners.coordinator);
    tokio::select! {
        () = measure(data_dir, low_bytes, &waiting) => {}
        _ = join_all(ports.into_iter().map(|port| answer_on(port, &waiting))) => {}
    }
    info!("there is room on the disk, the node starts");
}

async fn measure(data_dir: &Path, low_bytes: u64, waiting: &Waiting) {
    let mut n_rounds = 0;
    loop {
        let StartRoom::Wait { free_bytes, needed_bytes, reason: last } =
            start_room(data_dir, low_bytes)
        else {
            return;
        };
        let text = format!(
            "waits for room on its disk: {} has {} free, the start needs {} ({last})",
            data_dir.display(),
            show_size(free_bytes),
            show_size(needed_bytes)
        );
        if n_rounds % REMINDER == 0 {
            warn!(reason = text, "the node does not start yet");
        }
        n_rounds += 1;
        *waiting.reason.write() = text;
        tokio::time::sleep(PERIOD).await;
    }
}

/// Returns once the state in the data directory may be used. `ports` are those beside the listener
/// of the peers, which `options` hold. Safe to cancel.
///
/// # Errors
/// No other node is known, or the node must not start on its directory.
pub(super) async fn for_state(
    ports: &[&TcpListener],
    options: &mut NodeOptions,
) -> Result<(), StartError> {
    let Some(reason) = quarantine_reason(&options.data_dir) else {
        return Ok(());
    };
    let replacement = Replacement::new(options);
    let text = format!("is in quarantine and fetches the state of another node: {reason}");
    let waiting = Waiting::begin(WaitsFor::State, text);
    tokio::select! {
        replaced = replacement.run() => replaced,
        _ = join_all(ports.iter().map(|port| answer_on(port, &waiting))) => Ok(()),
        () = answer_peers(options.listen.as_mut(), &waiting) => Ok(()),
    }
}

async fn answer_peers(peers: &mut dyn Acceptor, waiting: &Arc<Waiting>) {
    loop {
        answer(peers.accept().await, waiting).await;
    }
}

async fn answer_on(listener: &TcpListener, waiting: &Arc<Waiting>) {
    loop {
        answer(listener.accept().await.map(|(stream, _)| stream), waiting).await;
    }
}

async fn answer<S>(accepted: io::Result<S>, waiting: &Arc<Waiting>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Ok(stream) = accepted else {
        tokio::time::sleep(PERIOD).await;
        return;
    };
    let waiting = Arc::clone(waiting);
    tasks::spawn("waiting", async move {
        let service = service_fn(move |request| {
            let response = respond(&request, &waiting);
            async move { Ok::<_, Infallible>(response) }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let serving = server.serve_connection(TokioIo::new(stream), service);
        // A connection ends soon, so that none is left when the node starts.
        if let Ok(Err(error)) = tokio::time::timeout(PERIOD * 4, serving).await {
            tracing::debug!(error = %error, "connection of a node that waits");
        }
    });
}

/// A process that waits is alive and not ready.
fn respond<B>(request: &Request<B>, waiting: &Waiting) -> Response<Body> {
    let reason = waiting.reason.read().clone();
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let mut response = tonic::Status::resource_exhausted(reason).into_http();
        let waits_for = HeaderValue::from_static(waiting.waits_for.as_str());
        response.headers_mut().insert(WAITS_FOR_KEY, waits_for);
        return response;
    }
    let (code, text) = match request.uri().path() {
        "/livez" => (StatusCode::OK, format!("{reason}\n")),
        "/metrics" => (StatusCode::OK, metrics(waiting.waits_for)),
        _ => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response
}

/// The one metric of a node that takes no part.
fn metrics(now: WaitsFor) -> String {
    let line = |waits_for: WaitsFor| {
        let (name, is) = (waits_for.as_str(), u64::from(waits_for == now));
        format!("quorate_start_waits{{for=\"{name}\"}} {is}\n")
    };
    format!(
        "# HELP quorate_start_waits 1 for what this node waits for before it takes part\n\
         # TYPE quorate_start_waits gauge\n{}{}",
        line(WaitsFor::Room),
        line(WaitsFor::State)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_waits_is_alive_and_not_ready_and_says_why() {
        let waiting = Waiting::begin(WaitsFor::State, "is in quarantine".to_owned());
        let ask = |path: &str| {
            let request = Request::builder().uri(path).body(()).unwrap();
            respond(&request, &waiting).status()
        };
        assert_eq!(ask("/livez"), StatusCode::OK);
        assert_eq!(ask("/readyz"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/metrics"), StatusCode::OK);
        assert!(metrics(WaitsFor::State).contains("quorate_start_waits{for=\"state\"} 1\n"));
        let grpc = Request::builder()
            .uri("/etcdserverpb.KV/Range")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let response = respond(&grpc, &waiting);
        assert_eq!(response.headers().get("grpc-status").unwrap(), "8");
        assert_eq!(response.headers().get(WAITS_FOR_KEY).unwrap(), "state");
    }
}
