//! Puts a node together, in the one order that works.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use proto::quorate::peer_server::PeerServer;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::apply::{OutcomeSink, Outcomes};
use crate::clock_sync::{ClockSync, Stamp};
use crate::config::{NodeOptions, engine_config};
use crate::confirm::Confirmer;
use crate::connect::{Acceptor, incoming};
use crate::contact::Contact;
use crate::dir_lock::DirLock;
use crate::engine::Engine;
use crate::error::StartError;
use crate::failure::{Area, Failure};
use crate::identity::{self, StoredIdentity};
use crate::inbound::Inbound;
use crate::intake::Intake;
use crate::leadership::{Leadership, watch_leadership};
use crate::line::Lines;
use crate::membership::check_member;
use crate::network::Network;
use crate::node::{Inner, PeerHandler};
use crate::notes::PeerNotes;
use crate::peer_service::PeerService;
use crate::peers::Peers;
use crate::places::Places;
use crate::propose::Proposer;
use crate::pump::Pump;
use crate::quarantine::{Replacement, quarantine_reason};
use crate::read::{ReadBarrier, ReadRounds};
use crate::status::Status;
use crate::storage::Storage;
use crate::tenure::watch_tenure;
use crate::types::NodeMeta;
use crate::who::Identity;
use crate::{bootstrap, failure, observe, room, tasks};

/// Runs on the node's own threads, `handle`; those who will ask the node wait on `callers`.
pub(crate) async fn start(
    mut options: NodeOptions,
    handler: Arc<dyn PeerHandler>,
    handle: Handle,
    callers: Handle,
) -> Result<Arc<Inner>, StartError> {
    let engine_config =
        engine_config(&options.timers).map_err(|error| StartError::Timers(error.to_string()))?;
    let meta = NodeMeta { name: options.name.clone(), endpoints: options.advertise.clone() };
    check_member(&meta).map_err(StartError::Member)?;
    let dir_lock = DirLock::take(&options.data_dir)?;
    admit(&options.data_dir)?;
    let mut stored = identity::read_or_draw(&options.data_dir, &options.name)?;
    // Before anyone hears of this start.
    stored.starts += 1;
    identity::write(&options.data_dir, &stored)?;
    if stored.cluster == 0 {
        bootstrap::check_initial_cluster(&options.name, &options.initial_cluster)?;
    }
    let identity = Identity::new(&stored);
    if let Some(reason) = quarantine_reason(&options.data_dir) {
        Replacement::new(&options).fetch_any(&stored, &reason).await?;
    }
    let proposer =
        Proposer::new(stored.node, identity::random_id(), options.limits, callers.clone());
    let clocks = ClockSync::new(stored.node, Arc::clone(&options.clock));
    let sink = Sink { proposer: Arc::clone(&proposer), clocks: Arc::clone(&clocks) };
    let Storage { log, machine, control } = open_storage(&options, &stored, Arc::new(sink)).await?;
    control.state.view().read(|state| {
        clocks.applied(Stamp { at_ms: state.at_ms(), epoch: state.time_epoch() });
    });
    let peers = Peers::new(
        Arc::clone(&identity),
        Arc::clone(&options.dialer),
        options.timers,
        options.limits.message_bytes_max,
        handle.clone(),
        callers.clone(),
    );
    let notes = Arc::new(PeerNotes::open(&options.data_dir, stored.cluster));
    let cutoff = watch::Sender::new(0);
    let contact = Contact::new(&options.timers);
    let network = Network {
        peers: Arc::clone(&peers),
        notes: Arc::clone(&notes),
        cutoff: cutoff.subscribe(),
        storage: control.clone(),
        contact: Arc::clone(&contact),
        timers: options.timers,
        snapshot_bytes_per_s: options.limits.snapshot_bytes_per_s,
        clocks: Arc::clone(&clocks),
    };
    let engine = Engine::build(stored.node, Arc::new(engine_config), network, log, machine)
        .await
        .map_err(|error| StartError::Consensus(error.to_string()))?;
    options.listen.attach().map_err(StartError::Listen)?;
    let (leadership_sender, leadership) = watch::channel(Leadership::default());
    let (tenure_sender, tenure) = watch::channel(None);
    let status = Status::new(stored.node, options.name.clone(), stored.cluster);
    let confirmer = Confirmer::new(
        stored.node,
        engine.clone(),
        control.log.clone(),
        Arc::clone(&peers),
        tenure.clone(),
    );
    let inner = Arc::new(Inner {
        identity,
        starts: stored.starts,
        run: identity::random_id(),
        notes,
        admitted: AtomicBool::new(false),
        refused: OnceLock::new(),
        meta,
        version: options.version,
        data_dir: options.data_dir,
        initial_cluster: options.initial_cluster,
        timers: options.timers,
        clock: options.clock,
        clocks: Arc::clone(&clocks),
        limits: options.limits,
        engine: engine.clone(),
        cutoff,
        intake: Intake::new(Arc::clone(&control.metrics)),
        storage: control,
        peers: Arc::clone(&peers),
        inbound: Inbound::new(options.limits.inbound_bytes_max, Arc::clone(&proposer)),
        proposer: Arc::clone(&proposer),
        barrier: ReadBarrier::new(),
        confirmer,
        contact,
        peer_places: Places::new(options.limits.peer_connections_max),
        handler,
        leadership: leadership.clone(),
        status: watch::Sender::new(status),
        recovered: AtomicBool::new(false),
        tenure,
        runtime: handle.clone(),
        on_fatal: options.on_fatal,
        cancel: CancellationToken::new(),
        dir_lock,
        threads: Mutex::new(None),
        stored_identity: tokio::sync::Mutex::new(stored),
    });
    let cancel = inner.cancel.clone();
    // Before the engine runs, which `observe` begins with: the first leadership must find everybody
    // listening.
    tasks::spawn(
        &handle,
        "leadership",
        watch_leadership(engine.clone(), leadership_sender, cancel.clone()),
    );
    tasks::spawn(
        &handle,
        "tenure",
        watch_tenure(engine.clone(), leadership.clone(), tenure_sender, cancel.clone()),
    );
    serve_peers(&inner, options.listen);
    let pump = Pump {
        proposer,
        inbound: Arc::clone(&inner.inbound),
        engine: engine.clone(),
        peers: Arc::clone(&peers),
        leadership: leadership.clone(),
        clocks,
        limits: inner.limits,
        metrics: Arc::clone(&inner.storage.metrics),
        room: Arc::clone(&inner.storage.room),
        cancel: cancel.clone(),
        others_first: false,
    };
    tasks::spawn(&handle, "pump", pump.run());
    let rounds = ReadRounds {
        node: inner.identity.node,
        barrier: Arc::clone(&inner.barrier),
        confirmer: Arc::clone(&inner.confirmer),
        log: inner.storage.log.clone(),
        peers,
        lines: Lines::default(),
        leadership,
        applied: inner.storage.state.applied_index(),
        runtime: callers.clone(),
        cancel,
    };
    // Where those who read wait, so that neither has to wake another thread.
    tasks::spawn(&callers, "read index", rounds.run());
    observe::start(&inner);
    Ok(inner)
}

