//! Connections to the other nodes, made once and kept.
//!
//! Each peer has four, so that neither payloads nor snapshots nor reads delay a heartbeat.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::quorate::peer_client::PeerClient;
use statemachine::versions::{PEER, Versions};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::config::Timers;
use crate::connect::{Dialer, PeerStream};
use crate::room::RoomView;
use crate::who::Identity;

pub(crate) const CLUSTER_KEY: &str = "quorate-cluster";
pub(crate) const FROM_KEY: &str = "quorate-from";
pub(crate) const TO_KEY: &str = "quorate-to";
/// The newest version of the peer protocol that the caller knows, and the oldest.
pub(crate) const WIRE_KEY: &str = "quorate-wire";
pub(crate) const WIRE_OLDEST_KEY: &str = "quorate-wire-oldest";
/// What a node that answers on its ports and takes no part waits for: `room` or `state`.
pub const WAITS_FOR_KEY: &str = "quorate-waits-for";
pub(crate) const NONCE_KEY: &str = "quorate-nonce";
pub(crate) const TO_NONCE_KEY: &str = "quorate-to-nonce";

/// A stream may run this far ahead of its reader; large enough never to pace replication.
const WINDOW_BYTES: u32 = 8 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What a peer says of the versions that it speaks; numbers beyond any version stand for the
/// largest.
pub(crate) fn wire_range(oldest: u64, newest: u64) -> Versions {
    let version = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Versions { oldest: version(oldest), newest: version(newest) }
}

pub(crate) fn number(metadata: &MetadataMap, key: &'static str, radix: u32) -> Result<u64, Status> {
    metadata
        .get(key)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| u64::from_str_radix(text, radix).ok())
        .ok_or_else(|| {
            Status::failed_precondition(format!(
                "metadata {key} is missing: only nodes of a cluster call this port"
            ))
        })
}

/// A peer under one address.
pub(crate) struct Peer {
    address: String,
    metadata: MetadataMap,
    replication: PeerClient<Channel>,
    control: PeerClient<Channel>,
    bulk: PeerClient<Channel>,
    reads: PeerClient<Channel>,
}

impl Peer {
    /// Entries.
    pub(crate) fn replication(&self) -> PeerClient<Channel> {
        self.replication.clone()
    }

    /// Heartbeats, votes, forwarded commands.
    pub(crate) fn control(&self) -> PeerClient<Channel> {
        self.control.clone()
    }

    /// Snapshots and long answers.
    pub(crate) fn bulk(&self) -> PeerClient<Channel> {
        self.bulk.clone()
    }

    /// Read indexes and confirmations, on the threads of those who read: they need not wake another.
    pub(crate) fn reads(&self) -> PeerClient<Channel> {
        self.reads.clone()
    }

    /// A request that says who asks whom.
    pub(crate) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        request
    }
}

pub(crate) struct Peers {
    identity: Arc<Identity>,
    dialer: Arc<dyn Dialer>,
    timers: Timers,
    message_bytes_max: usize,
    /// Connections live on this node's own runtime, whoever asks for them;
    runtime: Handle,
    /// those of reads where the reads are waited for.
    callers: Handle,
    known: Mutex<Known>,
    /// What each peer reported last, and why it takes no part where it said so.
    reports: Mutex<Reports>,
}

#[derive(Default)]
struct Reports {
    rooms: BTreeMap<u64, RoomView>,
    troubles: BTreeMap<u64, Trouble>,
}

/// What a node waits for that answers on its ports and takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Free space, before it opens its stores.
    Room,
    /// A snapshot in the place of its own state, which must not be used.
    State,
}

impl WaitsFor {
    /// As the metadata of its refusals has it.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitsFor::Room => "room",
            WaitsFor::State => "state",
        }
    }

    fn of(metadata: &MetadataMap) -> Option<WaitsFor> {
        let value = metadata.get(WAITS_FOR_KEY)?.to_str().ok()?;
        [WaitsFor::Room, WaitsFor::State].into_iter().find(|waits_for| waits_for.as_str() == value)
    }
}

/// Why a node takes no part, as it reported itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub waits_for: WaitsFor,
    pub reason: String,
}

#[derive(Default)]
struct Known {
    addresses: BTreeMap<u64, String>,
    /// Made for `cluster`; a node gets its cluster after it has made its first connections.
    peers: BTreeMap<u64, Arc<Peer>>,
    cluster: u64,
}

