//! What exists only while this node leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::quorate;
use proto::quorate::command::Kind;
use proto::quorate::coordinator_command::Area;
use raft::{Consistency, Node, Tenure, View};
use statemachine::view::ServerId;
use statemachine::{Response, grows};
use tokio::time::Instant;

use super::clients::Clients;
use super::duty::garbage::Unnamed;
use super::ids::Ids;
use super::observed::Observed;
use super::settings::CoordinatorSettings;
use super::tso::Tso;
use super::wakes::Wakes;
use super::{Coordinator, Failure};

/// How long a command or a read barrier may take before the caller is told to look elsewhere.
const ROUND_TIMEOUT: Duration = Duration::from_secs(3);

/// Why nothing that grows is proposed while fewer than a majority have room.
const FULL: &str =
    "the disks of a majority of the members are below their low marks: make room there";

/// One tenure of the coordinator. Cheap to share, useless once `tenure.cancel` is cancelled.
pub(crate) struct Lead {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) tenure: Tenure,
    /// Under which Milvus knows this tenure.
    pub(crate) server: ServerId,
    pub(crate) ids: Ids,
    pub(crate) tso: Tso,
    /// Facts that are not replicated: row counts, ticks, what was handed out.
    pub(crate) observed: Observed,
    pub(crate) wakes: Arc<Wakes>,
    /// Files of the object store that no record names.
    pub(crate) unnamed: Mutex<Unnamed>,
    /// The role is being handed over: nothing new begins.
    pub(super) closing: AtomicBool,
}

impl Lead {
    pub(crate) fn node(&self) -> &Node {
        &self.coordinator.node
    }

    pub(crate) fn settings(&self) -> &CoordinatorSettings {
        &self.coordinator.settings
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.coordinator.clients
    }

    /// Whether the role is being handed over: then nothing is assigned or planned any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Cluster time, Unix milliseconds: what times on record are compared with. This machine's own
    /// clock may be set to anything.
    pub(crate) fn now_ms(&self) -> u64 {
        self.node().now_ms()
    }

    /// As [`Lead::now_ms`], in the unit of a segment's `dropped_at`.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ms().saturating_mul(1_000_000)
    }

    /// What this node has applied: never older than what this tenure itself proposed and saw
    /// committed, but perhaps of a leader that was deposed without knowing it. For duties.
    pub(crate) fn local(&self) -> View {
        self.node().local_view()
    }

    /// For answers to Milvus: nothing that was acknowledged before the call is missing.
    ///
    /// # Errors
    /// Unavailable: the leadership cannot be confirmed.
    pub(crate) async fn view(&self) -> Result<View, Failure> {
        let deadline = Instant::now() + ROUND_TIMEOUT;
        match self.node().view(Consistency::Linearizable, deadline).await {
            Ok(view) => Ok(view),
            Err(error) => {
                // Nobody who asks here now gets an answer.
                self.coordinator.connections.cut();
                Err(error.into())
            }
        }
    }

    /// Carries out a command under the fence of this tenure, and waits until it is applied here.
    ///
    /// # Errors
    /// Refused by the state machine; or unavailable. [`Failure::is_without_effect`] says whether the
    /// command may still be carried out.
    pub(crate) async fn propose(&self, area: Area) -> Result<quorate::CoordinatorOutcome, Failure> {
        let command = quorate::Command {
            fence: None,
            kind: Some(Kind::Coordinator(quorate::CoordinatorCommand { area: Some(area) })),
        };
        // Apply would refuse it, and each attempt would take room in the logs.
        if self.node().is_tight() && command.kind.as_ref().is_some_and(grows) {
            return Err(Failure::Unavailable(FULL.to_owned()));
        }
        let deadline = Instant::now() + ROUND_TIMEOUT;
        let committed = self.node().propose_fenced(&self.tenure, command, deadline).await?;
        let outcome = committed.outcome?;
        let Response::Coordinator(done) = outcome else {
            tracing::error!(?outcome, "outcome of another command");
            return Err(Failure::Unknown("the answer is to another command".to_owned()));
        };
        Ok(done)
    }

    pub(crate) async fn propose_segment(
        &self,
        kind: quorate::segment_command::Kind,
    ) -> Result<quorate::CoordinatorOutcome, Failure> {
        self.propose(Area::Segment(quorate::SegmentCommand { kind: Some(kind) })).await
    }

    pub(crate) async fn propose_channel(
        &self,
        kind: quorate::channel_command::Kind,
    ) -> Result<quorate::CoordinatorOutcome, Failure> {
        self.propose(Area::Channel(quorate::ChannelCommand { kind: Some(kind) })).await
    }

    pub(crate) async fn propose_index(
        &self,
        kind: quorate::index_command::Kind,
    ) -> Result<quorate::CoordinatorOutcome, Failure> {
        self.propose(Area::Index(quorate::IndexCommand { kind: Some(kind) })).await
    }

    pub(crate) async fn propose_compaction(
        &self,
        kind: quorate::compaction_command::Kind,
    ) -> Result<quorate::CoordinatorOutcome, Failure> {
        self.propose(Area::Compaction(quorate::CompactionCommand { kind: Some(kind) })).await
    }
}
