//! A node of the cluster: what the layer above talks to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::quorate;
use proto::quorate::change_members_request::{
    AddLearner, Change, Promote, Remove, Replace, UpdateEndpoints,
};
use statemachine::Fault;
use statemachine::admission::admit_command;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status as Refusal;

use crate::apply::{Attention, Subscription};
use crate::clock::Clock;
use crate::clock_sync::ClockSync;
use crate::config::{Limits, NodeOptions, Timers};
use crate::confirm::Confirmer;
use crate::contact::Contact;
use crate::convert::member_to_proto;
use crate::dir_lock::DirLock;
use crate::engine::Engine;
use crate::error::{AskError, LeaderHint, MembershipError, ProposeError, ReadError, StartError};
use crate::identity::StoredIdentity;
use crate::inbound::Inbound;
use crate::intake::Intake;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::notes::PeerNotes;
use crate::peers::{Peers, Trouble};
use crate::places::Places;
use crate::propose::{Committed, Proposer};
use crate::read::ReadBarrier;
use crate::room::{self, RoomView};
use crate::status::{NodeState, Role, Status};
use crate::storage::StorageControl;
use crate::tenure::Tenure;
use crate::threads::RaftThreads;
use crate::types::{Endpoints, NodeMeta};
use crate::view::View;
use crate::who::Identity;
use crate::{hand_over, membership, start};

/// Answers questions of other nodes on behalf of the layer above.
pub trait PeerHandler: Send + Sync + 'static {
    fn ask(&self, from: u64, topic: u32, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Sees all that was committed before the call, anywhere.
    Linearizable,
    /// Sees what this node has applied.
    Local,
}

/// A running node. Clones share it.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) identity: Arc<Identity>,
    /// What is on disk; also the lock of those who change it.
    pub(crate) stored_identity: tokio::sync::Mutex<StoredIdentity>,
    /// How often a node was started on this directory, this time included.
    pub(crate) starts: u64,
    /// Drawn for this start.
    pub(crate) run: u64,
    /// What the others have promised.
    pub(crate) notes: Arc<PeerNotes>,
    /// The engine runs: this node takes part in its cluster.
    pub(crate) admitted: AtomicBool,
    /// Why it never will with this directory, and what to do.
    pub(crate) refused: OnceLock<String>,
    pub(crate) meta: NodeMeta,
    pub(crate) version: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) initial_cluster: Vec<(String, String)>,
    pub(crate) timers: Timers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) clocks: Arc<ClockSync>,
    pub(crate) limits: Limits,
    pub(crate) engine: Engine,
    pub(crate) storage: StorageControl,
    pub(crate) peers: Arc<Peers>,
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) intake: Intake,
    /// Streams to followers that lack entries up to here are given up.
    pub(crate) cutoff: watch::Sender<u64>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) barrier: Arc<ReadBarrier>,
    pub(crate) confirmer: Arc<Confirmer>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) peer_places: Arc<Places>,
    pub(crate) handler: Arc<dyn PeerHandler>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) status: watch::Sender<Status>,
    /// Index, views and all that was committed before the start are here.
    pub(crate) recovered: AtomicBool,
    pub(crate) tenure: watch::Receiver<Option<Tenure>>,
    pub(crate) runtime: Handle,
    pub(crate) on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
    pub(crate) cancel: CancellationToken,
    /// Nobody else has the directory while this lives.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) dir_lock: DirLock,
    /// They end with the last handle on the node, which may be dropped on one of them.
    pub(crate) threads: Mutex<Option<RaftThreads>>,
}

