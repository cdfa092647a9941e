//! Data nodes that consume nothing: they have sessions, acknowledge what they are told about
//! channels, and note when they are told to flush a segment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use prost::Message;
use proto::etcd;
use proto::etcd::event::EventType;
use proto::etcd::watch_request::RequestUnion;
use proto::milvus::data::data_node_server::{DataNode, DataNodeServer};
use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState};
use proto::milvus::{common, data, internal, milvus};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Request, Response, Status};

use crate::client::{Client, prefix_end, within};

/// Ids of equal length, none of which a Milvus process was given.
const FIRST_ID: i64 = 2_000_000;
const SESSIONS: &str = "by-dev/meta/session/datanode-";
const WATCHES: &str = "by-dev/meta/channelwatch/";
/// Longer than any run.
const TTL_S: i64 = 3600;
const CALL_WITHIN: Duration = Duration::from_secs(10);
const ACKNOWLEDGED_AT_ONCE: usize = 32;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// They act until this is dropped.
pub(super) struct DataNodes {
    shared: Arc<Shared>,
    leases: BTreeMap<i64, i64>,
    _tasks: JoinSet<()>,
}

struct Shared {
    nodes: Vec<Client>,
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    alive: BTreeSet<i64>,
    /// By channel: its newest owner, and whether that one has acknowledged.
    owners: BTreeMap<String, (i64, bool)>,
    /// When a segment was first told to be flushed.
    flushes: BTreeMap<i64, Instant>,
}

impl DataNodes {
    /// # Errors
    /// No port is free, or a session was not written.
    pub(super) async fn start(endpoints: &[String], n: usize) -> Result<DataNodes> {
        let nodes = endpoints.iter().map(|endpoint| Client::new(endpoint));
        let nodes: Vec<Client> = nodes.collect::<Result<_>>()?;
        let shared = Arc::new(Shared { nodes, facts: Mutex::default() });
        let mut tasks = JoinSet::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(DataNodeServer::new(Service { shared: Arc::clone(&shared) }))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tasks.spawn(async move {
            if let Err(error) = server.await {
                eprintln!("serving as data nodes: {error:#}");
            }
        });
        tasks.spawn(follow(Arc::clone(&shared)));
        let mut leases = BTreeMap::new();
        for nth in 0..n {
            let id = FIRST_ID + i64::try_from(nth)?;
            leases.insert(id, shared.register(id, &address).await?);
        }
        Ok(DataNodes { shared, leases, _tasks: tasks })
    }

    pub(super) fn owner(&self, channel: &str) -> Option<i64> {
        self.shared.facts.lock().owners.get(channel).map(|(node, _)| *node)
    }

