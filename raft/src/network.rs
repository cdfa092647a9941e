//! What openraft says to a peer, over the connections of `peers`.

#![allow(clippy::result_large_err, reason = "openraft chose the size of its errors")]

mod acks;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use proto::quorate;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::clock_sync::ClockSync;
use crate::config::Timers;
use crate::contact::Contact;
use crate::log_store::LogStore;
use crate::notes::PeerNotes;
use crate::peers::{Peer, Peers};
use crate::room::{Room, RoomLevel};
use crate::snapshot_transfer::{image_of, send_snapshot};
use crate::storage::StorageControl;
use crate::types::{NodeMeta, Snapshot, SnapshotData, TypeConfig, Vote};
use crate::wire;

use acks::{AckStream, Ledger};

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) notes: Arc<PeerNotes>,
    /// The log is to be purged up to here.
    pub(crate) cutoff: watch::Receiver<u64>,
    pub(crate) storage: StorageControl,
    pub(crate) contact: Arc<Contact>,
    pub(crate) timers: Timers,
    pub(crate) snapshot_bytes_per_s: u64,
    pub(crate) clocks: Arc<ClockSync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Replication,
    Heartbeat,
    Snapshot,
}

impl Network {
    fn connection(&self, target: u64, node: &NodeMeta, purpose: Purpose) -> Connection {
        self.peers.learn([(target, node.endpoints.peer.clone())]);
        Connection {
            own: self.peers.identity().node,
            target,
            address: node.endpoints.peer.clone(),
            peers: Arc::clone(&self.peers),
            notes: Arc::clone(&self.notes),
            cutoff: self.cutoff.clone(),
            purpose,
            storage: self.storage.clone(),
            contact: Arc::clone(&self.contact),
            timers: self.timers,
            snapshot_bytes_per_s: self.snapshot_bytes_per_s,
            clocks: Arc::clone(&self.clocks),
            refusals: 0,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &NodeMeta) -> Connection {
        self.connection(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeMeta) -> Connection {
        self.connection(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeMeta) -> Connection {
        self.connection(target, node, Purpose::Snapshot)
    }
}

pub(crate) struct Connection {
    own: u64,
    target: u64,
    address: String,
    peers: Arc<Peers>,
    notes: Arc<PeerNotes>,
    cutoff: watch::Receiver<u64>,
    purpose: Purpose,
    storage: StorageControl,
    contact: Arc<Contact>,
    timers: Timers,
    snapshot_bytes_per_s: u64,
    clocks: Arc<ClockSync>,
    /// Replication streams in a row that the peer did not take.
    refusals: u32,
}

/// Pause after the first refused replication stream; doubles with each one that follows.
const REDIAL_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause: a node that comes back is found within this time.
const REDIAL_PAUSE_MAX: Duration = Duration::from_millis(200);

impl Connection {
    /// Where the target listens now: openraft keeps this object when a member's address changes.
    fn peer(&self) -> Arc<Peer> {
        self.peers.get(self.target).unwrap_or_else(|_| self.peers.at(self.target, &self.address))
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout { action, id: self.own, target: self.target, timeout })
    }

    /// A unary call that ends in time.
    async fn call<T>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Rpc<T> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => Err(self.timeout(action, timeout)),
        }
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            target: self.target,
            notes: Arc::clone(&self.notes),
            log: self.storage.log.clone(),
            leader: Arc::default(),
        }
    }

    /// A heartbeat, or an append without a stream.
    async fn append_once(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        within: Duration,
    ) -> Rpc<StreamAppendResult<TypeConfig>> {
        let peer = self.peer();
        let mut client = peer.control();
        let mut framed = frame(&self.storage.log, &self.contact, request, &self.storage.room);
        // It carries cluster time there, and the peer's wall clock back.
        let stamp = self.clocks.stamp();
        (framed.time_ms, framed.time_epoch) = (stamp.at_ms, stamp.epoch);
        let sent = self.clocks.monotonic();
        let call = client.heartbeat(peer.request(framed));
        let reply = self.noted(within, call).await?;
        self.clocks.heard(self.target, reply.wall_ms, sent);
        let result = parse_ack(&reply);
        let ledger = self.ledger();
        ledger.asks(&request.vote);
        ledger.hears(&result);
        result
    }

    /// A heartbeat, whose reply brings news of the peer's room; one that takes no part says why.
    async fn noted(
        &self,
        timeout: Duration,
        call: impl Future<Output = Result<tonic::Response<quorate::AppendReply>, Status>>,
    ) -> Rpc<quorate::AppendReply> {
        let noted =
            async { call.await.inspect_err(|status| self.peers.note_refusal(self.target, status)) };
        let reply = self.call(RPCTypes::AppendEntries, timeout, noted).await?;
        if let Some(room) = reply.room.as_ref().and_then(wire::room_from_wire) {
            self.peers.note_room(self.target, room);
        }
        Ok(reply)
    }

    /// openraft's own back-off ends with the next write, so under load it would dial a dead peer
    /// as fast as that refuses.
    async fn stream_or_pause<S>(
        &mut self,
        input: S,
    ) -> Rpc<BoxStream<'static, Rpc<StreamAppendResult<TypeConfig>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if self.lacks_room() {
            // It would refuse all of it, each time.
            tokio::time::sleep(REDIAL_PAUSE_MAX).await;
            let reason = Status::unavailable("the node is below the low mark of its disk");
            return Err(rpc_error(&reason));
        }
        let opened = self.stream(input).await;
        if opened.is_ok() {
            self.refusals = 0;
        } else {
            let pause = REDIAL_PAUSE.saturating_mul(1 << self.refusals.min(8));
            self.refusals += 1;
            tokio::time::sleep(pause.min(REDIAL_PAUSE_MAX)).await;
        }
        opened
    }

    fn lacks_room(&self) -> bool {
        let reported = self.peers.room(self.target);
        reported.is_some_and(|room| match room.level {
            RoomLevel::Plenty => false,
            RoomLevel::Low => !self.storage.room.is_tight(),
            RoomLevel::Last => true,
        })
    }

    async fn stream<S>(
        &self,
        input: S,
    ) -> Rpc<BoxStream<'static, Rpc<StreamAppendResult<TypeConfig>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let sent = Arc::new(AtomicU64::new(0));
        let ledger = self.ledger();
        let (counted, noting) = (Arc::clone(&sent), ledger.clone());
        let (log, contact) = (self.storage.log.clone(), Arc::clone(&self.contact));
        let room = Arc::clone(&self.storage.room);
        let frames = input.map(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            noting.asks(&request.vote);
            frame(&log, &contact, &request, &room)
        });
        let peer = self.peer();
        let mut client = peer.replication();
        let call = client.append(peer.request(frames));
        let watchdog = self.timers.ack_watchdog;
        let replies = self.call(RPCTypes::AppendEntries, watchdog, call).await?;
        let state = AckStream {
            replies,
            ledger,
            cutoff: self.cutoff.clone(),
            matched: None,
            sent,
            answered: 0,
            watchdog,
            timeout: self.timeout(RPCTypes::AppendEntries, watchdog),
            ended: false,
        };
        Ok(futures::stream::unfold(state, AckStream::next).boxed())
    }
}

