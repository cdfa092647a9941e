//! Moves commands towards the log: into it while this node leads, else to the node that does.
//!
//! One task per node. A batch goes at once where nothing is under way, so a lone client never
//! lingers; while something is, the next one gathers until it is full, so batches grow with load.

mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::quorate::{ForwardReply, ForwardRequest, ForwardVerdict};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::clock_sync::ClockSync;
use crate::config::Limits;
use crate::engine::Engine;
use crate::inbound::{Answer, Inbound};
use crate::leadership::Leadership;
use crate::peers::Peers;
use crate::propose::{Proposer, RunBounds, Waiting, encode_batch};
use crate::room::{FreesRoom, Room};
use crate::storage_metrics::StorageMetrics;
use crate::types::{LeaderId, Payload};

use window::{Progress, Window};

/// A leader that refuses is between two states that change within milliseconds (a lease that is
/// not granted yet, a transfer under way).
const REFUSED_PAUSE: Duration = Duration::from_millis(3);

/// Between two looks at a disk without room.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Between two attempts to open a stream to the same leader.
const REDIAL_PAUSE: Duration = Duration::from_millis(20);

/// So many damaged runs one after the other are no accident.
const DAMAGED_MAX: u32 = 4;

/// A batch gathers no longer than this behind those under way, however far the peers.
const GATHER_MAX: Duration = Duration::from_millis(10);

pub(crate) struct Pump {
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) engine: Engine,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) clocks: Arc<ClockSync>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<StorageMetrics>,
    pub(crate) room: Arc<Room>,
    pub(crate) cancel: CancellationToken,
    /// Whose turn it was to begin the last batch.
    pub(crate) others_first: bool,
}

/// What a batch was made of.
struct Sources {
    /// Number of this node's first command in it.
    own_first_seq: Option<u64>,
    answers: Vec<Answer>,
}

/// A run that the leader has not answered.
#[derive(Clone, Copy, Default)]
struct SentRun {
    first_seq: u64,
    n_commands: usize,
}

/// When the next batch goes.
#[derive(Default)]
struct Gathering {
    until: Option<Instant>,
}

impl Gathering {
    fn is_due(&mut self, n_under_way: usize, waiting: Waiting, limits: &Limits) -> bool {
        let full = waiting.n_commands >= limits.batch_commands_max
            || waiting.size_bytes >= limits.batch_bytes_max;
        if n_under_way == 0 || waiting.n_commands == 0 || full {
            self.until = None;
            return waiting.n_commands > 0;
        }
        let now = Instant::now();
        if now < *self.until.get_or_insert(now + GATHER_MAX) {
            return false;
        }
        self.until = None;
        true
    }
}

impl Pump {
    pub(crate) async fn run(mut self) {
        let cancel = self.cancel.clone();
        // Nothing in here owns state that a cancelled await could lose: slots stay in the queue
        // until they are answered.
        tokio::select! {
            () = self.drive() => {}
            () = cancel.cancelled() => {}
        }
        self.inbound.close();
    }

    async fn drive(&mut self) {
        loop {
            let leadership = *self.leadership.borrow_and_update();
            match (leadership.mine, leadership.leader) {
                (Some(leader_id), _) => self.lead(leader_id).await,
                (None, Some(leader)) => self.follow(leader, leadership.term).await,
                (None, None) => drop(self.leadership.changed().await),
            }
            if self.leadership.has_changed().is_err() {
                return;
            }
            self.proposer.rewind_all();
        }
    }

