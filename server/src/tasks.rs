//! The only place that spawns: every task has a name, is tracked, and ends with the server.
//!
//! A panic in a task is not survived: the hook of [`crate::telemetry::abort_on_panic`] logs it and
//! ends the process, because a node that lost one of its loops would look alive and be useless.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug_span, warn};

/// The tasks of one server. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Tasks {
        Tasks::default()
    }

    /// Cancelled when the server stops: every loop of a task must watch it.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Runs a future that ends by itself or when [`Tasks::stopping`] is cancelled.
    pub(crate) fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn(name, self.tracker.track_future(future))
    }

    /// Tells all tasks to stop and waits for them.
    pub(crate) async fn stop(&self, deadline: Duration) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_err() {
            warn!(tasks = self.tracker.len(), "some tasks did not stop in time");
        }
    }
}

/// Runs a future whose end its caller awaits or does not care for.
pub(crate) fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(debug_span!("task", name)))
}

/// Runs work that takes longer than half a millisecond of CPU or reads the disk, off the threads
/// that serve calls.
pub(crate) fn spawn_blocking<F, T>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work)
}
