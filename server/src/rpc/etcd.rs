//! The etcd v3 API, the same on every node.
//!
//! Writes go through the log from wherever they arrive; linearizable reads take a barrier and are
//! served here; serializable reads and watches come from what this node has applied. Wire types
//! and etcd's texts stay in this module.

mod auth;
mod call;
mod cluster;
mod codec;
mod error;
mod gate;
mod header;
mod health;
mod kv;
mod lease;
mod limits;
mod maintenance;
mod reflection;
mod room;
mod watch;
mod wide;

use std::sync::Arc;

use proto::{etcd, quorate};
use raft::{Consistency, Node, View};
use statemachine::{Rejection, Response, Settings};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::admin::scans::Scans;
use crate::edge::limits::CLIENT_OUTFLOW_BYTES_MAX;
use crate::edge::outflow::Outflow;
use crate::lease_clock::Leases;
use crate::watch_hub::WatchHub;
use call::Deadline;
use error::EtcdError;
use header::Headers;

pub(crate) use gate::Gate;
pub(crate) use kv::{KV_PREFIX, KvService, PastImages};
pub use limits::EtcdLimits;
pub use maintenance::ETCD_VERSION;

/// The etcd API of one node, shared by its services.
pub struct Etcd {
    node: Node,
    limits: EtcdLimits,
    headers: Headers,
    hub: Arc<WatchHub>,
    leases: Arc<Leases>,
    large_reads: Arc<Semaphore>,
    outflow: Arc<Outflow>,
    past_images: Arc<PastImages>,
    scans: Arc<Scans>,
    wide_writes: Semaphore,
    room: Arc<room::RoomGate>,
    stop: CancellationToken,
}

impl Etcd {
    /// Starts what the services need in the background; it ends with `stop`.
    pub(crate) fn start(
        node: Node,
        limits: EtcdLimits,
        leases: Arc<Leases>,
        scans: Arc<Scans>,
        stop: CancellationToken,
    ) -> Arc<Etcd> {
        Arc::new(Etcd {
            headers: Headers::new(node.status()),
            hub: WatchHub::start(node.clone(), Arc::clone(&leases), &limits, stop.clone()),
            leases,
            large_reads: Arc::new(Semaphore::new(limits.large_reads_max.max(1))),
            outflow: Outflow::new(CLIENT_OUTFLOW_BYTES_MAX),
            past_images: PastImages::new(stop.clone()),
            scans,
            wide_writes: Semaphore::new(limits.wide_writes_max.max(1)),
            room: room::RoomGate::start(node.clone(), stop.clone()),
            node,
            limits,
            stop,
        })
    }

    pub(crate) fn past_images(&self) -> &Arc<PastImages> {
        &self.past_images
    }

    pub(crate) fn outflow(&self) -> &Arc<Outflow> {
        &self.outflow
    }

    pub fn hub(&self) -> &Arc<WatchHub> {
        &self.hub
    }

    /// The KV service alone, for an edge that hands its calls over without a router.
    pub(crate) fn kv(self: &Arc<Self>) -> gate::Gate<KvService> {
        let receive_max = self.limits.message_bytes_max();
        gate::Gate::new(KvService::new(Arc::clone(self), receive_max), receive_max)
    }

    /// All etcd services, gRPC health and reflection.
    pub fn routes(self: &Arc<Self>) -> tonic::service::Routes {
        let receive_max = self.limits.message_bytes_max();
        /// Wraps a generated server with this API's bounds on messages.
        macro_rules! bounded {
            ($server:expr) => {
                gate::Gate::new(
                    $server
                        .max_decoding_message_size(receive_max)
                        .max_encoding_message_size(usize::MAX),
                    receive_max,
                )
            };
        }
        let api = || Arc::clone(self);
        let mut routes = tonic::service::Routes::builder();
        routes
            .add_service(self.kv())
            .add_service(gate::Gate::new(watch::WatchServer::new(api(), receive_max), receive_max))
            .add_service(bounded!(etcd::lease_server::LeaseServer::new(lease::Lease(api()))))
            .add_service(bounded!(etcd::cluster_server::ClusterServer::new(
                cluster::Cluster(api())
            )))
            .add_service(bounded!(etcd::maintenance_server::MaintenanceServer::new(
                maintenance::Maintenance(api())
            )))
            .add_service(bounded!(etcd::auth_server::AuthServer::new(auth::Auth(api()))))
            .add_service(health::service(self))
            .add_service(reflection::service());
        routes.routes()
    }

    /// Reads what the call brings along, and refuses it where it demands a leader and there is
    /// none.
    fn admit(&self, metadata: &MetadataMap) -> Result<Deadline, Status> {
        if call::requires_leader(metadata) && !self.headers.has_leader() {
            return Err(EtcdError::NoLeader.into());
        }
        Ok(Deadline::of(metadata, self.limits.request_timeout))
    }

    /// Runs a command through the log.
    async fn propose(
        &self,
        kind: quorate::command::Kind,
        deadline: Deadline,
    ) -> Result<Response, Status> {
        self.room.admit(&kind)?;
        let _permit =
            if wide::is_wide(&kind) { Some(self.admit_wide(&deadline).await?) } else { None };
        let command = quorate::Command { fence: None, kind: Some(kind) };
        let committed = self
            .node
            .propose(command, deadline.at)
            .await
            .map_err(|error| error::propose(&error, &deadline))?;
        let outcome = match (committed.outcome, committed.image) {
            (Ok(Response::Deferred(deferred)), Some(image)) => {
                self.read_deferred(deferred, image).await?
            }
            (outcome, _) => outcome,
        };
        outcome.map_err(|rejection: Rejection| error::rejection(&rejection))
    }

    async fn view(&self, consistency: Consistency, deadline: Deadline) -> Result<View, Status> {
        self.node
            .view(consistency, deadline.at)
            .await
            .map_err(|error| error::read(&error, &deadline))
    }

    /// Refuses a wrong shape before it costs a round; apply would refuse it too.
    fn check(&self, checked: Result<(), Rejection>) -> Result<(), Status> {
        checked.map_err(|rejection| error::rejection(&rejection))
    }

    /// A replicated setting, as this node has it.
    fn setting<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        self.node.local_view().read(|state| read(state.settings()))
    }

    /// # Errors
    /// Where the request is larger than the limit, whatever part of it makes it so.
    fn check_size(&self, message: &impl prost::Message) -> Result<(), Status> {
        let size_bytes = message.encoded_len();
        let limit_bytes = self.limits.request_bytes_max;
        if size_bytes <= limit_bytes {
            return Ok(());
        }
        Err(EtcdError::RequestTooLarge.with_detail(&format!(
            "the request has {size_bytes} bytes, the limit is {limit_bytes}: split it"
        )))
    }
}

/// The outcome is of another kind than the command: the two tables disagree.
fn mismatch() -> Status {
    tracing::error!("outcome of another command");
    Status::internal("etcdserver: outcome of another command")
}
