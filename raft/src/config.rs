//! What a node is started with, and the timers and bounds that follow from it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::connect::{Acceptor, Dialer, TcpAcceptor, TcpDialer};
use crate::storage::StorageOptions;
use crate::types::Endpoints;

/// Everything that a node needs to start.
pub struct NodeOptions {
    /// Holds the identity, the log, the state and the snapshots.
    pub data_dir: PathBuf,
    /// Unique in the cluster; people speak of a node by it.
    pub name: String,
    /// Where peers reach this node.
    pub listen: Box<dyn Acceptor>,
    /// How this node reaches its peers.
    pub dialer: Arc<dyn Dialer>,
    pub clock: Arc<dyn Clock>,
    /// What the others are told about this node.
    pub advertise: Endpoints,
    /// Name and `host:port` of the peer listener of every node that founds the cluster, this one
    /// among them. Ignored once the node has a cluster.
    pub initial_cluster: Vec<(String, String)>,
    pub timers: Timers,
    pub limits: Limits,
    /// Sizes and paces of what is kept on disk; the directory and the node are filled in.
    pub storage: StorageOptions,
    /// Threads for consensus and peers, apart from those that serve clients.
    pub raft_threads: usize,
    /// Version of this binary, told to peers.
    pub version: String,
    /// Called once when consensus or storage failed and the node must not go on.
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeOptions")
            .field("data_dir", &self.data_dir)
            .field("name", &self.name)
            .field("advertise", &self.advertise)
            .field("initial_cluster", &self.initial_cluster)
            .field("timers", &self.timers)
            .field("limits", &self.limits)
            .field("raft_threads", &self.raft_threads)
            .finish_non_exhaustive()
    }
}

impl NodeOptions {
    /// Options of a node that listens and dials over plain TCP, with default timers and limits.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        name: impl Into<String>,
        listen: tokio::net::TcpListener,
        advertise: Endpoints,
    ) -> NodeOptions {
        let data_dir = data_dir.into();
        NodeOptions {
            storage: StorageOptions::new(data_dir.clone(), 0),
            data_dir,
            name: name.into(),
            listen: Box::new(TcpAcceptor::new(listen)),
            dialer: Arc::new(TcpDialer::default()),
            clock: Arc::new(SystemClock),
            advertise,
            initial_cluster: Vec::new(),
            timers: Timers::default(),
            limits: Limits::default(),
            raft_threads: default_raft_threads(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            on_fatal: Arc::new(|message| {
                tracing::error!(message, "node cannot go on, aborting");
                std::process::abort();
            }),
        }
    }
}

/// One thread keeps consensus on one core's caches; a second pays where there are cores to spare.
fn default_raft_threads() -> usize {
    match std::thread::available_parallelism() {
        Ok(n_cores) if n_cores.get() > 4 => 2,
        Ok(_) | Err(_) => 1,
    }
}

/// Times of elections and of calls between peers.
///
/// A leader that dies is replaced after `election_max` plus the shortest random timeout of the
/// others. A follower answers a heartbeat once all it accepted is on disk, so `heartbeat` has to
/// stay above what an fsync takes in all but rare cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// A connection to one address of a peer has to stand by then.
    pub connect: Duration,
    /// Replication requests without any answer for this long mean that the stream is dead.
    pub ack_watchdog: Duration,
    /// Bytes of a snapshot without an answer for this long mean that the transfer is dead.
    pub snapshot_stall: Duration,
    /// A leader whose own disk did not answer for this long hands over.
    pub disk_stall: Duration,
    /// A leader that has been applying one chunk for this long hands over to a voter that has
    /// applied more, where there is one.
    pub apply_stall: Duration,
    /// How long a command is offered to one leader after the other where a client sets no deadline.
    pub propose: Duration,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(400),
            connect: Duration::from_millis(300),
            ack_watchdog: Duration::from_secs(2),
            snapshot_stall: Duration::from_secs(10),
            disk_stall: Duration::from_secs(1),
            apply_stall: Duration::from_secs(1),
            propose: Duration::from_secs(7),
        }
    }
}

impl Timers {
    /// For disks whose fsync often takes longer than 50 ms.
    pub fn slow_disk() -> Timers {
        Timers {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            ..Timers::default()
        }
    }
}

/// Bounds on what a node holds for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Encoded size of one command.
    pub command_bytes_max: usize,
    /// Commands in one log entry; one entry is one batch.
    pub batch_commands_max: usize,
    /// Bytes in one log entry, unless a single command is larger.
    pub batch_bytes_max: usize,
    /// Entries that the leader has proposed and that no majority has yet.
    pub batches_in_flight_max: usize,
    /// Bytes of entries that the leader has proposed and not yet applied itself; beyond it
    /// clients wait.
    pub unapplied_bytes_max: usize,
    /// Runs that an origin has sent to the leader without an answer.
    pub runs_in_flight_max: usize,
    /// Commands of this node's clients whose outcome is open, in bytes; more are `Overloaded`.
    pub pending_bytes_max: usize,
    /// The same as a count; below the number of outcomes that the state keeps for one origin.
    pub pending_commands_max: usize,
    /// Runs of other nodes that wait at the leader, in bytes.
    pub inbound_bytes_max: usize,
    /// A snapshot is sent no faster: it must not take disk and processor from those who serve.
    pub snapshot_bytes_per_s: u64,
    /// Largest message between peers.
    pub message_bytes_max: usize,
    /// Connections that others may hold to the peer listener.
    pub peer_connections_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            command_bytes_max: 2 << 20,
            batch_commands_max: 256,
            batch_bytes_max: 64 << 10,
            batches_in_flight_max: 4,
            unapplied_bytes_max: 64 << 20,
            runs_in_flight_max: 4,
            pending_bytes_max: 64 << 20,
            pending_commands_max: 50_000,
            inbound_bytes_max: 64 << 20,
            snapshot_bytes_per_s: 64 << 20,
            message_bytes_max: 16 << 20,
            peer_connections_max: 256,
        }
    }
}

/// What openraft is told. The reasons stand beside each value that is not its default.
pub(crate) fn engine_config(timers: &Timers) -> Result<openraft::Config, openraft::ConfigError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: "quorate".to_owned(),
        heartbeat_interval: ms(timers.heartbeat),
        election_timeout_min: ms(timers.election_min),
        election_timeout_max: ms(timers.election_max),
        // A node that comes back from a partition must not depose a healthy leader.
        enable_pre_vote: Some(true),
        // A leader that restarts lost the unflushed tail of its state: it must be elected anew
        // before it answers reads.
        enable_leader_restore: Some(false),
        // With one-way isolation the leader keeps its followers quiet and reaches no quorum; this
        // silences it often enough for an election.
        quorum_loss_probe_interval: Some(2 * ms(timers.election_max)),
        // Entries are batches of up to 64 KiB; the log reader bounds a request in bytes.
        max_payload_entries: 1024,
        max_append_entries: Some(4096),
        // Snapshots and purges are decided in bytes by the storage side.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1024,
        install_snapshot_timeout: 60_000,
        backoff: "20ms 50ms 100ms 200ms ...500ms".to_owned(),
        ..openraft::Config::default()
    }
    .validate()
}
