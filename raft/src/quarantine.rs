//! A node whose state is wrong or damaged while its log is sound.
//!
//! Such a node ends, and its next start keeps log and vote, passes its own state by, and fetches a
//! snapshot of another node. Until that is in place it leads nobody, serves no client and sends no
//! snapshot. What its log holds beyond the snapshot is applied again. A damaged log or vote is
//! another matter: without them a node may forget what it acknowledged, so it must be replaced.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::quorate;
use proto::quorate::snapshot_part::Part as PartKind;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::apply::{OutcomeSink, Outcomes};
use crate::config::{NodeOptions, Timers};
use crate::connect::Dialer;
use crate::dir_lock::DirLock;
use crate::error::StartError;
use crate::identity::{self, StoredIdentity};
use crate::peers::{Peer, Peers};
use crate::scrub::ScrubPolicy;
use crate::snapshot::{Part, SnapshotData};
use crate::status::Member;
use crate::storage::{StateOnDisk, Storage, StorageControl, StorageOptions};
use crate::who::Identity;
use crate::{durable, start, tasks};

/// Present while the state of this node must not be used; says why.
const QUARANTINE_FILE: &str = "QUARANTINE";
/// The other members as this node last knew them: its own state need not be readable.
const ADDRESSES_FILE: &str = "ADDRESSES";
/// Between two rounds through the peers.
const PAUSE: Duration = Duration::from_secs(1);
/// A peer may have to build a snapshot first.
const FIRST_PART: Duration = Duration::from_secs(75);
const NEXT_PART: Duration = Duration::from_secs(10);

/// Notes that the state must not be used; durable when it returns.
pub(crate) fn enter(data_dir: &Path, reason: &str) -> io::Result<()> {
    let line = format!("{}\n", reason.replace('\n', " "));
    durable::replace_file(&data_dir.join(QUARANTINE_FILE), line.as_bytes())
}

/// Why the state in `data_dir` must not be used; `None` where it may be.
pub fn quarantine_reason(data_dir: &Path) -> Option<String> {
    let path = data_dir.join(QUARANTINE_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("{}: {error}", path.display())),
    }
}

fn leave(data_dir: &Path) -> io::Result<()> {
    std::fs::remove_file(data_dir.join(QUARANTINE_FILE))?;
    durable::sync_dir(data_dir)
}

/// Remembers where the other members are.
pub(crate) fn note_peers(data_dir: &Path, own: u64, members: &[Member]) {
    let others = members.iter().filter(|member| member.id != own);
    let lines: Vec<String> = others
        .map(|member| format!("{:016x} {}\n", member.id, member.meta.endpoints.peer))
        .collect();
    let path = data_dir.join(ADDRESSES_FILE);
    if let Err(error) = durable::replace_file(&path, lines.concat().as_bytes()) {
        tracing::debug!(%error, "the addresses of the peers are not noted");
    }
}

