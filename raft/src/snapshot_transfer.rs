//! Snapshots on their way between two nodes, in checked parts and with flow control.
//!
//! The receiver says first what it has already, so a transfer that broke goes on where it was. It
//! answers at least every second while it writes, verifies and loads: silence means that it is
//! gone.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::async_runtime::watch::WatchReceiver;
use proto::quorate;
use proto::quorate::snapshot_answer::Answer;
use proto::quorate::snapshot_part::Part as PartKind;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::convert::{snapshot_meta_from_manifest, vote_from_proto, vote_to_proto};
use crate::node::Inner;
use crate::peers::Peer;
use crate::snapshot::{Part, Receiving, SnapshotData, SnapshotSource};
use crate::status::NodeState;
use crate::tasks;
use crate::types::{Snapshot, Vote};

/// Parts read ahead of the connection.
const PARTS_AHEAD: usize = 4;
/// The receiver says so often how far it is.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Sends a snapshot and waits until it is installed; returns the receiver's vote.
///
/// # Errors
/// The connection broke, the receiver was silent for `stall`, or it refused.
pub(crate) async fn send_snapshot(
    peer: &Peer,
    vote: Vote,
    mut source: SnapshotSource,
    stall: Duration,
    bytes_per_s: u64,
) -> Result<Vote, Status> {
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
    let header = quorate::SnapshotHeader {
        vote: Some(vote_to_proto(&vote)),
        manifest: Some(source.manifest().clone()),
    };
    drop(sender.send(part(PartKind::Header(header))).await);
    let request = peer.request(ReceiverStream::new(receiver));
    let mut client = peer.bulk();
    let call = client.install_snapshot(request);
    let mut answers = timeout(stall, call).await.map_err(|_elapsed| silent(stall))??.into_inner();
    match next_answer(&mut answers, stall).await? {
        Answer::Have(have) => source.resume(&have.bytes),
        Answer::Done(vote) => return Ok(vote_from_proto(&vote)),
        Answer::Refused(reason) => return Err(Status::aborted(reason)),
        Answer::WrittenBytes(_) => return Err(Status::internal("answer before the question")),
    }
    tracing::info!(
        snapshot = source.manifest().id,
        size_bytes = source.manifest().size_bytes,
        remaining_bytes = source.remaining_bytes(),
        "sending snapshot"
    );
    // Both ends of the exchange run side by side; an error of either ends it.
    let sending = send_parts(source, sender, bytes_per_s);
    let waiting = async {
        loop {
            match next_answer(&mut answers, stall).await? {
                Answer::Done(vote) => return Ok(vote_from_proto(&vote)),
                Answer::Refused(reason) => return Err(Status::aborted(reason)),
                Answer::WrittenBytes(_) | Answer::Have(_) => {}
            }
        }
    };
    tokio::pin!(sending, waiting);
    tokio::select! {
        // The files stay until the receiver is done: `source` lives in here.
        sent = &mut sending => {
            let _source = sent?;
            waiting.await
        }
        done = &mut waiting => done,
    }
}

/// How long a node that asks may wait for a snapshot that is new enough.
const BUILD_WAIT: Duration = Duration::from_secs(60);
const BUILD_LOOK: Duration = Duration::from_millis(100);

/// A snapshot that holds the entries up to `index`, for a node that asked for it.
///
/// # Errors
/// None could be built in time, or this node serves nobody.
pub(crate) async fn serve(
    node: &Arc<Inner>,
    from: u64,
    index: u64,
) -> Result<BoxStream<'static, Result<quorate::SnapshotPart, Status>>, Status> {
    if node.status.borrow().state < NodeState::Keyspace {
        return Err(Status::unavailable("this node serves nobody itself"));
    }
    let deadline = Instant::now() + BUILD_WAIT;
    let image = loop {
        let newest = node.storage.newest_snapshot();
        let is_new_enough = |image: &Arc<crate::snapshot::Image>| {
            image.last_applied().is_some_and(|applied| applied.index >= index)
        };
        if let Some(image) = newest.filter(is_new_enough) {
            break image;
        }
        if Instant::now() >= deadline {
            return Err(Status::unavailable("no snapshot could be built in time"));
        }
        drop(node.engine.trigger().snapshot().await);
        tokio::time::sleep(BUILD_LOOK).await;
    };
    tracing::warn!(node = from, snapshot = image.manifest().id, "a node fetches a snapshot");
    let source = node.storage.snapshot_source(image);
    let bytes_per_s = node.limits.snapshot_bytes_per_s;
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
    let header = quorate::SnapshotHeader { vote: None, manifest: Some(source.manifest().clone()) };
    drop(sender.send(part(PartKind::Header(header))).await);
    tasks::spawn(&node.runtime, "snapshot sender", async move {
        if let Err(error) = send_parts(source, sender, bytes_per_s).await {
            tracing::warn!(node = from, %error, "a fetched snapshot broke off");
        }
    });
    Ok(ReceiverStream::new(receiver).map(Ok).boxed())
}

