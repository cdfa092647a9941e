//! The one place where this crate starts a task, or a thread for a single piece of work.

use std::future::Future;
use std::io;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Runs short `work` on `runtime`. What it wakes there it wakes from within, at a fraction of what
/// waking each from another thread costs.
pub(crate) fn run_on(runtime: &Handle, work: impl FnOnce() + Send + 'static) {
    drop(runtime.spawn(async move { work() }));
}

/// Of a thread that must yield to all that serve; 19 is the lowest there is.
const BACKGROUND_NICENESS: i32 = 15;

/// Runs long work on a thread of its own that yields to all that serve.
///
/// # Errors
/// The system gives no thread, or the work panicked.
pub(crate) async fn in_background<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Linux means the calling thread; where that is refused the work only disturbs more.
        if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND_NICENESS) {
            tracing::debug!(thread = name, %error, "priority not lowered");
        }
        // Whoever asked may have gone.
        drop(done.send(work()));
    })?;
    result.await.map_err(|_closed| io::Error::other(format!("the thread {name} panicked")))
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
