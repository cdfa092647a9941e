//! Streams the bytes of a backup file out of a pinned image, while writes go on.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::Stream;
use proto::admin::{BackupChunk, BackupHeader};
use raft::{Node, View};
use statemachine::{Direction, Fault, State, StateRead, Table, versions};
use tokio::sync::mpsc;
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

pub(crate) type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupChunk, Status>> + Send>>;

/// Pins the state and starts to stream it.
pub(crate) fn stream(node: &Node, view: &View) -> BackupStream {
    let term = node.status().borrow().applied.term;
    let (header, image) = view.pin(|state| header(node, state, term));
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let (revision, index) = (header.revision, header.index);
    info!(revision, index, "backup begins");
    tasks::spawn_blocking(move || {
        let mut sink = Sink { chunks, rows_estimate: header.rows_estimate };
        match write(&header, &image, &mut sink) {
            Ok(rows) => info!(revision, index, rows, "backup complete"),
            Err(Stop::ClientGone) => warn!(revision, "the client of a backup went away"),
            Err(Stop::Fault(error)) => {
                warn!(revision, %error, "backup ended by a fault");
                // The client may be gone too; then nobody needs the reason.
                let _ = sink.chunks.blocking_send(Err(Status::data_loss(error.to_string())));
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
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
enum Stop {
    ClientGone,
    Fault(Fault),
}

struct Sink {
    chunks: mpsc::Sender<Result<BackupChunk, Status>>,
    rows_estimate: u64,
}

impl Sink {
    /// Waits until the client has taken earlier chunks.
    fn send(&self, data: bytes::Bytes, rows: u64) -> Result<(), Stop> {
        let chunk = BackupChunk { data, rows, rows_estimate: self.rows_estimate };
        match self.chunks.blocking_send(Ok(chunk)) {
            Ok(()) => Ok(()),
            Err(_) => Err(Stop::ClientGone),
        }
    }
}

fn write(header: &BackupHeader, image: &dyn StateRead, sink: &mut Sink) -> Result<u64, Stop> {
    let (mut writer, start) = Writer::start(header);
    sink.send(start, 0)?;
    for (place, table) in TABLES.into_iter().enumerate() {
        let mut gone = false;
        let scanned = image.scan(table, &[], None, Direction::Forward, &mut |key, value| {
            let full = writer.row(place, key, value).map_err(|error| compressor(&error))?;
            if let Some(block) = full
                && sink.send(block, writer.rows_written()).is_err()
            {
                gone = true;
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        });
        scanned.map_err(Stop::Fault)?;
        if gone {
            return Err(Stop::ClientGone);
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