/// Where apply brings what it has done.
struct Sink {
    proposer: Arc<Proposer>,
    clocks: Arc<ClockSync>,
}

impl OutcomeSink for Sink {
    fn applied(&self, index: u64, outcomes: Outcomes) {
        self.proposer.applied(index, outcomes);
    }

    fn timed(&self, at_ms: u64, epoch: u64) {
        self.clocks.applied(Stamp { at_ms, epoch });
    }

    fn installed(&self) {
        self.proposer.installed();
    }
}

/// Whether the node may start once more after it ended itself.
pub(crate) fn admit(data_dir: &Path) -> Result<(), StartError> {
    let now = std::time::SystemTime::now();
    failure::admit_start(data_dir, now)
        .map_err(|poisoned| StartError::Storage(Box::new(poisoned)))?;
    failure::admit_restart(data_dir, now).map_err(|looping| StartError::Storage(Box::new(looping)))
}

async fn open_storage(
    options: &NodeOptions,
    stored: &StoredIdentity,
    sink: Arc<dyn OutcomeSink>,
) -> Result<Storage, StartError> {
    let path = options.data_dir.clone();
    let mut storage_options = options.storage.clone();
    storage_options.data_dir = path.clone();
    storage_options.node = stored.node;
    // Reading the log and the state takes as long as it takes.
    let opening = tokio::task::spawn_blocking(move || Storage::open(storage_options, sink));
    let storage = opening
        .await
        .map_err(|error| StartError::Consensus(error.to_string()))?
        .map_err(|error| {
            let text = error.to_string();
            if room::is_no_space(&text)
                && let Err(error) = room::note_full(&options.data_dir, &text)
            {
                tracing::warn!(%error, "the full disk is not noted");
            }
            if error.is_damaged_state() {
                let failure = Failure { area: Area::Rows, message: text };
                let noted = failure::note(&options.data_dir, &failure);
                tracing::error!(
                    error = %failure,
                    noted = noted.is_ok(),
                    "the state is damaged: the next start takes that of another member"
                );
            }
            StartError::Storage(Box::new(error))
        })?;
    let used = storage.log.last_log_id().is_some() || storage.control.vote().is_some();
    if stored.used && !used {
        return Err(StartError::Identity {
            path,
            reason: format!(
                "node {:016x} has taken part in its cluster, and its log is gone; wipe the \
                 directory and replace the node with `quorate member replace {} --with {}`",
                stored.node, options.name, options.advertise.peer
            ),
        });
    }
    Ok(storage)
}

fn serve_peers(inner: &Arc<Inner>, acceptor: Box<dyn Acceptor>) {
    let message_bytes_max = inner.limits.message_bytes_max;
    let service = PeerServer::new(PeerService::new(Arc::clone(inner)))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(8 << 20)
        .max_concurrent_streams(1024)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(service);
    let cancel = inner.cancel.clone();
    let connections = incoming(acceptor, Arc::clone(&inner.peer_places), cancel.clone());
    tasks::spawn(&inner.runtime, "peer server", async move {
        tokio::select! {
            // Cancelled, all connections are dropped with it: a stopped node is silent at once.
            served = server.serve_with_incoming(connections) => {
                if let Err(error) = served {
                    tracing::error!(error = %error, "peer server ended");
                }
            }
            () = cancel.cancelled() => {}
        }
    });
}
