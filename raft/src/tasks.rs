//! The one place where this crate starts a task.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

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
