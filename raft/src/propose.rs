//! Commands of this node's clients, from `propose` until their outcome is known here.
//!
//! Every command gets a number. Its slot stays until this node has applied it or its deadline
//! passed, so the same command can be offered to one leader after the other under the same id:
//! the state machine keeps it from taking effect twice. Losing a leader is one assignment:
//! `next` goes back and everything that is still open is sent again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, uint64};
use proto::quorate;
use statemachine::{Outcome, Rejection, Response};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::apply::{OutcomeSink, Outcomes};
use crate::clock_sync::Stamp;
use crate::config::Limits;
use crate::error::ProposeError;
use crate::identity::random_id;
use crate::rocks::Pinned;
use crate::tasks;

/// A command that this node has applied.
#[derive(Clone, Debug)]
pub struct Committed {
    pub outcome: Outcome,
    /// This node's state holds the effects of all entries up to here.
    pub index: u64,
    /// The rows that a deferred answer is read from.
    pub image: Option<Arc<Pinned>>,
}

/// Commands of this size may fill a batch while they are few.
const LARGE_BYTES: usize = 1024;

/// Commands that wait for their place in a batch.
#[derive(Clone, Copy, Default)]
pub(crate) struct Waiting {
    pub(crate) n_commands: usize,
    pub(crate) size_bytes: usize,
}

type Reply = oneshot::Sender<Result<Committed, ProposeError>>;

/// A command whose outcome is open.
struct Slot {
    /// Encoded `Command`.
    command: Bytes,
    deadline: Instant,
    /// When it was last handed to a leader.
    sent_at: Option<Instant>,
    /// A leader that is gone may have appended it.
    maybe_appended: bool,
    /// `None` once answered.
    reply: Option<Reply>,
}

struct Queue {
    /// `None` until this start of the node is registered in the state.
    epoch: Option<u64>,
    /// Tells this start's registration from that of an earlier one which is still in the log.
    nonce: u64,
    registration_sent_at: Option<Instant>,
    /// The number of `slots[0]`.
    base: u64,
    slots: VecDeque<Slot>,
    /// The first number that is not with a leader.
    next: u64,
    /// Commands below travel alone: one of a run of several was refused.
    alone_below: u64,
    pending_bytes: usize,
    n_pending: usize,
    closed: bool,
}

/// Commands of this node with consecutive numbers, encoded as a `Run`.
pub(crate) struct EncodedRun {
    pub(crate) bytes: Bytes,
    pub(crate) n_commands: usize,
    pub(crate) first_seq: u64,
}

/// How much a run may hold.
#[derive(Clone, Copy)]
pub(crate) struct RunBounds {
    pub(crate) commands_max: usize,
    pub(crate) bytes_max: usize,
}

impl RunBounds {
    /// No bounds at all.
    pub(crate) const NONE: RunBounds =
        RunBounds { commands_max: usize::MAX, bytes_max: usize::MAX };

    pub(crate) fn without(self, n_commands: usize, size_bytes: usize) -> RunBounds {
        RunBounds {
            commands_max: self.commands_max.saturating_sub(n_commands),
            bytes_max: self.bytes_max.saturating_sub(size_bytes),
        }
    }
}

pub(crate) struct Proposer {
    node: u64,
    /// Where those who propose wait.
    callers: Handle,
    limits: Limits,
    queue: Mutex<Queue>,
    /// Something is to be sent.
    work: Notify,
    registered: Notify,
}

impl Proposer {
    pub(crate) fn new(node: u64, nonce: u64, limits: Limits, callers: Handle) -> Arc<Proposer> {
        Arc::new(Proposer {
            node,
            callers,
            limits,
            queue: Mutex::new(Queue {
                epoch: None,
                nonce,
                registration_sent_at: None,
                base: 1,
                slots: VecDeque::new(),
                next: 1,
                alone_below: 0,
                pending_bytes: 0,
                n_pending: 0,
                closed: false,
            }),
            work: Notify::new(),
            registered: Notify::new(),
        })
    }

