//! The one place where this crate starts a task.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Runs short `work` on `runtime`. What it wakes there it wakes from within, at a fraction of what
/// waking each from another thread costs.
pub(crate) fn run_on(runtime: &Handle, work: impl FnOnce() + Send + 'static) {
    drop(runtime.spawn(async move { work() }));
}

/// Starts `task` on `runtime`. A panic inside is logged with the task's name.
pub(crate) fn spawn<F>(runtime: &Handle, name: &'static str, task: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let running = runtime.spawn(task);
    runtime.spawn(async move {
        if let Err(error) = running.await
            && error.is_panic()
        {
            tracing::error!(task = name, error = %error, "task panicked");
        }
    })
}