    /// Proposes until this leadership ends.
    async fn lead(&mut self, leader_id: LeaderId) {
        self.inbound.open();
        let mut window = Window::new(self.limits);
        let mut paused_until: Option<Instant> = None;
        let mut gathering = Gathering::default();
        loop {
            // A leader without room hands over; until then nothing is appended here.
            if paused_until.is_none() && !self.has_room() {
                paused_until = Some(Instant::now() + NO_ROOM_PAUSE);
            }
            while window.has_room()
                && paused_until.is_none()
                && gathering.is_due(window.n_under_way(), self.waiting(), &self.limits)
            {
                let Some((batch, sources)) = self.next_batch() else {
                    break;
                };
                for answer in &sources.answers {
                    answer.appended();
                }
                let responder = window.enter(&batch, sources);
                let write = self.engine.write(Payload(batch)).with_leader(leader_id);
                if write.responder(responder).await.is_err() {
                    self.inbound.close();
                    return;
                }
            }
            self.metrics.apply_waiting_bytes.set(window.unapplied_bytes() as u64);
            let has_room = window.has_room();
            // All arms are cancel-safe: watch, notify, timer, and a stream of receivers.
            tokio::select! {
                changed = self.leadership.changed() => {
                    let still_mine = self.leadership.borrow().mine == Some(leader_id);
                    if changed.is_err() || !still_mine {
                        break;
                    }
                }
                Some(progress) = window.next() => match progress {
                    // Its outcomes reach each origin through that node's own apply.
                    Progress::Committed(sources) => {
                        sources.answers.into_iter().for_each(Answer::committed);
                    }
                    // The ids keep it from taking effect twice.
                    Progress::Refused(sources) => {
                        if let Some(first_seq) = sources.own_first_seq {
                            self.proposer.rewind(first_seq);
                        }
                        paused_until = Some(Instant::now() + REFUSED_PAUSE);
                    }
                    Progress::Applied => {}
                },
                () = self.proposer.wait_for_work(), if has_room && paused_until.is_none() => {}
                () = sleep_until(paused_until), if paused_until.is_some() => paused_until = None,
                () = sleep_until(gathering.until), if has_room && gathering.until.is_some() => {}
            }
        }
        self.metrics.apply_waiting_bytes.set(0);
        // What is still in flight is told to its origins by dropping it.
        self.inbound.close();
    }

    fn has_room(&self) -> bool {
        self.room.takes(FreesRoom::from(self.room.is_tight()))
    }

    /// Commands that a batch would take.
    fn waiting(&self) -> Waiting {
        let (own, others) = (self.proposer.unsent(), self.inbound.waiting());
        Waiting {
            n_commands: own.n_commands + others.n_commands,
            size_bytes: own.size_bytes + others.size_bytes,
        }
    }

    fn next_batch(&mut self) -> Option<(Bytes, Sources)> {
        let (proposer, inbound) = (&self.proposer, &self.inbound);
        let (runs, sources) = next_runs(proposer, inbound, &self.limits, &mut self.others_first)?;
        Some((encode_batch(self.clocks.stamp(), &runs), sources))
    }

    /// Sends to `leader` until its term is over.
    async fn follow(&mut self, leader: u64, term: u64) {
        loop {
            let mut leadership = self.leadership.clone();
            let other_leader = async {
                loop {
                    {
                        let now = leadership.borrow_and_update();
                        if (now.leader, now.term) != (Some(leader), term) || now.mine.is_some() {
                            return;
                        }
                    }
                    if leadership.changed().await.is_err() {
                        return;
                    }
                }
            };
            let stream = async {
                if let Err(status) = self.stream_to(leader).await {
                    tracing::debug!(node = leader, error = %status, "forward stream ended");
                }
                tokio::time::sleep(REDIAL_PAUSE).await;
            };
            tokio::select! {
                // A stream that is cut off loses nothing: all that is open is sent again.
                () = other_leader => return,
                () = stream => self.proposer.rewind_all(),
            }
        }
    }

