//! What the leader has proposed and not yet applied.
//!
//! A batch gives its place in the window back when a majority has it: what this node's own apply
//! takes must not hold up the cluster. How much may wait for that apply is bounded apart from it.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::OneshotReceiverOf;

use crate::config::Limits;
use crate::types::{LogId, TypeConfig};

use super::Sources;

/// Batches that are committed and wait for apply. Below the number of commands that openraft
/// queues for the state machine (1024): its core stands still while that queue is full.
const UNAPPLIED_BATCHES_MAX: usize = 512;

pub(super) type Responder = ProgressResponder<TypeConfig, ClientWriteResult<TypeConfig>>;
type Commit = OneshotReceiverOf<TypeConfig, LogId>;
type Completion = OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>;

/// What became of one batch.
enum Step {
    Committed { sources: Sources, size_bytes: usize, completion: Completion },
    Refused { sources: Sources, size_bytes: usize },
    Applied { size_bytes: usize },
}

/// What the pump has to know of it.
pub(super) enum Progress {
    /// A majority has it: every node will apply it.
    Committed(Sources),
    /// Refused, or discarded with its fate unknown.
    Refused(Sources),
    Applied,
}

pub(super) struct Window {
    limits: Limits,
    steps: FuturesUnordered<BoxFuture<'static, Step>>,
    n_uncommitted: usize,
    /// Bytes that were proposed and are not yet applied, committed or not.
    unapplied_bytes: usize,
}

impl Window {
    pub(super) fn new(limits: Limits) -> Window {
        Window { limits, steps: FuturesUnordered::new(), n_uncommitted: 0, unapplied_bytes: 0 }
    }

    /// Whether another batch may be proposed.
    pub(super) fn has_room(&self) -> bool {
        self.n_uncommitted < self.limits.batches_in_flight_max
            && self.steps.len() < UNAPPLIED_BATCHES_MAX
            && self.unapplied_bytes < self.limits.unapplied_bytes_max
    }

    /// Batches that were proposed and are not yet applied.
    pub(super) fn n_under_way(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    /// Takes a batch in; the responder goes with it to the engine.
    pub(super) fn enter(&mut self, batch: &Bytes, sources: Sources) -> Responder {
        let (responder, commit, completion) = Responder::new();
        let size_bytes = batch.len();
        self.n_uncommitted += 1;
        self.unapplied_bytes += size_bytes;
        self.steps.push(Box::pin(committed(sources, size_bytes, commit, completion)));
        responder
    }

    /// The next thing that happens to a batch; `None` while there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Progress> {
        Some(match self.steps.next().await? {
            Step::Committed { sources, size_bytes, completion } => {
                self.n_uncommitted -= 1;
                self.steps.push(Box::pin(applied(size_bytes, completion)));
                Progress::Committed(sources)
            }
            Step::Refused { sources, size_bytes } => {
                self.n_uncommitted -= 1;
                self.unapplied_bytes -= size_bytes;
                Progress::Refused(sources)
            }
            Step::Applied { size_bytes } => {
                self.unapplied_bytes -= size_bytes;
                Progress::Applied
            }
        })
    }
}

/// A responder that is dropped, or answers, without a commit means that there will be none here.
async fn committed(
    sources: Sources,
    size_bytes: usize,
    commit: Commit,
    completion: Completion,
) -> Step {
    match commit.await {
        Ok(_) => Step::Committed { sources, size_bytes, completion },
        Err(_) => Step::Refused { sources, size_bytes },
    }
}

async fn applied(size_bytes: usize, completion: Completion) -> Step {
    // Whatever it says: nothing of the batch waits here any more.
    drop(completion.await);
    Step::Applied { size_bytes }
}

#[cfg(test)]
mod tests {
    use openraft::raft::responder::Responder as _;

    use super::*;

    fn sources() -> Sources {
        Sources { own_first_seq: Some(1), answers: Vec::new() }
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(crate::types::LeaderId { term: 1, node_id: 1 }, index)
    }

    #[tokio::test]
    async fn a_place_is_free_at_commit_and_bytes_at_apply() {
        let limits =
            Limits { batches_in_flight_max: 1, unapplied_bytes_max: 150, ..Limits::default() };
        let mut window = Window::new(limits);
        let batch = Bytes::from(vec![0; 100]);
        let mut first = window.enter(&batch, sources());
        assert!(!window.has_room(), "one batch may be uncommitted");
        first.on_commit(log_id(1));
        assert!(matches!(window.next().await, Some(Progress::Committed(_))));
        assert!(window.has_room(), "it is not applied yet");
        let mut second = window.enter(&batch, sources());
        second.on_commit(log_id(2));
        assert!(matches!(window.next().await, Some(Progress::Committed(_))));
        assert!(!window.has_room(), "200 B wait for apply");
        drop(first);
        assert!(matches!(window.next().await, Some(Progress::Applied)));
        assert!(window.has_room());
        assert_eq!((window.n_under_way(), window.unapplied_bytes()), (1, 100));
    }

    #[tokio::test]
    async fn a_batch_that_is_answered_without_a_commit_is_refused() {
        let mut window = Window::new(Limits::default());
        let responder = window.enter(&Bytes::from_static(b"batch"), sources());
        drop(responder);
        assert!(matches!(window.next().await, Some(Progress::Refused(_))));
        assert!(window.next().await.is_none());
        assert_eq!(window.unapplied_bytes(), 0);
    }
}