fn known_peers(data_dir: &Path) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(data_dir.join(ADDRESSES_FILE)).unwrap_or_default();
    let parse = |line: &str| {
        let (id, address) = line.split_once(' ')?;
        Some((u64::from_str_radix(id, 16).ok()?, address.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

/// Puts the state of another node into the place of one that must not be used.
pub struct Replacement {
    data_dir: PathBuf,
    name: String,
    storage: StorageOptions,
    dialer: Arc<dyn Dialer>,
    timers: Timers,
    message_bytes_max: usize,
}

impl Replacement {
    pub fn new(options: &NodeOptions) -> Replacement {
        Replacement {
            data_dir: options.data_dir.clone(),
            name: options.name.clone(),
            storage: options.storage.clone(),
            dialer: Arc::clone(&options.dialer),
            timers: options.timers,
            message_bytes_max: options.limits.message_bytes_max,
        }
    }

    /// Tries until a node gives its state; returns at once where the own one may be used. Safe to
    /// cancel, as a crash is.
    ///
    /// # Errors
    /// No other node is known, or the node must not start on its directory.
    pub async fn run(&self) -> Result<(), StartError> {
        let Some(reason) = quarantine_reason(&self.data_dir) else { return Ok(()) };
        let _lock = DirLock::take(&self.data_dir)?;
        start::admit(&self.data_dir)?;
        let stored = identity::read_or_draw(&self.data_dir, &self.name)?;
        self.fetch_any(&stored, &reason).await
    }

    /// For whoever holds the lock of the directory.
    pub(crate) async fn fetch_any(
        &self,
        stored: &StoredIdentity,
        reason: &str,
    ) -> Result<(), StartError> {
        let known = known_peers(&self.data_dir);
        if known.is_empty() {
            return Err(self.failed(format!(
                "the state of this node must not be used ({reason}), and no other node is known \
                 that could give its own: restore a backup, or delete {QUARANTINE_FILE} there to \
                 start with the state as it is"
            )));
        }
        tracing::warn!(reason, "this node is in quarantine: it fetches the state of another node");
        let runtime = Handle::current();
        let peers = Peers::new(
            Identity::new(stored),
            Arc::clone(&self.dialer),
            self.timers,
            self.message_bytes_max,
            runtime.clone(),
            runtime,
        );
        loop {
            for (id, address) in &known {
                match self.fetch(stored, &peers.at(*id, address)).await {
                    Ok(index) => {
                        let left = leave(&self.data_dir);
                        left.map_err(|error| {
                            self.failed(format!("the quarantine cannot be left: {error}"))
                        })?;
                        tracing::warn!(index, from = address, "the state was replaced");
                        return Ok(());
                    }
                    Err(error) => tracing::warn!(%error, from = address, "no state fetched yet"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Fetches from one peer; the last entry that the new state holds.
    async fn fetch(&self, stored: &StoredIdentity, peer: &Peer) -> Result<u64, Status> {
        let mut options = self.storage.clone();
        options.data_dir.clone_from(&self.data_dir);
        options.node = stored.node;
        options.state = StateOnDisk::Passed;
        options.scrub = ScrubPolicy { period: Duration::ZERO, ..ScrubPolicy::default() };
        let opened = blocking(move || Storage::open(options, Arc::new(NoSink))).await?;
        let control = opened.control.clone();
        let fetched = receive(&control, peer).await;
        drop(opened);
        let stopped = control.shutdown().await;
        let index = fetched?;
        stopped.map_err(|failure| Status::internal(failure.to_string()))?;
        Ok(index)
    }

    fn failed(&self, reason: String) -> StartError {
        StartError::DataDir { path: self.data_dir.clone(), reason }
    }
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// Nobody waits for outcomes of a state that is only a place to receive into.
struct NoSink;

impl OutcomeSink for NoSink {
    fn applied(&self, _index: u64, _outcomes: Outcomes) {}
}

async fn receive(control: &StorageControl, peer: &Peer) -> Result<u64, Status> {
    let index = control.log.purged().map_or(0, |purged| purged.index);
    let request = peer.request(quorate::FetchSnapshotRequest { index });
    let mut client = peer.bulk();
    let call = timeout(FIRST_PART, client.fetch_snapshot(request)).await;
    let mut parts = call.map_err(|_elapsed| silent())??.into_inner();
    let Some(PartKind::Header(header)) = next(&mut parts).await? else {
        return Err(Status::internal("a snapshot begins with its header"));
    };
    let manifest = header.manifest.ok_or_else(|| Status::internal("field manifest is missing"))?;
    let receiver = control.clone();
    let mut receiving = blocking(move || receiver.receive_snapshot(manifest)).await?;
    loop {
        let chunk = match next(&mut parts).await? {
            Some(PartKind::Chunk(chunk)) => chunk,
            Some(PartKind::End(_)) => break,
            Some(PartKind::Header(_)) | None => {
                return Err(Status::unavailable("the snapshot broke off"));
            }
        };
        let have = receiving.have().get(chunk.file as usize).copied().unwrap_or_default();
        if chunk.offset < have {
            // Kept from an earlier attempt.
            continue;
        }
        let part =
            Part { file: chunk.file, offset: chunk.offset, data: chunk.data, crc32c: chunk.crc32c };
        receiving = blocking(move || receiving.write(&part).map(|()| receiving)).await?;
    }
    let finished = tasks::in_background("snapshot-finish", move || receiving.finish()).await;
    let finished = finished.map_err(|error| Status::internal(error.to_string()))?;
    let data = finished.map_err(|error| Status::aborted(error.to_string()))?;
    let SnapshotData::Staged(staged) = data else {
        return Err(Status::internal("what arrived is no staged snapshot"));
    };
    let adopter = control.clone();
    let position = blocking(move || adopter.adopt(*staged)).await?;
    Ok(position.applied.map_or(0, |applied| applied.index))
}

fn silent() -> Status {
    Status::deadline_exceeded("the sender of a snapshot was silent")
}

async fn next(parts: &mut Streaming<quorate::SnapshotPart>) -> Result<Option<PartKind>, Status> {
    let part = timeout(NEXT_PART, parts.message()).await.map_err(|_elapsed| silent())??;
    Ok(part.and_then(|part| part.part))
}

async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::aborted(error.to_string()))
}