    async fn stream_to(&self, leader: u64) -> Result<(), tonic::Status> {
        let peer = self.peers.get(leader)?;
        let window = self.limits.runs_in_flight_max;
        let (sender, receiver) = mpsc::channel::<ForwardRequest>(window);
        let request = peer.request(ReceiverStream::new(receiver));
        let mut replies = peer.control().forward(request).await?.into_inner();
        let mut unanswered = BTreeMap::new();
        let mut n_damaged = 0;
        let mut next_id = 0;
        let mut paused_until: Option<Instant> = None;
        let mut gathering = Gathering::default();
        let bounds = RunBounds {
            commands_max: self.limits.batch_commands_max,
            bytes_max: self.limits.batch_bytes_max,
        };
        loop {
            while unanswered.len() < window
                && paused_until.is_none()
                && gathering.is_due(unanswered.len(), self.proposer.unsent(), &self.limits)
            {
                let Some(run) = self.proposer.take_run(bounds) else {
                    break;
                };
                next_id += 1;
                let sent = SentRun { first_seq: run.first_seq, n_commands: run.n_commands };
                unanswered.insert(next_id, sent);
                let request = ForwardRequest {
                    id: next_id,
                    run_crc32c: crc32c::crc32c(&run.bytes),
                    run: run.bytes,
                    n_commands: u32::try_from(run.n_commands).unwrap_or(u32::MAX),
                };
                if sender.send(request).await.is_err() {
                    return Ok(());
                }
            }
            let has_room = unanswered.len() < window;
            tokio::select! {
                // Cancel-safe: a message is taken whole or not at all.
                reply = replies.message() => {
                    let Some(reply) = reply? else {
                        return Ok(());
                    };
                    if self.take_verdicts(reply, &mut unanswered, &mut n_damaged) {
                        paused_until = Some(Instant::now() + REFUSED_PAUSE);
                    }
                }
                () = self.proposer.wait_for_work(), if has_room && paused_until.is_none() => {}
                () = sleep_until(paused_until), if paused_until.is_some() => paused_until = None,
                () = sleep_until(gathering.until), if has_room && gathering.until.is_some() => {}
            }
        }
    }

    /// Whether the leader refused something.
    fn take_verdicts(
        &self,
        reply: ForwardReply,
        unanswered: &mut BTreeMap<u64, SentRun>,
        n_damaged: &mut u32,
    ) -> bool {
        let mut refused = false;
        for result in reply.results {
            let sent = unanswered.remove(&result.id).unwrap_or_default();
            match result.verdict() {
                ForwardVerdict::Appended => *n_damaged = 0,
                ForwardVerdict::Overloaded => {
                    self.proposer.rewind_unappended(sent.first_seq);
                    refused = true;
                }
                ForwardVerdict::Damaged => {
                    *n_damaged += 1;
                    tracing::error!(n_damaged, "a run was damaged on its way to the leader");
                    if *n_damaged < DAMAGED_MAX {
                        self.proposer.rewind_unappended(sent.first_seq);
                    } else {
                        let reason = "it was damaged on its way to the leader each time";
                        self.proposer.refused(sent.first_seq, sent.n_commands, reason);
                    }
                    refused = true;
                }
                ForwardVerdict::Refused => {
                    tracing::error!(reason = result.reason, "the leader refused a run");
                    self.proposer.refused(sent.first_seq, sent.n_commands, &result.reason);
                }
                ForwardVerdict::NotLeader | ForwardVerdict::Unspecified => {
                    self.proposer.rewind_all();
                    refused = true;
                }
            }
        }
        refused
    }
}

