//! What can go wrong at the edge of this crate, as facts.

use crate::types::NodeMeta;

/// The node that leads, as far as the one that answers knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    pub id: u64,
    pub meta: NodeMeta,
}

/// A command got no outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Not appended, and no leader was found before the deadline.
    #[error("no leader accepted the command before its deadline")]
    NotLeader { leader: Option<Box<LeaderHint>> },
    /// Not appended: too much is under way already.
    #[error("too many commands are under way ({pending_bytes} B), try again later")]
    Overloaded { pending_bytes: usize },
    /// Appended perhaps, committed perhaps: the deadline passed first.
    #[error("the deadline passed before the outcome of the command was known")]
    Unknown,
    #[error("the command has {size_bytes} B, the limit is {limit_bytes} B")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
    /// Not appended: no node would carry it out.
    #[error("the command was refused before it was logged: {reason}")]
    Refused { reason: String },
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The node has no cluster, or has not recovered its state yet.
    #[error("the node is not ready: {state}")]
    NotReady { state: crate::status::NodeState },
}

/// A read could not be made linearizable, or the node cannot be read at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("no leader confirmed the read before its deadline")]
    NoLeader { leader: Option<Box<LeaderHint>> },
    #[error("the node is not ready: {state}")]
    NotReady { state: crate::status::NodeState },
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// A question to another node got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    #[error("no leader is known")]
    NoLeader,
    #[error("node {node:016x} is no member of the cluster")]
    UnknownNode { node: u64 },
    #[error("node {node:016x} cannot be reached: {reason}")]
    Unreachable { node: u64, reason: String },
    #[error("no answer before the deadline")]
    Deadline,
    /// What the other node's handler said.
    #[error("{0}")]
    Refused(String),
}

/// A membership change or transfer did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("no leader is known")]
    NoLeader,
    #[error("no node with id {node:016x} is in the cluster")]
    UnknownNode { node: u64 },
    #[error("the cluster has no other voter that could lead")]
    NoCandidate,
    #[error("{address} did not answer: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("{0}")]
    Refused(String),
    #[error("not done before the deadline: {0}")]
    Deadline(String),
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// A node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("identity in {}: {reason}", path.display())]
    Identity { path: std::path::PathBuf, reason: String },
    #[error(transparent)]
    Storage(Box<dyn std::error::Error + Send + Sync>),
    #[error("data directory {}: {reason}", path.display())]
    DataDir { path: std::path::PathBuf, reason: String },
    #[error("timers: {0}")]
    Timers(String),
    #[error("peer listener")]
    Listen(#[source] std::io::Error),
    #[error("threads of consensus")]
    Runtime(#[source] std::io::Error),
    #[error("consensus: {0}")]
    Consensus(String),
    #[error("initial cluster: {0}")]
    InitialCluster(String),
    #[error("this node: {0}")]
    Member(String),
}

impl StartError {
    /// Whether another start would end the same way until a person has looked.
    pub fn is_final(&self) -> bool {
        match self {
            StartError::Storage(error) => {
                error.is::<crate::failure::Poisoned>() || error.is::<crate::failure::RestartLoop>()
            }
            StartError::Identity { .. }
            | StartError::DataDir { .. }
            | StartError::Timers(_)
            | StartError::Member(_)
            | StartError::Listen(_)
            | StartError::Runtime(_)
            | StartError::Consensus(_)
            | StartError::InitialCluster(_) => false,
        }
    }
}
