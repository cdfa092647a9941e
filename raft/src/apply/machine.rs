//! What openraft sees of the state.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftStateMachine};

use crate::rocks::Position;
use crate::snapshot::{Builder, SnapshotData};
use crate::types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

use super::worker::Chunk;
use super::{Core, StateHandle, WorkerHandle};

/// Bounds of what is applied at once: latency of the first, memory of the whole.
const CHUNK_ENTRIES_MAX: usize = 2048;
const CHUNK_BYTES_MAX: usize = 2 << 20;

/// Openraft's handle on the state: hands chunks to the apply thread.
pub struct StateMachine {
    core: Arc<Core>,
    worker: WorkerHandle,
    builder: Builder,
}

impl StateMachine {
    pub(crate) fn new(core: Arc<Core>, worker: WorkerHandle, builder: Builder) -> StateMachine {
        StateMachine { core, worker, builder }
    }

    pub fn handle(&self) -> StateHandle {
        StateHandle::new(self.core.clone())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let Position { applied, membership } = self.core.position.lock().clone();
        Ok((applied, membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        // A full chunk is followed by another look; openraft's stream panics after its end.
        let mut entries = entries.fuse();
        loop {
            let mut chunk = Chunk::default();
            while chunk.entries.len() < CHUNK_ENTRIES_MAX
                && chunk.size_bytes < CHUNK_BYTES_MAX
                && let Some(next) = entries.next().await
            {
                let (entry, responder) = next?;
                chunk.push(entry, responder);
            }
            if chunk.entries.is_empty() {
                return Ok(());
            }
            self.worker.apply(chunk).await.map_err(io::Error::other)?;
        }
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.builder.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let staged = self.builder.stage(snapshot).await?;
        self.worker.install(staged).await.map_err(io::Error::other)?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let purged = (self.core.log_purged)();
        let newest = self.core.shelf.newest();
        // One that ends before the log begins is of no use to a peer.
        let Some(image) = newest.filter(|image| image.last_applied() >= purged) else {
            return Ok(purged.is_some().then(|| self.stand_in()));
        };
        let meta = image.meta().map_err(io::Error::other)?;
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::Image(image) }))
    }
}

impl StateMachine {
    /// Where the front of the log is purged openraft ends without a snapshot. The retention task
    /// builds one as soon as it can; until then a peer that needs it waits.
    fn stand_in(&self) -> Snapshot {
        let Position { applied, membership } = self.core.position.lock().clone();
        let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
        Snapshot { meta, snapshot: SnapshotData::Unbuilt }
    }
}