/// What goes into a batch: commands of this node's clients and runs of other nodes, which begin a
/// batch in turn.
///
/// The run that begins one goes however large it is: what this node's clients leave of a batch may
/// always be too small for it, and all other runs wait behind it.
fn next_runs(
    proposer: &Proposer,
    inbound: &Inbound,
    limits: &Limits,
    others_first: &mut bool,
) -> Option<(Vec<Bytes>, Sources)> {
    *others_first = !*others_first;
    let mut room =
        RunBounds { commands_max: limits.batch_commands_max, bytes_max: limits.batch_bytes_max };
    let others_wait = !inbound.is_empty();
    let mut others = Vec::new();
    if *others_first && let Some(run) = inbound.pop(RunBounds::NONE) {
        room = room.without(run.n_commands, run.bytes.len());
        others.push(run);
    }
    let share = if others_wait && !*others_first {
        RunBounds { commands_max: room.commands_max / 2, bytes_max: room.bytes_max / 2 }
    } else {
        room
    };
    let own = proposer.take_run(share);
    if let Some(run) = &own {
        room = room.without(run.n_commands, run.bytes.len());
    }
    loop {
        // A run that is larger than a batch travels alone.
        let is_empty = own.is_none() && others.is_empty();
        let bounds = if is_empty { RunBounds::NONE } else { room };
        let Some(run) = inbound.pop(bounds) else { break };
        room = room.without(run.n_commands, run.bytes.len());
        others.push(run);
    }
    let own_first_seq = own.as_ref().map(|run| run.first_seq);
    let (mut runs, mut answers) = (Vec::new(), Vec::new());
    runs.extend(own.map(|run| run.bytes));
    for run in others {
        runs.push(run.bytes);
        answers.push(run.answer);
    }
    (!runs.is_empty()).then_some((runs, Sources { own_first_seq, answers }))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use proto::quorate::command::Kind;
    use proto::quorate::{Command, RegisterOrigin};
    use statemachine::{RequestId, Response};

    use super::*;
    use crate::apply::{OutcomeSink, Outcomes};
    use crate::inbound::InboundRun;

    const NODE: u64 = 1;
    const NONCE: u64 = 7;

    /// Submits a command of two dozen bytes, whose outcome nobody waits for.
    fn submit(proposer: &Proposer) {
        let any = RegisterOrigin { node: u64::MAX, nonce: u64::MAX };
        let command = Command { fence: None, kind: Some(Kind::RegisterOrigin(any)) };
        drop(proposer.submit(&command, Instant::now() + Duration::from_secs(60)).unwrap());
    }

    #[tokio::test]
    async fn no_clients_hold_up_those_of_another_node() {
        let limits = Limits { batch_bytes_max: 64, ..Limits::default() };
        let proposer = Proposer::new(NODE, NONCE, limits, tokio::runtime::Handle::current());
        let registration = RequestId { origin: NODE, epoch: 0, seq: NONCE };
        let registered = Ok(Response::OriginRegistered { epoch: 1 });
        let by_request = vec![(registration, registered)];
        proposer.applied(1, Outcomes { by_request, image: None });
        let inbound = Inbound::new(limits.inbound_bytes_max, Arc::clone(&proposer));
        inbound.open();
        let (sender, _answers) = mpsc::unbounded_channel();
        // Too large for what one of our own commands leaves of a batch.
        let bytes = Bytes::from(vec![0; limits.batch_bytes_max * 3 / 4]);
        inbound.push(InboundRun { bytes, n_commands: 2, answer: Answer::new(1, sender) });
        let mut others_first = true;
        for n_others in [0, 1] {
            for _ in 0..3 {
                submit(&proposer);
            }
            let (_, sources) = next_runs(&proposer, &inbound, &limits, &mut others_first).unwrap();
            assert!(sources.own_first_seq.is_some(), "our own clients wait");
            assert_eq!(sources.answers.len(), n_others);
        }
        assert!(inbound.is_empty());
    }

    fn few() -> Waiting {
        Waiting { n_commands: 3, size_bytes: 300 }
    }

    #[test]
    fn a_batch_goes_at_once_where_none_is_under_way() {
        let mut gathering = Gathering::default();
        assert!(gathering.is_due(0, few(), &Limits::default()));
        assert!(!gathering.is_due(0, Waiting::default(), &Limits::default()), "it would be empty");
    }

    #[test]
    fn behind_another_a_batch_gathers_until_it_is_full_or_late() {
        let limits = Limits::default();
        let mut gathering = Gathering::default();
        assert!(!gathering.is_due(1, few(), &limits));
        let many = Waiting { n_commands: limits.batch_commands_max, size_bytes: 1 };
        assert!(gathering.is_due(1, many, &limits));
        let large = Waiting { n_commands: 1, size_bytes: limits.batch_bytes_max };
        assert!(gathering.is_due(1, large, &limits));
        assert!(!gathering.is_due(1, few(), &limits), "a new batch gathers anew");
        gathering.until = gathering.until.map(|until| until - GATHER_MAX);
        assert!(gathering.is_due(1, few(), &limits));
        assert_eq!(gathering.until, None);
    }
}
