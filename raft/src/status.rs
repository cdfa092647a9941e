//! What a node knows of itself and of its cluster, for people and for duties.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::error::LeaderHint;
use crate::types::{LogId, NodeMeta};

/// How far a node is on its way from its start to its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// Has no cluster yet and looks for the nodes that found it.
    Founding,
    /// The cluster exists without this node: it waits until an operator takes it in.
    NotMember,
    /// Replays its log; answers no client.
    Recovering,
    /// Serves the keyspace.
    Keyspace,
    /// Index and views are complete: may lead at once.
    Hot,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Founding => "founding",
            NodeState::NotMember => "not a member",
            NodeState::Recovering => "recovering",
            NodeState::Keyspace => "keyspace",
            NodeState::Hot => "hot",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    Stopped,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Stopped => "stopped",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    pub meta: NodeMeta,
    pub voter: bool,
}

/// What the leader knows of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// Entries that this peer still has to store.
    pub lag_entries: u64,
    pub matched: u64,
    /// It lacks entries, or a vote, that it had acknowledged: what it says cannot be counted on.
    pub forgot: bool,
    /// Since the peer last answered; `None` if it never did.
    pub silent: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub node: u64,
    pub name: String,
    /// Zero while the node has none.
    pub cluster: u64,
    pub state: NodeState,
    pub role: Role,
    pub term: u64,
    /// The leader, while there is recent proof that a majority follows it: on the leader their
    /// acknowledgements, elsewhere its messages. Without a majority no node names one.
    pub leader: Option<LeaderHint>,
    /// Since this node knows this leader.
    pub leader_since_unix_ms: u64,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied: LogIdView,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub members: Vec<Member>,
    /// The membership is between two sets of voters.
    pub joint: bool,
    /// Why this node takes no part in its cluster, ever, and what to do.
    pub refused: Option<String>,
    /// Filled on the leader only.
    pub peers: BTreeMap<u64, PeerProgress>,
}

/// A log id as plain numbers; all zero before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogIdView {
    pub term: u64,
    pub node: u64,
    pub index: u64,
}

impl From<&LogId> for LogIdView {
    fn from(log_id: &LogId) -> LogIdView {
        LogIdView {
            term: log_id.leader_id.term,
            node: log_id.leader_id.node_id,
            index: log_id.index,
        }
    }
}

impl Status {
    /// The status of a node that has just opened its directory.
    pub(crate) fn new(node: u64, name: String, cluster: u64) -> Status {
        Status {
            node,
            name,
            cluster,
            state: if cluster == 0 { NodeState::Founding } else { NodeState::Recovering },
            role: Role::Follower,
            term: 0,
            leader: None,
            leader_since_unix_ms: 0,
            last_log_index: 0,
            committed_index: 0,
            applied: LogIdView::default(),
            snapshot_index: 0,
            purged_index: 0,
            members: Vec::new(),
            joint: false,
            refused: None,
            peers: BTreeMap::new(),
        }
    }

    /// Whether this node leads and a majority follows it.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader && self.leader.is_some()
    }

    /// Whether this node was elected and a majority has not acknowledged it lately.
    pub fn is_without_quorum(&self) -> bool {
        self.role == Role::Leader && self.leader.is_none()
    }

    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.voter)
    }
}
