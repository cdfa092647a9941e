//! Entries that a leader sends, held back while this node's disk does not take them.
//!
//! A leader gives a stream up that brings no answer and sends all of it again on the next one.
//! What the engine has been given stays with it until the disk has it, whoever still waits for
//! the answer: so the engine is given little at once, and nothing of a new stream before it has
//! answered what it got on the one before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use proto::quorate;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::contact::Contact;
use crate::engine::Engine;
use crate::log_store::entry_codec;
use crate::node::Inner;
use crate::room::Room;
use crate::storage_metrics::{Gauge, StorageMetrics};
use crate::tasks;
use crate::types::TypeConfig;
use crate::wire;

/// Bytes of one sender that the engine has and has not answered. A single larger request passes.
const BYTES_MAX: usize = 8 << 20;
/// Answers that a sender has not read; one that does not read them loses its stream.
const ANSWERS_MAX: usize = 1024;
/// Heartbeats that their senders still wait for: the engine answers once all before them is on the
/// disk. One that its sender gave up leaves its small answer with the engine until then.
const HEARTBEATS_MAX: usize = 64;
/// Senders that are remembered; in a cluster there are as many as members.
const LANES_MAX: usize = 64;

/// The streams of one sender, of which only the newest counts.
#[derive(Default)]
struct Lane {
    newest: Mutex<CancellationToken>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

pub(crate) struct Intake {
    lanes: Mutex<BTreeMap<u64, Arc<Lane>>>,
    heartbeats: Arc<Semaphore>,
    metrics: Arc<StorageMetrics>,
}

type Held = Arc<Mutex<VecDeque<Taken>>>;

/// A request that the engine has; its bytes are free again when it is dropped.
struct Taken {
    size_bytes: usize,
    metrics: Arc<StorageMetrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Taken {
    fn drop(&mut self) {
        gauge(&self.metrics).sub(self.size_bytes as u64);
    }
}

fn gauge(metrics: &StorageMetrics) -> &Gauge {
    &metrics.append_held_bytes
}

impl Intake {
    pub(crate) fn new(metrics: Arc<StorageMetrics>) -> Intake {
        let heartbeats = Arc::new(Semaphore::new(HEARTBEATS_MAX));
        Intake { lanes: Mutex::default(), heartbeats, metrics }
    }

    /// A place for a heartbeat on its way through the engine.
    ///
    /// # Errors
    /// The disk has not answered for so long that enough of them wait.
    pub(crate) fn heartbeat(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.heartbeats).try_acquire_owned().map_err(|_full| {
            Status::unavailable(format!(
                "{HEARTBEATS_MAX} heartbeats wait for this node's disk already"
            ))
        })
    }

    fn lane(&self, from: u64) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        if lanes.len() >= LANES_MAX {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(from).or_default())
    }

    /// Gives the requests of `from` to the engine, in order and bounded, and its answers back.
    pub(crate) fn append(
        &self,
        node: &Inner,
        from: u64,
        input: Streaming<quorate::AppendRequest>,
    ) -> BoxStream<'static, Result<quorate::AppendReply, Status>> {
        let lane = self.lane(from);
        let superseded = CancellationToken::new();
        std::mem::replace(&mut *lane.newest.lock(), superseded.clone()).cancel();
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let (engine, metrics) = (node.engine.clone(), Arc::clone(&self.metrics));
        let contact = Arc::clone(&node.contact);
        let disk = Arc::clone(&node.storage.room);
        // Apart from the call: the engine is waited for also where the sender has gone.
        tasks::spawn(&node.runtime, "appends", async move {
            let turn = tokio::select! {
                turn = Arc::clone(&lane.turn).lock_owned() => turn,
                () = superseded.cancelled() => return,
                () = answers.closed() => return,
            };
            serve(engine, contact, (metrics, disk), input, answers, superseded).await;
            drop(turn);
        });
        ReceiverStream::new(receiver).boxed()
    }
}

/// Until the input ends and the engine has answered all that it was given.
async fn serve(
    engine: Engine,
    contact: Arc<Contact>,
    (metrics, disk): (Arc<StorageMetrics>, Arc<Room>),
    input: Streaming<quorate::AppendRequest>,
    answers: mpsc::Sender<Result<quorate::AppendReply, Status>>,
    superseded: CancellationToken,
) {
    let held = Held::default();
    let failed: Arc<Mutex<Option<Status>>> = Arc::default();
    let (gone, over) = (answers.clone(), superseded.clone());
    let ended = async move {
        tokio::select! {
            () = over.cancelled() => {}
            () = gone.closed() => {}
        }
    };
    let mut answers = Some(answers);
    let held_now = Arc::clone(&held);
    let requests = requests(input, contact, held_now, (metrics, disk), Arc::clone(&failed));
    let results = engine.stream_append(requests.take_until(Box::pin(ended)));
    futures::pin_mut!(results);
    while let Some(result) = results.next().await {
        drop(held.lock().pop_front());
        let answer = match result {
            Ok(result) => Ok(wire::append_result_to_wire(&result)),
            Err(fatal) => Err(Status::unavailable(format!("consensus has stopped: {fatal}"))),
        };
        // A sender that has gone, or does not read, ends the input. None of the answers that
        // follow may stand in the place of one that it missed.
        if answers.as_ref().is_some_and(|answers| answers.try_send(answer).is_err()) {
            answers = None;
            superseded.cancel();
        }
    }
    // A request that cannot be understood ends the stream with an error, never in silence.
    let failed = failed.lock().take();
    if let (Some(answers), Some(status)) = (answers, failed) {
        drop(answers.try_send(Err(status)));
    }
}

/// Requests up to the first that cannot be understood, whose error is left in `failed`; each one
/// waits for room.
fn requests(
    input: Streaming<quorate::AppendRequest>,
    contact: Arc<Contact>,
    held: Held,
    (metrics, disk): (Arc<StorageMetrics>, Arc<Room>),
    failed: Arc<Mutex<Option<Status>>>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    let room = Arc::new(Semaphore::new(BYTES_MAX));
    futures::stream::unfold(input, move |mut input| {
        let (room, held) = (Arc::clone(&room), Arc::clone(&held));
        let (metrics, failed) = (Arc::clone(&metrics), Arc::clone(&failed));
        let (contact, disk) = (Arc::clone(&contact), Arc::clone(&disk));
        async move {
            let request = match input.message().await {
                Ok(request) => {
                    let request = request?;
                    disk.check(&request).and_then(|()| {
                        contact
                            .receive(request)
                            .map_err(|error| Status::invalid_argument(error.to_string()))
                    })
                }
                Err(status) => Err(status),
            };
            let request = match request {
                Ok(request) => request,
                Err(status) => {
                    *failed.lock() = Some(status);
                    return None;
                }
            };
            let size_bytes = size_of(&request);
            let n_permits = u32::try_from(size_bytes.min(BYTES_MAX)).unwrap_or(u32::MAX);
            let permit = room.acquire_many_owned(n_permits).await.ok()?;
            gauge(&metrics).add(size_bytes as u64);
            held.lock().push_back(Taken { size_bytes, metrics, _permit: permit });
            Some((request, input))
        }
    })
}

fn size_of(request: &AppendEntriesRequest<TypeConfig>) -> usize {
    let entries = request.entries.iter();
    entries.map(|entry| entry_codec::OVERHEAD_BYTES + entry_codec::payload_bytes(entry)).sum()
}
