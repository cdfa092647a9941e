//! What openraft is told about us: the types of its entries, nodes and votes.

use std::fmt;

use bytes::Bytes;
use openraft::{OptionalSend, RaftTypeConfig, impls};

/// One entry is one opaque batch; outcomes do not travel through openraft.
///
/// Written out because openraft's macro cannot take a generic responder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = ();
    type NodeId = u64;
    type Node = NodeMeta;
    type Term = u64;
    type LeaderId = impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Payload, u64, NodeMeta>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    /// Says when a batch is committed, too: apply of this node must not hold up the next ones.
    type Responder<T>
        = impls::ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

pub type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
pub type EntryPayload = openraft::alias::EntryPayloadOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, NodeMeta>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

pub type SnapshotData = crate::snapshot::SnapshotData;
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// An encoded `quorate.v1.Batch`: the same bytes on disk, on the wire and at apply.
///
/// A clone is a reference count; openraft clones each entry once per follower and once to apply.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0.len())
    }
}

/// What the membership knows of a node beside its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMeta {
    pub name: String,
    pub endpoints: Endpoints,
}

impl fmt::Display for NodeMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.endpoints.peer)
    }
}

/// `host:port` of each service of a node, as others reach it. Empty where it serves none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub peer: String,
    pub client: String,
    pub http: String,
    pub coordinator: String,
}