impl Inner {
    pub(crate) fn set_state(&self, state: NodeState) {
        self.status.send_if_modified(|status| {
            let changed = status.state != state;
            if changed {
                tracing::info!(from = %status.state, to = %state, "node state");
                status.state = state;
                status.cluster = self.identity.cluster();
            }
            changed
        });
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    pub(crate) fn note_admitted(&self) {
        self.admitted.store(true, Ordering::Release);
    }

    pub(crate) fn note_refused(&self, reason: String) {
        // The first reason stays.
        drop(self.refused.set(reason));
    }

    /// # Errors
    /// This node takes no part in its cluster, for now or for good.
    pub(crate) fn check_admitted(&self) -> Result<(), Refusal> {
        let node = self.identity.node;
        if let Some(reason) = self.refused.get() {
            return Err(Refusal::failed_precondition(format!("node {node:016x} is out: {reason}")));
        }
        match self.is_admitted() {
            true => Ok(()),
            false => Err(Refusal::unavailable(format!(
                "node {node:016x} still asks its peers whether it may take part"
            ))),
        }
    }

    /// Makes durable what is noted of the others.
    pub(crate) async fn save_notes(&self) {
        let notes = Arc::clone(&self.notes);
        let saved = tokio::task::spawn_blocking(move || notes.save()).await;
        match saved {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what the peers promised is not saved"),
            Err(error) => tracing::error!(%error, "saving what the peers promised panicked"),
        }
    }

    fn state_now(&self) -> NodeState {
        self.status.borrow().state
    }

    fn leader_hint(&self) -> Option<Box<LeaderHint>> {
        self.status.borrow().leader.clone().map(Box::new)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Node {
    /// Opens the directory, replays the log and joins the peers. Returns while the node still
    /// looks for its cluster or recovers: `status` tells how far it is.
    ///
    /// # Errors
    /// The directory belongs to another node or version, the storage is damaged, or an option
    /// cannot work.
    pub async fn start(
        options: NodeOptions,
        handler: Arc<dyn PeerHandler>,
    ) -> Result<Node, StartError> {
        let threads = RaftThreads::start(options.raft_threads).map_err(StartError::Runtime)?;
        let handle = threads.handle().clone();
        // Everything below is made on the node's own threads: tasks of the engine and of
        // connections stay where they are made.
        let callers = Handle::current();
        let starting = handle.spawn(start::start(options, handler, handle.clone(), callers));
        let started =
            starting.await.unwrap_or_else(|error| Err(StartError::Consensus(error.to_string())));
        match started {
            Ok(inner) => {
                *inner.threads.lock() = Some(threads);
                Ok(Node { inner })
            }
            Err(error) => Err(error),
        }
    }

    pub fn id(&self) -> u64 {
        self.inner.identity.node
    }

    pub fn name(&self) -> &str {
        &self.inner.meta.name
    }

    /// Zero while the node has none.
    pub fn cluster_id(&self) -> u64 {
        self.inner.identity.cluster()
    }

    /// Proposes a command and waits until this node has applied it. It takes effect at most once,
    /// whatever happens to leaders meanwhile.
    ///
    /// # Errors
    /// No outcome; see the variants for what is known of the command.
    pub async fn propose(
        &self,
        command: quorate::Command,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        let inner = &self.inner;
        let state = inner.state_now();
        if state < NodeState::Recovering {
            return Err(ProposeError::NotReady { state });
        }
        admit_command(&command, || inner.storage.state.view().level())
            .map_err(|refused| ProposeError::Refused { reason: refused.to_string() })?;
        let outcome = inner.proposer.submit(&command, deadline)?;
        drop(command);
        // The sweeper answers soon after the deadline; no timer of its own for each command.
        match outcome.await {
            Ok(Err(ProposeError::NotLeader { .. })) => {
                Err(ProposeError::NotLeader { leader: inner.leader_hint() })
            }
            Ok(result) => result,
            Err(_) => Err(ProposeError::ShuttingDown),
        }
    }

    /// Proposes a command that only takes effect under `tenure`.
    ///
    /// # Errors
    /// As `propose`; a tenure that is over by the time of apply is a rejection.
    pub async fn propose_fenced(
        &self,
        tenure: &Tenure,
        mut command: quorate::Command,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        if tenure.cancel.is_cancelled() {
            return Err(ProposeError::NotLeader { leader: self.inner.leader_hint() });
        }
        command.fence = Some(quorate::Fence { term: tenure.term, node: tenure.node });
        self.propose(command, deadline).await
    }

    /// The state as it is now, or as fresh as `consistency` asks.
    ///
    /// # Errors
    /// The node is not ready, or no leader confirmed the read in time.
    pub async fn view(
        &self,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<View, ReadError> {
        let inner = &self.inner;
        let state = inner.state_now();
        if state < NodeState::Keyspace {
            return Err(ReadError::NotReady { state });
        }
        match consistency {
            Consistency::Local => Ok(inner.storage.state.view()),
            Consistency::Linearizable => match inner.barrier.pass(deadline).await {
                Some(_) => Ok(inner.storage.state.view()),
                None => Err(ReadError::NoLeader { leader: inner.leader_hint() }),
            },
        }
    }

    /// The state as this node has it now, ready or not.
    pub fn local_view(&self) -> View {
        self.inner.storage.state.view()
    }

    /// Resolves when a quorum confirmed this node's leadership in a round that began after the
    /// call.
    ///
    /// # Errors
    /// This node does not lead, or no quorum answered in time.
    pub async fn confirm_leadership(&self, deadline: Instant) -> Result<(), ReadError> {
        let inner = &self.inner;
        let leads = inner.leadership.borrow().mine.is_some();
        if leads
            && let Some(round) = inner.barrier.pass(deadline).await
            && round.leader == inner.identity.node
        {
            return Ok(());
        }
        Err(ReadError::NoLeader { leader: inner.leader_hint() })
    }

    /// Everything that this node applies from now on.
    pub fn applied(&self) -> Subscription {
        self.inner.storage.state.subscribe()
    }

    /// Wakes those who follow what is applied at each event, while it is held.
    pub fn attend(&self) -> Attention {
        self.inner.storage.state.attend()
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.subscribe()
    }

    pub fn tenure(&self) -> watch::Receiver<Option<Tenure>> {
        self.inner.tenure.clone()
    }

    /// Waits until the node is at least in `state`.
    ///
    /// # Errors
    /// The deadline passed first.
    pub async fn wait_for_state(
        &self,
        state: NodeState,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        let mut status = self.status();
        match timeout_at(deadline, status.wait_for(|status| status.state >= state)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::ShuttingDown),
            Err(_) => Err(ReadError::NotReady { state: self.inner.state_now() }),
        }
    }

    /// Asks the leader's handler; this node's own where it leads.
    ///
    /// # Errors
    /// No leader, no connection, no answer in time, or the handler's refusal.
    pub async fn ask_leader(
        &self,
        topic: u32,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, AskError> {
        let leader = {
            let leadership = self.inner.leadership.borrow();
            leadership.mine.map(|leader_id| leader_id.node_id).or(leadership.leader)
        };
        match leader {
            Some(leader) => self.ask(leader, topic, body, deadline).await,
            None => Err(AskError::NoLeader),
        }
    }

    /// Asks a node's handler.
    ///
    /// # Errors
    /// As `ask_leader`.
    pub async fn ask(
        &self,
        node: u64,
        topic: u32,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, AskError> {
        let inner = &self.inner;
        if node == inner.identity.node {
            let answer = inner.handler.ask(node, topic, body);
            return match timeout_at(deadline, answer).await {
                Ok(answer) => answer.map_err(AskError::Refused),
                Err(_) => Err(AskError::Deadline),
            };
        }
        let peer = inner.peers.get(node).map_err(|_unknown| AskError::UnknownNode { node })?;
        let request = peer.request(quorate::AskRequest { topic, body });
        let mut client = peer.control();
        let reply = match timeout_at(deadline, client.ask(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => {
                return Err(AskError::Unreachable { node, reason: status.message().to_owned() });
            }
            Err(_) => return Err(AskError::Deadline),
        };
        match reply.result {
            Some(quorate::ask_reply::Result::Body(body)) => Ok(body),
            Some(quorate::ask_reply::Result::Refused(reason)) => Err(AskError::Refused(reason)),
            None => Err(AskError::Refused("the answer is empty".to_owned())),
        }
    }

    /// Takes the node that listens for peers at `peer` in as a learner; returns its id.
    ///
    /// # Errors
    /// As every membership change: the leader's refusal, or no leader in time.
    pub async fn add_learner(&self, peer: &str, deadline: Instant) -> Result<u64, MembershipError> {
        self.change(Change::AddLearner(AddLearner { peer: peer.to_owned() }), deadline).await
    }

    /// Makes a learner that has caught up a voter.
    ///
    /// # Errors
    /// As `add_learner`.
    pub async fn promote(&self, node: u64, deadline: Instant) -> Result<(), MembershipError> {
        self.change(Change::Promote(Promote { node }), deadline).await.map(drop)
    }

    /// Takes a node out of the cluster, for good.
    ///
    /// # Errors
    /// As `add_learner`.
    pub async fn remove(&self, node: u64, deadline: Instant) -> Result<(), MembershipError> {
        self.change(Change::Remove(Remove { node }), deadline).await.map(drop)
    }

    /// Puts the new node that listens for peers at `peer` into the place of `old`; returns its
    /// id. Waits until the new node has caught up; may be called again after a deadline.
    ///
    /// # Errors
    /// As `add_learner`.
    pub async fn replace(
        &self,
        old: u64,
        peer: &str,
        deadline: Instant,
    ) -> Result<u64, MembershipError> {
        self.change(Change::Replace(Replace { old, peer: peer.to_owned() }), deadline).await
    }

    /// Tells the cluster where this or another member is reached from now on.
    ///
    /// # Errors
    /// As `add_learner`.
    pub async fn update_endpoints(
        &self,
        node: u64,
        meta: &NodeMeta,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let member = Some(member_to_proto(node, meta));
        self.change(Change::UpdateEndpoints(UpdateEndpoints { member }), deadline).await.map(drop)
    }

    /// Hands the leadership to `to`, or to the voter that has most of the log; returns the new
    /// leader.
    ///
    /// # Errors
    /// As `add_learner`; or the other node did not take over in time.
    pub async fn transfer_leader(
        &self,
        to: Option<u64>,
        deadline: Instant,
    ) -> Result<u64, MembershipError> {
        self.change(Change::TransferTo(to.unwrap_or_default()), deadline).await
    }

    async fn change(&self, change: Change, deadline: Instant) -> Result<u64, MembershipError> {
        membership::change(&self.inner, change, deadline).await
    }

    /// Begins a snapshot now.
    pub async fn snapshot(&self) {
        // An engine that has stopped takes the node down by itself.
        drop(self.inner.engine.trigger().snapshot().await);
    }

    /// The state of this node is wrong: ends it. Its next start keeps log and vote, and takes the
    /// state of another node before it takes part again.
    pub fn quarantine(&self, reason: &str) {
        self.inner.storage.quarantine(reason);
    }

    /// The room of this node's disk, and on a leader that of the others as they last reported it.
    pub fn rooms(&self) -> BTreeMap<u64, RoomView> {
        room::rooms(&self.inner)
    }

    /// Whether this node leads and fewer than a majority have room on their disks.
    pub fn is_tight(&self) -> bool {
        self.inner.storage.room.is_tight()
    }

    /// On a leader: the members that answer and take no part, with their reasons.
    pub fn troubles(&self) -> BTreeMap<u64, Trouble> {
        let leads = self.inner.leadership.borrow().mine.is_some();
        // What an earlier leadership heard may be long out of date.
        if leads { self.inner.peers.troubles() } else { BTreeMap::new() }
    }

    /// A read of the state failed, or found what cannot be read: nothing here can be trusted any
    /// more, so the node stops.
    pub fn state_failed(&self, fault: &Fault) {
        self.inner.storage.state_failed(fault);
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::gather(&self.inner)
    }

    /// Cluster time as this node knows it, milliseconds since the Unix epoch: what every duration
    /// that the cluster agrees on is measured with. Of the leader exact, of a follower as of the last
    /// heartbeat.
    pub fn now_ms(&self) -> u64 {
        self.inner.clocks.now_ms()
    }

    /// By how many milliseconds this machine's clock is ahead of cluster time; negative behind.
    pub fn clock_skew_ms(&self) -> i64 {
        self.inner.clocks.own_skew_ms()
    }

    /// By how many milliseconds cluster time is ahead of what a majority of all voters' clocks says.
    /// `None` on a node that does not lead, and while the clocks are not known.
    pub fn time_ahead_ms(&self) -> Option<i64> {
        let leads = self.inner.leadership.borrow().mine.is_some();
        if leads { self.inner.clocks.ahead_ms() } else { None }
    }

    /// What this node tells others about itself.
    pub fn endpoints(&self) -> &Endpoints {
        &self.inner.meta.endpoints
    }

    /// Hands the leadership over, flushes and stops. The cluster goes on without a gap.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        if inner.leadership.borrow().mine.is_some() {
            let deadline = Instant::now() + Duration::from_secs(1);
            if let Err(error) = hand_over::transfer(inner, None, deadline).await {
                tracing::warn!(error = %error, "leadership not handed over before the stop");
            }
        }
        self.stop().await;
    }

    /// Stops at once, without a hand-over: what a crash looks like to the other nodes.
    pub async fn stop(&self) {
        let inner = &self.inner;
        inner.cancel.cancel();
        inner.proposer.close();
        if let Err(error) = inner.engine.shutdown().await {
            tracing::warn!(error = %error, "consensus did not stop cleanly");
        }
        if let Err(error) = inner.storage.shutdown().await {
            tracing::error!(error = %error, "storage did not stop cleanly");
        }
        inner.status.send_modify(|status| status.role = Role::Stopped);
    }
}