    /// Waits until so many channels have an owner that is alive and has acknowledged.
    ///
    /// # Errors
    /// They do not within `patience`.
    pub(super) async fn wait_watched(&self, n_channels: usize, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let n_watched = {
                let facts = self.shared.facts.lock();
                let watched = facts
                    .owners
                    .values()
                    .filter(|(node, done)| *done && facts.alive.contains(node));
                watched.count()
            };
            if n_watched >= n_channels {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{n_watched} of {n_channels} channels are watched");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends a session; its channels, and the time until others have and acknowledge them.
    ///
    /// # Errors
    /// They are not moved within `patience`.
    pub(super) async fn lose(&mut self, patience: Duration) -> Result<Loss> {
        let (node, lease) = self.leases.pop_last().context("no data node is left")?;
        let lost: BTreeSet<String> = {
            let mut facts = self.shared.facts.lock();
            facts.alive.remove(&node);
            let owned = facts.owners.iter().filter(|(_, (owner, _))| *owner == node);
            owned.map(|(channel, _)| channel.clone()).collect()
        };
        let began = Instant::now();
        let mut client = self.shared.nodes[0].lease();
        let revoke = etcd::LeaseRevokeRequest { id: lease };
        within(CALL_WITHIN, client.lease_revoke(revoke)).await?;
        let mut assigned = None;
        loop {
            let (n_assigned, n_watched) = {
                let facts = self.shared.facts.lock();
                let owners = lost.iter().filter_map(|channel| facts.owners.get(channel));
                let moved: Vec<_> = owners.filter(|(owner, _)| *owner != node).collect();
                (moved.len(), moved.iter().filter(|(_, done)| *done).count())
            };
            if n_assigned == lost.len() {
                assigned.get_or_insert_with(|| began.elapsed());
            }
            if n_watched == lost.len() {
                let watched = began.elapsed();
                return Ok(Loss {
                    n_channels: lost.len(),
                    assigned: assigned.unwrap_or(watched),
                    watched,
                });
            }
            if began.elapsed() > patience {
                bail!("{n_watched} of {} channels of node {node} have moved", lost.len());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// When a segment was told to be flushed, once it is.
    ///
    /// # Errors
    /// It is not within `patience`.
    pub(super) async fn wait_flush(&self, segment: i64, patience: Duration) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(at) = self.shared.facts.lock().flushes.get(&segment) {
                return Ok(*at);
            }
            ensure!(Instant::now() < deadline, "nobody is told to flush segment {segment}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What became of a lost node's channels.
pub(super) struct Loss {
    pub(super) n_channels: usize,
    pub(super) assigned: Duration,
    pub(super) watched: Duration,
}

impl Shared {
    /// The lease of the session.
    async fn register(&self, id: i64, address: &str) -> Result<i64> {
        self.facts.lock().alive.insert(id);
        let grant = etcd::LeaseGrantRequest { ttl: TTL_S, id: 0 };
        let lease = within(CALL_WITHIN, self.nodes[0].lease().lease_grant(grant)).await?.id;
        let session = serde_json::json!({
            "ServerID": id, "ServerName": "datanode", "Address": address, "TriggerKill": true,
            "Version": "2.3.5", "IndexEngineVersion": {}, "LeaseID": lease,
        });
        let put = etcd::PutRequest {
            key: format!("{SESSIONS}{id}").into(),
            value: session.to_string().into(),
            lease,
            ..Default::default()
        };
        within(CALL_WITHIN, self.nodes[0].kv().put(put)).await?;
        Ok(lease)
    }

    /// Writes that a command was carried out, unless it was replaced meanwhile.
    async fn acknowledge(&self, nth: usize, key: etcd::KeyValue, info: ChannelWatchInfo) {
        let compare = etcd::Compare {
            result: etcd::compare::CompareResult::Equal.into(),
            target: etcd::compare::CompareTarget::Mod.into(),
            key: key.key.clone(),
            target_union: Some(etcd::compare::TargetUnion::ModRevision(key.mod_revision)),
            ..Default::default()
        };
        let put = etcd::PutRequest {
            key: key.key,
            value: info.encode_to_vec().into(),
            ..Default::default()
        };
        let put = etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(put)) };
        let txn = etcd::TxnRequest { compare: vec![compare], success: vec![put], failure: vec![] };
        for attempt in 0..10 {
            let node = &self.nodes[(nth + attempt) % self.nodes.len()];
            if within(CALL_WITHIN, node.kv().txn(txn.clone())).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is to be answered to a change of a watch key, after taking note of it.
    fn note(&self, key: &etcd::KeyValue) -> Option<ChannelWatchInfo> {
        let path = std::str::from_utf8(&key.key).ok()?.strip_prefix(WATCHES)?;
        let (node, channel) = path.split_once('/')?;
        let node: i64 = node.parse().ok()?;
        let mut info = ChannelWatchInfo::decode(key.value.clone()).ok()?;
        let mut facts = self.facts.lock();
        let answer = match info.state() {
            ChannelWatchState::ToWatch => ChannelWatchState::WatchSuccess,
            ChannelWatchState::ToRelease => ChannelWatchState::ReleaseSuccess,
            ChannelWatchState::WatchSuccess => {
                facts.owners.insert(channel.to_owned(), (node, true));
                return None;
            }
            ChannelWatchState::Uncomplete
            | ChannelWatchState::Complete
            | ChannelWatchState::WatchFailure
            | ChannelWatchState::ReleaseSuccess
            | ChannelWatchState::ReleaseFailure => return None,
        };
        if answer == ChannelWatchState::WatchSuccess {
            facts.owners.insert(channel.to_owned(), (node, false));
        }
        info.state = answer.into();
        facts.alive.contains(&node).then_some(info)
    }
}

/// Watches all channels, on one node after the other.
async fn follow(shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(ACKNOWLEDGED_AT_ONCE));
    let mut next = 1;
    for nth in 0usize.. {
        let node = &shared.nodes[nth % shared.nodes.len()];
        // It ends with its node, and goes on at the next one where it ended.
        let _ended = follow_on(&shared, node, &permits, &mut next).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follow_on(
    shared: &Arc<Shared>,
    node: &Client,
    permits: &Arc<Semaphore>,
    next: &mut i64,
) -> Result<()> {
    let create = etcd::WatchCreateRequest {
        key: WATCHES.into(),
        range_end: prefix_end(WATCHES),
        start_revision: *next,
        ..Default::default()
    };
    let request = etcd::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    sender.send(request).await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = within(CALL_WITHIN, node.watch().watch(requests)).await?;
    while let Some(answer) = answers.message().await? {
        for event in answer.events {
            let Some(key) = event.kv.filter(|_| event.r#type == i32::from(EventType::Put)) else {
                continue;
            };
            *next = key.mod_revision + 1;
            let Some(info) = shared.note(&key) else { continue };
            let permit = Arc::clone(permits).acquire_owned().await?;
            let shared = Arc::clone(shared);
            let acknowledging: JoinHandle<()> = tokio::spawn(async move {
                let nth = usize::try_from(key.mod_revision).unwrap_or_default();
                shared.acknowledge(nth, key, info).await;
                drop(permit);
            });
            drop(acknowledging);
        }
    }
    bail!("the watch ended")
}

struct Service {
    shared: Arc<Shared>,
}

macro_rules! data_node {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl DataNode for Service {
            async fn flush_segments(
                &self,
                request: Request<data::FlushSegmentsRequest>,
            ) -> Result<Response<common::Status>, Status> {
                let now = Instant::now();
                let mut facts = self.shared.facts.lock();
                for segment in request.into_inner().segment_i_ds {
                    facts.flushes.entry(segment).or_insert(now);
                }
                Ok(Response::new(common::Status::default()))
            }

            async fn flush_channels(
                &self,
                _request: Request<data::FlushChannelsRequest>,
            ) -> Result<Response<common::Status>, Status> {
                Ok(Response::new(common::Status::default()))
            }

            async fn get_compaction_state(
                &self,
                _request: Request<data::CompactionStateRequest>,
            ) -> Result<Response<data::CompactionStateResponse>, Status> {
                let status = Some(common::Status::default());
                Ok(Response::new(data::CompactionStateResponse { status, ..Default::default() }))
            }

            $(async fn $name(
                &self,
                _request: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("this data node only watches channels"))
            })*
        }
    };
}

data_node! {
    get_component_states(milvus::GetComponentStatesRequest) -> milvus::ComponentStates;
    get_statistics_channel(internal::GetStatisticsChannelRequest) -> milvus::StringResponse;
    watch_dm_channels(data::WatchDmChannelsRequest) -> common::Status;
    show_configurations(internal::ShowConfigurationsRequest) -> internal::ShowConfigurationsResponse;
    get_metrics(milvus::GetMetricsRequest) -> milvus::GetMetricsResponse;
    compaction(data::CompactionPlan) -> common::Status;
    sync_segments(data::SyncSegmentsRequest) -> common::Status;
    import(data::ImportTaskRequest) -> common::Status;
    resend_segment_stats(data::ResendSegmentStatsRequest) -> data::ResendSegmentStatsResponse;
    add_import_segment(data::AddImportSegmentRequest) -> data::AddImportSegmentResponse;
    notify_channel_operation(data::ChannelOperationsRequest) -> common::Status;
    check_channel_operation_progress(data::ChannelWatchInfo) -> data::ChannelOperationProgressResponse;
}