    /// Takes a command in. Its outcome arrives on the receiver, at the latest soon after
    /// `deadline`.
    ///
    /// # Errors
    /// Too large, or too much under way already.
    pub(crate) fn submit(
        &self,
        command: &quorate::Command,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Result<Committed, ProposeError>>, ProposeError> {
        let size_bytes = command.encoded_len();
        let limit_bytes = self.limits.command_bytes_max;
        if size_bytes > limit_bytes {
            return Err(ProposeError::TooLarge { size_bytes, limit_bytes });
        }
        let command = Bytes::from(command.encode_to_vec());
        let (reply, receiver) = oneshot::channel();
        let wake = {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(ProposeError::ShuttingDown);
            }
            if queue.n_pending >= self.limits.pending_commands_max
                || queue.pending_bytes + size_bytes > self.limits.pending_bytes_max
            {
                return Err(ProposeError::Overloaded { pending_bytes: queue.pending_bytes });
            }
            queue.pending_bytes += size_bytes;
            queue.n_pending += 1;
            queue.slots.push_back(Slot {
                command,
                deadline,
                sent_at: None,
                maybe_appended: false,
                reply: Some(reply),
            });
            // In between, somebody has woken the pump already, or it waits for more.
            let n_unsent = queue.n_unsent();
            n_unsent == 1 || n_unsent == self.limits.batch_commands_max || size_bytes >= LARGE_BYTES
        };
        if wake {
            self.work.notify_one();
        }
        Ok(receiver)
    }

    /// Waits until there may be something to send. Cancel-safe.
    pub(crate) async fn wait_for_work(&self) {
        self.work.notified().await;
    }

    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// What no leader has, up to about a full batch.
    pub(crate) fn unsent(&self) -> Waiting {
        let queue = self.queue.lock();
        let n_commands = queue.n_unsent();
        let first = queue.slots.len() - n_commands.min(queue.slots.len());
        let unsent = queue.slots.range(first..).take(self.limits.batch_commands_max);
        Waiting { n_commands, size_bytes: unsent.map(|slot| slot.command.len()).sum() }
    }

    /// Commands and bytes whose outcome is open.
    pub(crate) fn pending(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.n_pending, queue.pending_bytes)
    }

    /// The next commands that no leader has, as one run; `None` where all are sent.
    pub(crate) fn take_run(&self, bounds: RunBounds) -> Option<EncodedRun> {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        let Some(epoch) = queue.epoch else {
            return self.take_registration(&mut queue, now);
        };
        let end = queue.base + queue.slots.len() as u64;
        while queue.next < end && queue.slots[queue.position(queue.next)].reply.is_none() {
            queue.next += 1;
        }
        let first_seq = queue.next;
        let first = queue.position(first_seq);
        let commands_max = if first_seq < queue.alone_below { 1 } else { bounds.commands_max };
        let mut n_commands = 0;
        let mut size_bytes = 0;
        while first + n_commands < queue.slots.len() && n_commands < commands_max {
            let slot = &queue.slots[first + n_commands];
            let slot_bytes = slot.command.len();
            let full = n_commands > 0 && size_bytes + slot_bytes > bounds.bytes_max;
            if slot.reply.is_none() || full {
                break;
            }
            size_bytes += field_len(slot_bytes);
            n_commands += 1;
        }
        if n_commands == 0 {
            return None;
        }
        let head = RunHead { origin: self.node, epoch, first_seq, settled_below: queue.base };
        let mut bytes = BytesMut::with_capacity(head.encoded_len() + size_bytes);
        head.encode(&mut bytes);
        for slot in queue.slots.range_mut(first..first + n_commands) {
            put_field(COMMANDS, &slot.command, &mut bytes);
            slot.sent_at = Some(now);
        }
        queue.next = first_seq + n_commands as u64;
        Some(EncodedRun { bytes: bytes.freeze(), n_commands, first_seq })
    }

    fn take_registration(&self, queue: &mut Queue, now: Instant) -> Option<EncodedRun> {
        if queue.registration_sent_at.is_some() || queue.closed {
            return None;
        }
        queue.registration_sent_at = Some(now);
        let register = quorate::RegisterOrigin { node: self.node, nonce: queue.nonce };
        let command = quorate::Command {
            fence: None,
            kind: Some(quorate::command::Kind::RegisterOrigin(register)),
        };
        let run = quorate::Run {
            origin: self.node,
            epoch: 0,
            first_seq: queue.nonce,
            settled_below: 0,
            commands: vec![command],
        };
        Some(EncodedRun { bytes: run.encode_to_vec().into(), n_commands: 1, first_seq: 0 })
    }

    /// Sends everything from number `seq` on again that has no outcome yet. A leader may have
    /// appended it.
    pub(crate) fn rewind(&self, seq: u64) {
        self.go_back(seq, true);
    }

    /// As `rewind`, where it is certain that nothing was appended.
    pub(crate) fn rewind_unappended(&self, seq: u64) {
        self.go_back(seq, false);
    }

    fn go_back(&self, seq: u64, maybe_appended: bool) {
        {
            let mut queue = self.queue.lock();
            if queue.epoch.is_none() {
                queue.registration_sent_at = None;
            }
            let target = seq.clamp(queue.base, queue.next);
            let (first, end) = (queue.position(target), queue.position(queue.next));
            for slot in queue.slots.range_mut(first..end) {
                slot.maybe_appended |= maybe_appended;
            }
            queue.next = target;
        }
        self.work.notify_one();
    }

    /// Takes a leader's refusal of a run, of which nothing was appended. A command alone gets the
    /// error; several are sent again one by one, so that only those that are at fault get it.
    pub(crate) fn refused(&self, first_seq: u64, n_commands: usize, reason: &str) {
        let end = first_seq + n_commands as u64;
        if n_commands > 1 {
            {
                let mut queue = self.queue.lock();
                queue.alone_below = queue.alone_below.max(end);
            }
            self.rewind_unappended(first_seq);
            return;
        }
        let mut queue = self.queue.lock();
        if queue.epoch.is_none() {
            tracing::error!(reason, "the leader refuses the registration of this node");
            return;
        }
        if !(queue.base..queue.base + queue.slots.len() as u64).contains(&first_seq) {
            return;
        }
        let position = queue.position(first_seq);
        let slot = &mut queue.slots[position];
        let Some(reply) = slot.reply.take() else { return };
        let error = match slot.maybe_appended {
            true => ProposeError::Unknown,
            false => ProposeError::Refused { reason: reason.to_owned() },
        };
        let size_bytes = std::mem::take(&mut slot.command).len();
        queue.settle(size_bytes);
        queue.drop_settled();
        drop(queue);
        // The caller may have gone.
        drop(reply.send(Err(error)));
    }

    /// Sends everything again that has no outcome yet.
    pub(crate) fn rewind_all(&self) {
        self.rewind(0);
    }

    /// Answers what is past its deadline. Called every few tens of milliseconds.
    ///
    /// Nothing is sent again here: only a lost leader or stream and an installed snapshot can keep an
    /// outcome from coming, and a node that is merely behind would make more log for itself.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut late = Vec::new();
        {
            let mut queue = self.queue.lock();
            for position in 0..queue.slots.len() {
                let slot = &mut queue.slots[position];
                if slot.deadline > now {
                    continue;
                }
                if let Some(reply) = slot.reply.take() {
                    let size_bytes = std::mem::take(&mut slot.command).len();
                    let sent = slot.sent_at.is_some();
                    queue.settle(size_bytes);
                    late.push((reply, sent));
                }
            }
            queue.drop_settled();
        }
        for (reply, sent) in late {
            let error = match sent {
                true => ProposeError::Unknown,
                false => ProposeError::NotLeader { leader: None },
            };
            // The caller may have gone; then nobody wants to know.
            drop(reply.send(Err(error)));
        }
    }

    /// Resolves once this start of the node is registered. Cancel-safe.
    pub(crate) async fn wait_registered(&self) {
        loop {
            let registered = self.registered.notified();
            tokio::pin!(registered);
            registered.as_mut().enable();
            if self.queue.lock().epoch.is_some() {
                return;
            }
            registered.await;
        }
    }

    /// Refuses new commands and answers those whose outcome is open.
    pub(crate) fn close(&self) {
        let slots = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            queue.pending_bytes = 0;
            queue.n_pending = 0;
            queue.base += queue.slots.len() as u64;
            queue.next = queue.base;
            std::mem::take(&mut queue.slots)
        };
        for slot in slots {
            if let Some(reply) = slot.reply {
                let error = match slot.sent_at {
                    Some(_) => ProposeError::Unknown,
                    None => ProposeError::ShuttingDown,
                };
                drop(reply.send(Err(error)));
            }
        }
    }
}

