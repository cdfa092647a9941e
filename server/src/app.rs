//! Puts a node together, and takes it apart again when it is told to stop.

mod listen;
mod stop;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use raft::failure::note_end;
use raft::{Endpoints, Node, NodeOptions, RoomPolicy};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::admin::scans::Scans;
use crate::admin::service::AdminService;
use crate::config::checked::Config;
use crate::coordinator::Coordinator;
use crate::duty::DutyOptions;
use crate::edge::doors::Doors;
use crate::edge::limits::Connections;
use crate::http::{Pages, edge};
use crate::lease_clock::Leases;
use crate::rpc::etcd::{Etcd, EtcdLimits};
use crate::rpc::peer::PeerTopics;
use crate::tasks::Tasks;
use listen::Listeners;
use stop::StopSignals;

/// Threads that never came back must not keep the process.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

/// Runs until somebody stops the process.
///
/// # Errors
/// The node does not start: an address is taken, the data directory belongs to another node or
/// version, the storage is damaged.
pub(crate) fn run(config: Config, stop_with_stdin: bool) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.thread_name("client").enable_all();
    if config.worker_threads > 0 {
        builder.worker_threads(config.worker_threads);
    }
    let runtime = builder.build().context("cannot start the threads that serve clients")?;
    let outcome = runtime.block_on(serve(config, stop_with_stdin));
    runtime.shutdown_timeout(RUNTIME_STOP);
    outcome
}

async fn serve(config: Config, stop_with_stdin: bool) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen(stop_with_stdin)?;
    let connections = Connections::of_files(crate::edge::files::raise_limit());
    let listeners = Listeners::bind(&config).await?;
    // Opening the stores on a full disk would fail half-way, and again at each start.
    tokio::select! {
        () = waiting::for_room(&listeners, &config.data_dir, config.disk_low_bytes) => {}
        reason = signals.next() => {
            info!(%reason, "stopped while waiting for room");
            return Ok(());
        }
    }
    let config = Arc::new(config);
    let tasks = Tasks::new();
    let topics = PeerTopics::new();
    let mut options = node_options(&config, listeners.peer);
    options.limits.peer_connections_max = connections.peer;
    options.initial_cluster.clone_from(&config.initial_cluster);
    let ports = [Some(&listeners.client), Some(&listeners.http), listeners.coordinator.as_ref()];
    let ports: Vec<_> = ports.into_iter().flatten().collect();
    tokio::select! {
        replaced = waiting::for_state(&ports, &mut options) => replaced?,
        reason = signals.next() => {
            info!(%reason, "stopped while in quarantine");
            return Ok(());
        }
    }
    // Opening may replay a long log: a signal must not wait for that.
    let node = tokio::select! {
        // Dropping a start is as good as a crash in it, which every start survives.
        node = Node::start(options, topics.clone()) => node?,
        reason = signals.next() => {
            info!(%reason, "stopped while starting");
            return Ok(());
        }
    };
    let limits = EtcdLimits {
        request_bytes_max: config.request_bytes_max,
        request_timeout: config.request_timeout,
        ..EtcdLimits::default()
    };
    let leases = Leases::start(node.clone(), config.election_timeout_max, tasks.stopping());
    let scans = Scans::new();
    let etcd = Etcd::start(
        node.clone(),
        limits.clone(),
        Arc::clone(&leases),
        Arc::clone(&scans),
        tasks.stopping(),
    );
    topics.attach(node.clone(), Arc::clone(&leases), etcd.hub());
    crate::duty::start(node.clone(), Arc::clone(&leases), DutyOptions::default(), tasks.stopping());
    let coordinator = config.coordinator.as_ref().map(|coordinator| {
        let settings = Arc::new(coordinator.settings.clone());
        Coordinator::start(node.clone(), Arc::clone(&leases), settings, tasks.stopping())
    });
    let pages = Pages::new(
        node.clone(),
        Arc::clone(&leases),
        &etcd,
        Arc::clone(&config),
        coordinator.clone(),
        Doors::new(connections),
        Instant::now(),
    );
    let admin = AdminService::new(
        node.clone(),
        config.data_dir.clone(),
        pages.started(),
        coordinator.clone(),
        scans,
    );
    let client = edge::Edge::for_clients(&etcd, admin, &pages, &limits);
    tasks.spawn("client listener", client.serve(listeners.client, tasks.clone()));
    let http = edge::Edge::for_pages(&pages, &limits);
    tasks.spawn("http listener", http.serve(listeners.http, tasks.clone()));
    if let (Some(coordinator), Some(listener)) = (&coordinator, listeners.coordinator) {
        let edge = edge::Edge::for_coordinator(coordinator, &pages, &limits);
        tasks.spawn("coordinator listener", edge.serve(listener, tasks.clone()));
    }
    info!(
        node = format_args!("{:016x}", node.id()),
        name = config.name,
        client = config.listen.client,
        peer = config.listen.peer,
        http = config.listen.http,
        coordinator = config.coordinator.as_ref().and(config.listen.coordinator.as_deref()),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );

    let reason = signals.next().await;
    info!(%reason, "stopping");
    tokio::select! {
        // What is cut off by a second signal is what a crash would cut off.
        () = shut_down(&node, &tasks, config.shutdown_timeout) => {}
        reason = signals.next() => warn!(%reason, "told twice, stopping at once"),
    }
    Ok(())
}

/// The others must have a leader before this node stops to answer.
async fn shut_down(node: &Node, tasks: &Tasks, deadline: Duration) {
    let until = tokio::time::Instant::now() + deadline;
    let status = node.status().borrow().clone();
    if status.is_leader() && status.voters().count() > 1 {
        let hand_over = tokio::time::Instant::now() + Duration::from_secs(1).min(deadline);
        if let Err(error) = node.transfer_leader(None, hand_over).await {
            warn!(%error, "leadership was not handed over");
        }
    }
    let left =
        |until: tokio::time::Instant| until.saturating_duration_since(tokio::time::Instant::now());
    tasks.stop(left(until) / 2).await;
    if timeout(left(until), node.shutdown()).await.is_err() {
        warn!(seconds = deadline.as_secs(), "the node did not stop in time");
    }
    info!("stopped");
}

fn node_options(config: &Config, listener: tokio::net::TcpListener) -> NodeOptions {
    let advertise = Endpoints {
        peer: config.advertise.peer.clone(),
        client: config.advertise.client.clone(),
        http: config.advertise.http.clone(),
        coordinator: config.advertise.coordinator.clone().unwrap_or_default(),
    };
    let mut options = NodeOptions::new(&config.data_dir, config.name.clone(), listener, advertise);
    options.timers.heartbeat = config.heartbeat_interval;
    options.timers.election_min = config.election_timeout_min;
    options.timers.election_max = config.election_timeout_max;
    options.timers.propose = config.request_timeout;
    options.storage.retention.snapshot_log_bytes = config.snapshot_log_bytes;
    options.storage.retention.keep_log_bytes = config.log_kept_bytes;
    options.storage.room =
        RoomPolicy { low_bytes: config.disk_low_bytes, ballast_bytes: config.disk_ballast_bytes };
    options.limits.snapshot_bytes_per_s = config.snapshot_bytes_per_s;
    options.version = env!("CARGO_PKG_VERSION").to_owned();
    let data_dir = config.data_dir.clone();
    options.on_fatal = Arc::new(move |reason: &str| {
        error!(reason, "this node must not go on, the process ends");
        note_end(&data_dir, reason);
        std::process::abort();
    });
    options
}