impl Peers {
    pub(crate) fn new(
        identity: Arc<Identity>,
        dialer: Arc<dyn Dialer>,
        timers: Timers,
        message_bytes_max: usize,
        runtime: Handle,
        callers: Handle,
    ) -> Arc<Peers> {
        let known = Mutex::default();
        Arc::new(Peers {
            identity,
            dialer,
            timers,
            message_bytes_max,
            runtime,
            callers,
            known,
            reports: Mutex::default(),
        })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What a peer reported with a heartbeat.
    pub(crate) fn note_room(&self, node: u64, room: RoomView) {
        let mut reports = self.reports.lock();
        reports.rooms.insert(node, room);
        reports.troubles.remove(&node);
    }

    /// What a peer that takes no part answered; anything else is no news of it.
    pub(crate) fn note_refusal(&self, node: u64, status: &Status) {
        let Some(waits_for) = WaitsFor::of(status.metadata()) else { return };
        let trouble = Trouble { waits_for, reason: status.message().to_owned() };
        self.reports.lock().troubles.insert(node, trouble);
    }

    pub(crate) fn room(&self, node: u64) -> Option<RoomView> {
        self.reports.lock().rooms.get(&node).copied()
    }

    pub(crate) fn rooms(&self) -> BTreeMap<u64, RoomView> {
        self.reports.lock().rooms.clone()
    }

    pub(crate) fn troubles(&self) -> BTreeMap<u64, Trouble> {
        self.reports.lock().troubles.clone()
    }

    /// Takes over the addresses of a membership.
    pub(crate) fn learn(&self, addresses: impl IntoIterator<Item = (u64, String)>) {
        self.known.lock().addresses.extend(addresses);
    }

    /// # Errors
    /// No address of the node is known.
    pub(crate) fn get(&self, node: u64) -> Result<Arc<Peer>, Status> {
        let address = self.known.lock().addresses.get(&node).cloned();
        match address {
            Some(address) => Ok(self.at(node, &address)),
            None => Err(Status::unavailable(format!("no address of node {node:016x} is known"))),
        }
    }

    /// Drops all connections: the next ones are made with what is known of this node and the others by then.
    pub(crate) fn forget_connections(&self) {
        self.known.lock().peers.clear();
    }

    /// The connections to `node`, made anew where its address has changed.
    pub(crate) fn at(&self, node: u64, address: &str) -> Arc<Peer> {
        let cluster = self.identity.cluster();
        let mut known = self.known.lock();
        if known.cluster != cluster {
            known.cluster = cluster;
            known.peers.clear();
        }
        if let Some(peer) = known.peers.get(&node)
            && peer.address == address
        {
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer {
            address: address.to_owned(),
            metadata: self.metadata(cluster, node),
            replication: self.client(address),
            control: self.client(address),
            bulk: self.client(address),
            reads: self.connect(address, &self.callers),
        });
        known.addresses.insert(node, address.to_owned());
        known.peers.insert(node, Arc::clone(&peer));
        peer
    }

    /// A connection to whatever node listens there.
    pub(crate) fn client(&self, address: &str) -> PeerClient<Channel> {
        self.connect(address, &self.runtime)
    }

    fn connect(&self, address: &str, runtime: &Handle) -> PeerClient<Channel> {
        let _runtime = runtime.enter();
        let dialer = Arc::clone(&self.dialer);
        let target = address.to_owned();
        let connect_timeout = self.timers.connect;
        let connector = tower::service_fn(move |_: Uri| {
            let (dialer, target) = (Arc::clone(&dialer), target.clone());
            async move { dial(dialer.as_ref(), target, connect_timeout).await.map(TokioIo::new) }
        });
        // The connector knows where to go; the name only fills the `:authority` of requests.
        let channel = Endpoint::from_static("http://peer.quorate")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect_with_connector_lazy(connector);
        PeerClient::new(channel)
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max)
    }

    fn metadata(&self, cluster: u64, to: u64) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        let mut insert = |key: &'static str, text: String| {
            let value: MetadataValue<Ascii> = text.parse().expect("digits are valid in a header");
            metadata.insert(key, value);
        };
        insert(CLUSTER_KEY, format!("{cluster:016x}"));
        insert(FROM_KEY, format!("{:016x}", self.identity.node));
        insert(TO_KEY, format!("{to:016x}"));
        insert(WIRE_KEY, PEER.newest.to_string());
        insert(WIRE_OLDEST_KEY, PEER.oldest.to_string());
        let nonce_of_receiver = self.identity.nonce_of(to);
        if self.identity.nonce != 0 {
            insert(NONCE_KEY, format!("{:016x}", self.identity.nonce));
        }
        if nonce_of_receiver != 0 {
            insert(TO_NONCE_KEY, format!("{nonce_of_receiver:016x}"));
        }
        metadata
    }
}

/// Connects to the first of the peer's addresses that answers. Only the connection itself is
/// bounded by `connect_timeout`: resolving a name has its own deadline.
async fn dial(
    dialer: &dyn Dialer,
    target: String,
    connect_timeout: Duration,
) -> io::Result<Box<dyn PeerStream>> {
    let mut failed = io::Error::other(format!("{target} has no address"));
    for address in dialer.resolve(target).await? {
        match timeout(connect_timeout, dialer.dial(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}
