//! What a node answers while it cannot open its stores yet: to each call, on each port, why.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::RwLock;
use raft::{StartRoom, start_room};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::listen::Listeners;
use crate::config::checked::show_size;
use crate::tasks;

/// How often the free space is measured.
const PERIOD: Duration = Duration::from_millis(500);
/// How often the log says that the node still waits.
const REMINDER: u32 = 120;

/// Returns once there is room to open the stores in `data_dir`. Safe to cancel.
pub(super) async fn for_room(listeners: &Listeners, data_dir: &Path, low_bytes: u64) {
    let StartRoom::Wait { .. } = start_room(data_dir, low_bytes) else {
        return;
    };
    let reason = Arc::new(RwLock::new(String::new()));
    tokio::select! {
        () = measure(data_dir, low_bytes, &reason) => {}
        () = answer_on(&listeners.client, &reason) => {}
        () = answer_on(&listeners.peer, &reason) => {}
        () = answer_on(&listeners.http, &reason) => {}
        () = answer_on_optional(listeners.coordinator.as_ref(), &reason) => {}
    }
    info!("there is room on the disk, the node starts");
}

async fn measure(data_dir: &Path, low_bytes: u64, reason: &RwLock<String>) {
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
        *reason.write() = text;
        tokio::time::sleep(PERIOD).await;
    }
}

async fn answer_on_optional(listener: Option<&TcpListener>, reason: &Arc<RwLock<String>>) {
    match listener {
        Some(listener) => answer_on(listener, reason).await,
        None => std::future::pending().await,
    }
}

async fn answer_on(listener: &TcpListener, reason: &Arc<RwLock<String>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PERIOD).await;
            continue;
        };
        let reason = Arc::clone(reason);
        tasks::spawn("waiting", async move {
            let service = service_fn(move |request| {
                let response = respond(&request, &reason.read());
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
}

/// A process that waits is alive and not ready.
fn respond<B>(request: &Request<B>, reason: &str) -> Response<Body> {
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return tonic::Status::resource_exhausted(reason).into_http();
    }
    let code = match request.uri().path() {
        "/livez" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_waits_is_alive_and_not_ready_and_says_why() {
        let ask = |path: &str| {
            let request = Request::builder().uri(path).body(()).unwrap();
            respond(&request, "waits for room").status()
        };
        assert_eq!(ask("/livez"), StatusCode::OK);
        assert_eq!(ask("/readyz"), StatusCode::SERVICE_UNAVAILABLE);
        let grpc = Request::builder()
            .uri("/etcdserverpb.KV/Range")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let response = respond(&grpc, "waits for room");
        assert_eq!(response.headers().get("grpc-status").unwrap(), "8");
    }
}
