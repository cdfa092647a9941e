//! Streams the bytes of a backup file out of a pinned image, while writes go on.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use proto::admin::{BackupChunk, BackupHeader};
use raft::{Node, View};
use statemachine::{Direction, Fault, State, StateRead, Table, versions};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use crate::tasks;

use super::super::service::digest_bytes;
use super::writer::Writer;

/// Chunks that wait for a slow client; the scan pauses behind them.
const CHUNKS_MAX: usize = 16;

/// The order in which the tables stand in the file: what says which events are live comes first,
/// so that one pass can check them.
pub(super) const TABLES: [Table; 5] =
    [Table::Meta, Table::Domain, Table::Lease, Table::Version, Table::Event];

/// A client that takes no chunk for this long, or that makes the scan wait longer than at
/// [`BYTES_PER_S_MIN`], ends its backup: the image that it holds keeps deleted rows on the disk.
const STALL_MAX: Duration = Duration::from_secs(30);
const BYTES_PER_S_MIN: u64 = 64 << 10;

pub(crate) type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupChunk, Status>> + Send>>;

/// Pins the state and starts to stream it. `permit` is held until the end.
pub(crate) fn stream(node: &Node, view: &View, permit: OwnedSemaphorePermit) -> BackupStream {
    let term = node.status().borrow().applied.term;
    let (header, image) = view.pin(|state| header(node, state, term));
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let (revision, index) = (header.revision, header.index);
    info!(revision, index, "backup begins");
    let failed: Arc<OnceLock<Status>> = Arc::default();
    let failure = Arc::clone(&failed);
    let runtime = Handle::current();
    tasks::spawn_blocking(move || {
        let _permit = permit;
        let rows_estimate = header.rows_estimate;
        let mut sink = Sink { chunks, runtime, rows_estimate, waited: Duration::ZERO, sent: 0 };
        // Set before the channel ends: what is left of a stream that failed is not a backup.
        let failed = match write(&header, &image, &mut sink) {
            Ok(rows) => return info!(revision, index, rows, "backup complete"),
            Err(Stop::ClientGone) => return warn!(revision, "the client of a backup went away"),
            Err(Stop::Stalled) => Status::deadline_exceeded(format!(
                "the backup was not read: no chunk was taken for {} s, or fewer than {} KiB/s",
                STALL_MAX.as_secs(),
                BYTES_PER_S_MIN >> 10
            )),
            Err(Stop::Fault(error)) => Status::data_loss(error.to_string()),
        };
        warn!(revision, reason = failed.message(), "backup ended before its end");
        let _ = failure.set(failed);
    });
    let end = futures::stream::once(async move { failed.get().cloned().map(Err) });
    let end = end.filter_map(std::future::ready);
    Box::pin(ReceiverStream::new(receiver).chain(end))
}

fn header(node: &Node, state: &State, term: u64) -> BackupHeader {
    let digests = state.digests();
    BackupHeader {
        format: versions::BACKUP.newest,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: node.cluster_id(),
        node_id: node.id(),
        node_name: node.name().to_owned(),
        created_at_ms: now_ms(),
        index: state.last_index(),
        term,
        revision: state.revision(),
        compacted_revision: state.compacted_revision(),
        content_digest: digest_bytes(digests.content),
        chain_digest: digest_bytes(digests.chain),
        keys: state.n_keys() as u64,
        leases: state.n_leases() as u64,
        logical_bytes: state.logical_bytes(),
        feature_level: state.level(),
        // An event and a version for each live key; what history holds comes on top.
        rows_estimate: 2 * state.n_keys() as u64,
        tables: TABLES.iter().map(|table| table.name().to_owned()).collect(),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why a stream ended before its end.
#[derive(Debug)]
enum Stop {
    ClientGone,
    /// The client does not read, or too slowly.
    Stalled,
    Fault(Fault),
}

struct Sink {
    chunks: mpsc::Sender<Result<BackupChunk, Status>>,
    runtime: Handle,
    rows_estimate: u64,
    /// For the client, in all.
    waited: Duration,
    sent: u64,
}

impl Sink {
    /// Waits until the client has taken earlier chunks.
    fn send(&mut self, data: bytes::Bytes, rows: u64) -> Result<(), Stop> {
        self.sent += data.len() as u64;
        let chunk = BackupChunk { data, rows, rows_estimate: self.rows_estimate };
        // What a slow client may have used in all by now.
        let allowed = STALL_MAX + Duration::from_secs(self.sent / BYTES_PER_S_MIN);
        let patience = STALL_MAX.min(allowed.saturating_sub(self.waited));
        let began = Instant::now();
        let sending = tokio::time::timeout(patience, self.chunks.send(Ok(chunk)));
        let sent = self.runtime.block_on(sending);
        self.waited += began.elapsed();
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Stop::ClientGone),
            Err(_elapsed) => Err(Stop::Stalled),
        }
    }
}

fn write(header: &BackupHeader, image: &dyn StateRead, sink: &mut Sink) -> Result<u64, Stop> {
    let (mut writer, start) = Writer::start(header);
    sink.send(start, 0)?;
    for (place, table) in TABLES.into_iter().enumerate() {
        let mut stopped = None;
        let scanned = image.scan(table, &[], None, Direction::Forward, &mut |key, value| {
            let full = writer.row(place, key, value).map_err(|error| compressor(&error))?;
            if let Some(block) = full
                && let Err(stop) = sink.send(block, writer.rows_written())
            {
                stopped = Some(stop);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        });
        scanned.map_err(Stop::Fault)?;
        if let Some(stop) = stopped {
            return Err(stop);
        }
        // A block holds rows of one table only, so that a reader can skip whole tables.
        let last = writer.end_table().map_err(|error| Stop::Fault(compressor(&error)))?;
        sink.send(last, writer.rows_written())?;
    }
    let rows = writer.rows_written();
    let end = writer.finish().map_err(|error| Stop::Fault(compressor(&error)))?;
    sink.send(end, rows)?;
    Ok(rows)
}

fn compressor(error: &std::io::Error) -> Fault {
    Fault::Storage(format!("compressor: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(chunks: mpsc::Sender<Result<BackupChunk, Status>>) -> Sink {
        let (runtime, rows_estimate) = (Handle::current(), 0);
        Sink { chunks, runtime, rows_estimate, waited: Duration::ZERO, sent: 0 }
    }

    /// As the scan does, off the runtime's threads.
    async fn send(mut sink: Sink, n_bytes: usize) -> (Sink, Result<(), Stop>) {
        tasks::spawn_blocking(move || {
            let sent = sink.send(vec![0; n_bytes].into(), 0);
            (sink, sent)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_client_that_was_slow_for_too_long_is_not_waited_for() {
        let (chunks, mut taken) = mpsc::channel(1);
        let (mut sink, sent) = send(sink(chunks), 1 << 20).await;
        sent.unwrap();
        // The channel is full, and for what was sent all the time is used up.
        sink.waited = STALL_MAX + Duration::from_secs(33);
        let (sink, sent) = send(sink, 1 << 20).await;
        assert!(matches!(sent, Err(Stop::Stalled)), "{sent:?}");
        // What it takes gives it time.
        taken.recv().await.unwrap().unwrap();
        let (sink, sent) = send(sink, 1 << 20).await;
        sent.unwrap();
        drop(taken);
        let (_, sent) = send(sink, 1).await;
        assert!(matches!(sent, Err(Stop::ClientGone)), "{sent:?}");
    }
}