async fn send_parts(
    mut source: SnapshotSource,
    sender: mpsc::Sender<quorate::SnapshotPart>,
    bytes_per_s: u64,
) -> Result<SnapshotSource, Status> {
    let started = Instant::now();
    let mut sent_bytes = 0;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let next = source.next_part();
            (source, next)
        });
        let (back, next) = read.await.map_err(|error| Status::internal(error.to_string()))?;
        source = back;
        let Some(next) = next.map_err(|error| Status::internal(error.to_string()))? else {
            drop(sender.send(part(PartKind::End(quorate::SnapshotEnd {}))).await);
            return Ok(source);
        };
        sent_bytes += next.data.len() as u64;
        let chunk = quorate::SnapshotChunk {
            file: next.file,
            offset: next.offset,
            data: next.data,
            crc32c: next.crc32c,
        };
        if sender.send(part(PartKind::Chunk(chunk))).await.is_err() {
            // The receiver ended the call; its last answer says why.
            return Ok(source);
        }
        // In the rhythm of the parts, so that disks and the network never get a burst.
        tokio::time::sleep_until(started + time_of(sent_bytes, bytes_per_s)).await;
    }
}

/// How long so many bytes take at this rate.
fn time_of(size_bytes: u64, bytes_per_s: u64) -> Duration {
    let micros = u128::from(size_bytes) * 1_000_000 / u128::from(bytes_per_s.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

fn part(kind: PartKind) -> quorate::SnapshotPart {
    quorate::SnapshotPart { part: Some(kind) }
}

fn answer(answer: Answer) -> Result<quorate::SnapshotAnswer, Status> {
    Ok(quorate::SnapshotAnswer { answer: Some(answer) })
}

fn silent(stall: Duration) -> Status {
    Status::deadline_exceeded(format!("the receiver of a snapshot was silent for {stall:?}"))
}

async fn next_answer(
    answers: &mut Streaming<quorate::SnapshotAnswer>,
    stall: Duration,
) -> Result<Answer, Status> {
    let next = timeout(stall, answers.message()).await.map_err(|_elapsed| silent(stall))??;
    next.and_then(|answer| answer.answer)
        .ok_or_else(|| Status::unavailable("the receiver of a snapshot ended the call"))
}

type Answers = mpsc::Sender<Result<quorate::SnapshotAnswer, Status>>;

/// The receiving side: writes parts as they come, then verifies, loads and installs.
pub(crate) fn receive(
    node: Arc<Inner>,
    from: u64,
    parts: Streaming<quorate::SnapshotPart>,
) -> BoxStream<'static, Result<quorate::SnapshotAnswer, Status>> {
    let (answers, receiver) = mpsc::channel(PARTS_AHEAD);
    let runtime = node.runtime.clone();
    tasks::spawn(&runtime, "snapshot receiver", async move {
        let cancel = node.cancel.clone();
        let received = tokio::select! {
            // What is written stays for the next attempt.
            received = receive_all(&node, parts, &answers) => received,
            () = cancel.cancelled() => return,
        };
        if let Err(status) = received {
            tracing::warn!(node = from, error = %status, "snapshot not received");
            drop(answers.send(Err(status)).await);
        }
    });
    ReceiverStream::new(receiver).boxed()
}

async fn receive_all(
    node: &Arc<Inner>,
    mut parts: Streaming<quorate::SnapshotPart>,
    answers: &Answers,
) -> Result<(), Status> {
    let Some(PartKind::Header(header)) = next_part(&mut parts).await? else {
        return Err(Status::invalid_argument("a snapshot begins with its header"));
    };
    let vote = header.vote.as_ref().map(vote_from_proto);
    let vote = vote.ok_or_else(|| Status::invalid_argument("field vote is missing"))?;
    let manifest =
        header.manifest.ok_or_else(|| Status::invalid_argument("field manifest is missing"))?;
    let meta = snapshot_meta_from_manifest(&manifest)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    if let Some(own_vote) = refuses(node, &vote, &meta) {
        let done = answer(Answer::Done(vote_to_proto(&own_vote)));
        drop(answers.send(done).await);
        return Ok(());
    }
    let id = manifest.id.clone();
    let storage = node.storage.clone();
    let mut receiving = blocking(move || storage.receive_snapshot(manifest)).await?;
    let have = quorate::SnapshotHave { bytes: receiving.have().to_vec() };
    drop(answers.send(answer(Answer::Have(have))).await);
    let mut written_bytes = 0;
    let mut last_sign = Instant::now();
    loop {
        let chunk = match next_part(&mut parts).await? {
            Some(PartKind::Chunk(chunk)) => chunk,
            Some(PartKind::End(_)) => break,
            Some(PartKind::Header(_)) => {
                return Err(Status::invalid_argument("a snapshot has one header"));
            }
            None => return Err(Status::cancelled("the sender ended the call")),
        };
        written_bytes += chunk.data.len() as u64;
        receiving = write(receiving, chunk).await?;
        if last_sign.elapsed() >= SIGN_OF_LIFE {
            last_sign = Instant::now();
            drop(answers.send(answer(Answer::WrittenBytes(written_bytes))).await);
        }
    }
    let install = async {
        let finish = move || receiving.finish();
        let data = tasks::in_background("snapshot-finish", finish)
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::aborted(error.to_string()))?;
        let snapshot = Snapshot { meta, snapshot: data };
        let installed = node.engine.install_full_snapshot(vote, snapshot).await;
        installed.map_err(|error| Status::unavailable(error.to_string()))
    };
    let response = with_signs_of_life(install, written_bytes, answers).await?;
    tracing::info!(snapshot = id, written_bytes, "snapshot installed");
    drop(answers.send(answer(Answer::Done(vote_to_proto(&response.vote)))).await);
    Ok(())
}