impl Queue {
    fn position(&self, seq: u64) -> usize {
        usize::try_from(seq - self.base).expect("a slot's position fits the deque that holds it")
    }

    fn n_unsent(&self) -> usize {
        match self.epoch {
            Some(_) => self.slots.len() - self.position(self.next),
            // Until it is registered, that is what is to be sent.
            None => usize::from(self.registration_sent_at.is_none()),
        }
    }

    fn settle(&mut self, size_bytes: usize) {
        self.pending_bytes -= size_bytes;
        self.n_pending -= 1;
    }

    /// The state does not know this start of the node any more, and takes no command under its
    /// epoch. What was sent may have taken effect before; the rest goes under the next epoch.
    fn register_again(&mut self) -> Vec<Reply> {
        self.epoch = None;
        self.nonce = random_id();
        self.registration_sent_at = None;
        let end = self.position(self.next);
        let mut lost = Vec::new();
        for position in 0..end {
            let slot = &mut self.slots[position];
            if let Some(reply) = slot.reply.take() {
                let size_bytes = std::mem::take(&mut slot.command).len();
                self.settle(size_bytes);
                lost.push(reply);
            }
        }
        self.drop_settled();
        lost
    }

    fn drop_settled(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.reply.is_none()) {
            self.slots.pop_front();
            self.base += 1;
        }
        self.next = self.next.max(self.base);
    }
}

