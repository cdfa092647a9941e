//! Figures of a running node, gathered when somebody asks.

use std::sync::Arc;

use crate::node::Inner;
use crate::places::PlacesCount;
use crate::room::RoomView;
use crate::snapshot::BuildTrouble;
use crate::storage_metrics::StorageMetrics;

#[derive(Clone)]
pub struct Metrics {
    /// Commands of this node's clients whose outcome is open.
    pub pending_commands: usize,
    pub pending_bytes: usize,
    /// Bytes of other nodes' commands that wait at this leader.
    pub inbound_bytes: usize,
    /// Entries in the log, roughly.
    pub log_bytes: u64,
    /// Size on disk and in memtables of the state.
    pub state_disk_bytes: u64,
    pub state_memtable_bytes: u64,
    /// Why snapshots cannot be built; `None` while they can.
    pub snapshot_trouble: Option<BuildTrouble>,
    pub room: RoomView,
    pub storage: Arc<StorageMetrics>,
    /// Connections to the peer listener.
    pub peer_connections: PlacesCount,
}

impl Metrics {
    pub(crate) fn gather(node: &Inner) -> Metrics {
        let (pending_commands, pending_bytes) = node.proposer.pending();
        Metrics {
            pending_commands,
            pending_bytes,
            inbound_bytes: node.inbound.size_bytes(),
            log_bytes: node.storage.log.size_bytes(),
            state_disk_bytes: node.storage.state.disk_bytes(),
            state_memtable_bytes: node.storage.state.memtable_bytes(),
            snapshot_trouble: node.storage.snapshot_trouble(),
            room: node.storage.room.view(),
            storage: Arc::clone(&node.storage.metrics),
            peer_connections: node.peer_places.count(),
        }
    }
}