/// Where the snapshot is of no use to this node: the vote that tells the sender so.
fn refuses(node: &Inner, vote: &Vote, meta: &crate::types::SnapshotMeta) -> Option<Vote> {
    let own_vote = node.engine.server_metrics().borrow_watched().vote;
    if own_vote.leader_id > vote.leader_id {
        return Some(own_vote);
    }
    // Everything in it is here already; the engine would panic over an older one that differs.
    let applied = node.engine.data_metrics().borrow_watched().last_applied;
    (applied >= meta.last_log_id).then_some(*vote)
}

async fn write(
    mut receiving: Receiving,
    chunk: quorate::SnapshotChunk,
) -> Result<Receiving, Status> {
    let part =
        Part { file: chunk.file, offset: chunk.offset, data: chunk.data, crc32c: chunk.crc32c };
    blocking(move || receiving.write(&part).map(|()| receiving)).await
}

async fn next_part(
    parts: &mut Streaming<quorate::SnapshotPart>,
) -> Result<Option<PartKind>, Status> {
    Ok(parts.message().await?.and_then(|part| part.part))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::snapshot::SnapshotError> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::aborted(error.to_string()))
}

/// Tells the sender every second that this node still works on it.
async fn with_signs_of_life<T>(
    work: impl Future<Output = T>,
    written_bytes: u64,
    answers: &Answers,
) -> T {
    tokio::pin!(work);
    loop {
        match timeout(SIGN_OF_LIFE, &mut work).await {
            Ok(done) => return done,
            Err(_) => drop(answers.send(answer(Answer::WrittenBytes(written_bytes))).await),
        }
    }
}

/// The source of what openraft wants to have sent.
///
/// # Errors
/// It is not one of this node's own snapshots.
pub(crate) fn image_of(data: SnapshotData) -> Result<Arc<crate::snapshot::Image>, Status> {
    match data {
        SnapshotData::Image(image) => Ok(image),
        SnapshotData::Unbuilt => Err(Status::unavailable(
            "no snapshot could be built yet, see the warnings of this node",
        )),
        SnapshotData::Staged(_) => Err(Status::internal("a snapshot that arrived is not sent")),
    }
}
