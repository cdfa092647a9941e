//! The threads of consensus and peers, apart from those that serve clients.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Ends the threads when it is dropped, without waiting for them.
#[derive(Debug)]
pub(crate) struct RaftThreads {
    handle: Handle,
    stop: CancellationToken,
}

impl RaftThreads {
    /// One thread runs all without handing anything over; with more, tasks go where there is room.
    pub(crate) fn start(n_threads: usize) -> io::Result<RaftThreads> {
        let mut builder = match n_threads {
            0 | 1 => Builder::new_current_thread(),
            n_threads => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(n_threads);
                builder
            }
        };
        let runtime = builder.thread_name("raft").enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new().name("raft".to_owned()).spawn(move || {
            runtime.block_on(stopped.cancelled());
            // Its own drop would wait for work that nobody asks for any more.
            runtime.shutdown_background();
        })?;
        Ok(RaftThreads { handle, stop })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for RaftThreads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