impl OutcomeSink for Proposer {
    fn applied(&self, index: u64, outcomes: Outcomes) {
        let Outcomes { by_request, image } = outcomes;
        let mut answers = Vec::new();
        let (mut registered, mut forgotten) = (false, false);
        let mut lost = Vec::new();
        {
            let mut queue = self.queue.lock();
            for (request, outcome) in by_request {
                if request.origin != self.node {
                    continue;
                }
                if request.epoch == 0 {
                    if request.seq == queue.nonce && queue.epoch.is_none() {
                        queue.epoch = registered_epoch(&outcome);
                        registered = queue.epoch.is_some();
                    }
                    continue;
                }
                if Some(request.epoch) != queue.epoch || request.seq < queue.base {
                    continue;
                }
                let position = queue.position(request.seq);
                let Some(slot) = queue.slots.get_mut(position) else {
                    continue;
                };
                if slot.reply.is_some() && outcome == Err(Rejection::StaleRequest) {
                    forgotten = true;
                    continue;
                }
                if let Some(reply) = slot.reply.take() {
                    let size_bytes = std::mem::take(&mut slot.command).len();
                    queue.settle(size_bytes);
                    answers.push((reply, outcome));
                }
            }
            queue.drop_settled();
            if forgotten {
                tracing::warn!("the state has forgotten this node's commands, registering again");
                lost = queue.register_again();
            }
        }
        if answers.len() > 1 {
            tasks::run_on(&self.callers, move || answer(index, answers, image.as_ref()));
        } else {
            answer(index, answers, image.as_ref());
        }
        for reply in lost {
            // The caller may have gone.
            drop(reply.send(Err(ProposeError::Unknown)));
        }
        if registered {
            self.registered.notify_waiters();
        }
        if registered || forgotten {
            self.work.notify_one();
        }
    }

    fn installed(&self) {
        self.rewind_all();
    }
}

fn answer(index: u64, answers: Vec<(Reply, Outcome)>, image: Option<&Arc<Pinned>>) {
    for (reply, outcome) in answers {
        let is_deferred = matches!(outcome, Ok(Response::Deferred(_)));
        let image = image.filter(|_| is_deferred).cloned();
        // The caller may have gone.
        drop(reply.send(Ok(Committed { outcome, index, image })));
    }
}

/// The epoch that a registration got; `None` where the state refused it.
fn registered_epoch(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Ok(Response::OriginRegistered { epoch }) => Some(*epoch),
        Ok(_) | Err(_) => None,
    }
}

/// Field numbers of `Run` and `Batch`, which are written by hand so that commands and runs are
/// copied as bytes.
const COMMANDS: u32 = 5;
const RUNS: u32 = 2;
const AT_MS: u32 = 1;
const TIME_EPOCH: u32 = 3;

struct RunHead {
    origin: u64,
    epoch: u64,
    first_seq: u64,
    settled_below: u64,
}

impl RunHead {
    fn encoded_len(&self) -> usize {
        self.fields().map(|(field, value)| uint64::encoded_len(field, &value)).sum()
    }

    /// Those that are not zero: a run is written as its message would be.
    fn fields(&self) -> impl Iterator<Item = (u32, u64)> {
        let RunHead { origin, epoch, first_seq, settled_below } = *self;
        let fields = [(1, origin), (2, epoch), (3, first_seq), (4, settled_below)];
        fields.into_iter().filter(|(_, value)| *value != 0)
    }

    fn encode(&self, bytes: &mut impl BufMut) {
        for (field, value) in self.fields() {
            uint64::encode(field, &value, bytes);
        }
    }
}

fn field_len(value_bytes: usize) -> usize {
    1 + encoded_len_varint(value_bytes as u64) + value_bytes
}

fn put_field(field: u32, value: &[u8], bytes: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, bytes);
    encode_varint(value.len() as u64, bytes);
    bytes.put_slice(value);
}

/// A `Batch` made of runs that are encoded already.
pub(crate) fn encode_batch(stamp: Stamp, runs: &[Bytes]) -> Bytes {
    let Stamp { at_ms, epoch } = stamp;
    let runs_bytes: usize = runs.iter().map(|run| field_len(run.len())).sum();
    let stamp_bytes = uint64::encoded_len(AT_MS, &at_ms) + uint64::encoded_len(TIME_EPOCH, &epoch);
    let mut bytes = BytesMut::with_capacity(stamp_bytes + runs_bytes);
    if at_ms != 0 {
        uint64::encode(AT_MS, &at_ms, &mut bytes);
    }
    for run in runs {
        put_field(RUNS, run, &mut bytes);
    }
    if epoch != 0 {
        uint64::encode(TIME_EPOCH, &epoch, &mut bytes);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests;
