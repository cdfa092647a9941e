//! What tells a node to stop.

use std::fmt;
use std::io::{self, Read};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::tasks;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Interrupt,
    Terminate,
    /// The process that holds the other end of our standard input is gone.
    ParentGone,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Interrupt => "Ctrl-C",
            Reason::Terminate => "SIGTERM",
            Reason::ParentGone => "the process that started this one is gone",
        })
    }
}

pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// Ends when standard input does.
    lifeline: Option<JoinHandle<()>>,
}

impl StopSignals {
    /// # Errors
    /// The system gives no signals.
    pub(super) fn listen(with_stdin: bool) -> anyhow::Result<StopSignals> {
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            lifeline: with_stdin.then(|| tasks::spawn_blocking(wait_for_end_of_stdin)),
        })
    }

    pub(super) async fn next(&mut self) -> Reason {
        tokio::select! {
            // All of them are cancel-safe.
            _ = self.interrupt.recv() => Reason::Interrupt,
            _ = self.terminate.recv() => Reason::Terminate,
            () = closed(self.lifeline.as_mut()) => {
                self.lifeline = None;
                Reason::ParentGone
            }
        }
    }
}

async fn closed(lifeline: Option<&mut JoinHandle<()>>) {
    match lifeline {
        // It ends in no other way than by returning: a panic there ends the process.
        Some(lifeline) => lifeline.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

fn wait_for_end_of_stdin() {
    let mut byte = [0];
    while io::stdin().lock().read(&mut byte).is_ok_and(|read| read > 0) {}
}
