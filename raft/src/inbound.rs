//! Runs of other nodes that wait at the leader for their place in the log.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::quorate::{ForwardResult, ForwardVerdict};
use tokio::sync::mpsc;

use crate::admit::NotAdmitted;
use crate::propose::{self, Proposer, RunBounds};

/// A run and the way back to its origin.
pub(crate) struct InboundRun {
    pub(crate) bytes: Bytes,
    pub(crate) n_commands: usize,
    pub(crate) answer: Answer,
}

/// Tells the origin of a run what became of it. Dropped before the run is committed, it says that
/// the run has to be proposed again: silence would let its clients wait for their deadline.
pub(crate) struct Answer {
    id: u64,
    /// Unbounded, and bounded in fact: an origin has few runs under way, and each gets two words.
    sender: mpsc::UnboundedSender<ForwardResult>,
    settled: bool,
}

impl Answer {
    pub(crate) fn new(id: u64, sender: mpsc::UnboundedSender<ForwardResult>) -> Answer {
        Answer { id, sender, settled: false }
    }

    pub(crate) fn appended(&self) {
        self.send(ForwardVerdict::Appended);
    }

    /// A majority has the run; its outcomes reach the origin through its own apply.
    pub(crate) fn committed(mut self) {
        self.settled = true;
    }

    fn overloaded(mut self) {
        self.settled = true;
        self.send(ForwardVerdict::Overloaded);
    }

    pub(crate) fn not_admitted(mut self, why: NotAdmitted) {
        self.settled = true;
        match why {
            NotAdmitted::Damaged => self.send(ForwardVerdict::Damaged),
            NotAdmitted::Refused(reason) => self.send_with(ForwardVerdict::Refused, reason),
        }
    }

    fn send(&self, verdict: ForwardVerdict) {
        self.send_with(verdict, String::new());
    }

    fn send_with(&self, verdict: ForwardVerdict, reason: String) {
        // The stream may be gone: then the origin proposes all that is open again by itself.
        let _ = self.sender.send(ForwardResult { id: self.id, verdict: verdict.into(), reason });
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.settled {
            self.send(ForwardVerdict::NotLeader);
        }
    }
}

#[derive(Default)]
struct Waiting {
    /// Only while this node leads.
    open: bool,
    runs: VecDeque<InboundRun>,
    size_bytes: usize,
    n_commands: usize,
}

pub(crate) struct Inbound {
    waiting: Mutex<Waiting>,
    bytes_max: usize,
    /// Shares its wake-up with this node's own commands.
    proposer: Arc<Proposer>,
}

impl Inbound {
    pub(crate) fn new(bytes_max: usize, proposer: Arc<Proposer>) -> Arc<Inbound> {
        Arc::new(Inbound { waiting: Mutex::default(), bytes_max, proposer })
    }

    pub(crate) fn push(&self, run: InboundRun) {
        let refused = {
            let mut waiting = self.waiting.lock();
            if waiting.open && waiting.size_bytes + run.bytes.len() <= self.bytes_max {
                waiting.size_bytes += run.bytes.len();
                waiting.n_commands += run.n_commands;
                waiting.runs.push_back(run);
                None
            } else {
                Some((run, waiting.open))
            }
        };
        match refused {
            None => self.proposer.wake(),
            Some((run, true)) => run.answer.overloaded(),
            // Dropping the run says that this node does not lead.
            Some((_, false)) => {}
        }
    }

    /// The next run, if it fits the room that is left in a batch.
    pub(crate) fn pop(&self, room: RunBounds) -> Option<InboundRun> {
        let mut waiting = self.waiting.lock();
        let next = waiting.runs.front()?;
        if next.n_commands > room.commands_max || next.bytes.len() > room.bytes_max {
            return None;
        }
        let run = waiting.runs.pop_front()?;
        waiting.size_bytes -= run.bytes.len();
        waiting.n_commands -= run.n_commands;
        Some(run)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().runs.is_empty()
    }

    pub(crate) fn waiting(&self) -> propose::Waiting {
        let waiting = self.waiting.lock();
        propose::Waiting { n_commands: waiting.n_commands, size_bytes: waiting.size_bytes }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.waiting.lock().size_bytes
    }

    pub(crate) fn open(&self) {
        self.waiting.lock().open = true;
    }

    /// Refuses all that waits and all that comes.
    pub(crate) fn close(&self) {
        let runs = {
            let mut waiting = self.waiting.lock();
            waiting.open = false;
            waiting.size_bytes = 0;
            waiting.n_commands = 0;
            std::mem::take(&mut waiting.runs)
        };
        drop(runs);
    }
}