/// An append on its way. What it says to be committed is noted first: as soon as the follower has
/// applied it, a read that begins anywhere has to see it.
fn frame(
    log: &LogStore,
    contact: &Contact,
    request: &AppendEntriesRequest<TypeConfig>,
    room: &Room,
) -> quorate::AppendRequest {
    if let Some(committed) = request.leader_commit {
        log.note_committed(committed.index);
    }
    let without_quorum = contact.is_without_quorum();
    quorate::AppendRequest {
        without_quorum,
        frees_room: room.is_tight(),
        ..wire::append_to_wire(request)
    }
}

fn parse_ack(reply: &quorate::AppendReply) -> Rpc<StreamAppendResult<TypeConfig>> {
    wire::append_result_from_wire(reply).map_err(|error| network_error(&error))
}

fn network_error(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

/// `Unreachable` makes openraft wait longer and longer; everything else is tried again soon.
fn rpc_error(status: &Status) -> RPCError<TypeConfig> {
    if matches!(status.code(), Code::Unavailable | Code::FailedPrecondition) {
        RPCError::Unreachable(Unreachable::new(status))
    } else {
        network_error(status)
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        Ok(self.append_once(&rpc, option.hard_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose != Purpose::Heartbeat {
                return self.stream_or_pause(input).await;
            }
            // A heartbeat is a stream of one item: a stream of its own would cost more than it.
            let Some(request) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let result = self.append_once(&request, option.hard_ttl()).await?;
            Ok(futures::stream::once(std::future::ready(Ok(result))).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let peer = self.peer();
        let mut client = peer.control();
        let sent = self.clocks.monotonic();
        let call = client.vote(peer.request(wire::vote_request_to_wire(&rpc)));
        let reply = self.call(RPCTypes::Vote, option.hard_ttl(), call).await?;
        self.clocks.heard(self.target, reply.wall_ms, sent);
        let response =
            wire::vote_response_from_wire(&reply).map_err(|error| network_error(&error))?;
        // Whoever answers has its vote on disk.
        self.notes.voted(self.target, response.vote.leader_id);
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let peer = self.peer();
        let mut client = peer.control();
        let sent = self.clocks.monotonic();
        let call = client.pre_vote(peer.request(wire::vote_request_to_wire(&rpc)));
        let reply = self.call(RPCTypes::Vote, option.hard_ttl(), call).await?;
        self.clocks.heard(self.target, reply.wall_ms, sent);
        wire::vote_response_from_wire(&reply).map_err(|error| network_error(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = async {
            let source = self.storage.snapshot_source(image_of(snapshot.snapshot)?);
            let stall = self.timers.snapshot_stall;
            send_snapshot(&self.peer(), vote, source, stall, self.snapshot_bytes_per_s).await
        };
        tokio::select! {
            // The receiver keeps what it has and goes on from there next time.
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => {
                match sent {
                    Ok(vote) => Ok(SnapshotResponse::new(vote)),
                    Err(status) => {
                        tracing::warn!(node = self.target, error = %status, "snapshot not sent");
                        Err(rpc_error(&status).into())
                    }
                }
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let peer = self.peer();
        let mut client = peer.control();
        let call = client.transfer_leader(peer.request(wire::transfer_to_wire(&request)));
        let reply = self.call(RPCTypes::TransferLeader, option.hard_ttl(), call).await?;
        wire::transfer_result_from_wire(&reply).map_err(|error| network_error(&error))
    }
}
