//! The way from openraft's core to the thread that writes: unbounded in jobs, bounded in bytes.

use std::collections::VecDeque;
use std::io;

use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use crate::types::{Entry, LogId, TypeConfig, Vote};

use super::entry_codec::{OVERHEAD_BYTES, payload_bytes};

pub(super) enum Job {
    Append {
        number: u64,
        entries: Vec<Entry>,
        done: IOFlushed<TypeConfig>,
    },
    SaveVote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    Truncate {
        from: u64,
        to: u64,
    },
    Purge {
        from: u64,
        upto: LogId,
    },
    /// The last job: syncs, and notes the committed entry.
    Stop,
}

impl Job {
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Job::Append { entries, .. } => {
                entries.iter().map(|entry| OVERHEAD_BYTES + payload_bytes(entry)).sum()
            }
            Job::SaveVote { .. } | Job::Truncate { .. } | Job::Purge { .. } | Job::Stop => 0,
        }
    }
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    size_bytes: usize,
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    drained: Notify,
    bytes_max: usize,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Queue {
        Queue {
            waiting: Mutex::new(Waiting::default()),
            arrived: Condvar::new(),
            drained: Notify::new(),
            bytes_max,
        }
    }

    /// Waits until the queue is below its bound; where proposals are bounded it always is.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.waiting.lock().size_bytes <= self.bytes_max {
                return;
            }
            drained.await;
        }
    }

    pub(super) fn push(&self, job: Job) {
        let mut waiting = self.waiting.lock();
        waiting.size_bytes += job.size_bytes();
        waiting.jobs.push_back(job);
        self.arrived.notify_one();
    }

    /// Blocks for a job, then takes all that wait, up to about `bytes_max`, in arrival order.
    pub(super) fn drain(&self, bytes_max: usize) -> Vec<Job> {
        let mut waiting = self.waiting.lock();
        while waiting.jobs.is_empty() {
            self.arrived.wait(&mut waiting);
        }
        let mut taken = Vec::new();
        let mut taken_bytes = 0;
        while taken_bytes < bytes_max
            && let Some(job) = waiting.jobs.pop_front()
        {
            taken_bytes += job.size_bytes();
            taken.push(job);
        }
        waiting.size_bytes -= taken_bytes;
        drop(waiting);
        self.drained.notify_waiters();
        taken
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.waiting.lock().size_bytes
    }
}
