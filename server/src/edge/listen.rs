//! Takes the connections of one listener, as many as there are places.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use raft::{Place, Places};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::limits::{REFUSAL_WITHIN, REFUSALS_MAX};
use super::refusal;
use crate::tasks::Tasks;

/// After the system refused a connection for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves each connection with `serve` in a task of its own, until the server stops.
pub(crate) async fn listen<F>(
    listener: TcpListener,
    places: Arc<Places>,
    tasks: Tasks,
    serve: impl Fn(TcpStream, Place) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = tasks.stopping();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            // Cancel-safe: a connection that was not returned stays in the queue.
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and must not wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "the connection is gone already");
            continue;
        }
        match places.take() {
            Some(place) => drop(tasks.spawn("connection", serve(stream, place))),
            None => refuse(stream, &refusals, &tasks),
        }
    }
}

/// Where many are turned away at once, the rest ends without a word.
fn refuse(stream: TcpStream, refusals: &Arc<Semaphore>, tasks: &Tasks) {
    let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else { return };
    tasks.spawn("refusal", async move {
        let _ = tokio::time::timeout(REFUSAL_WITHIN, refusal::answer(stream)).await;
        drop(permit);
    });
}
