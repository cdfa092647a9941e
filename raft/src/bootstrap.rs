//! How a node without a cluster gets one: founds it with the others, or waits to be taken in.
//!
//! Invariant: two nodes never found two clusters out of one `--initial-cluster`, and a node whose
//! directory was wiped never takes part under its old name by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::quorate;
use statemachine::versions::{self, PEER};
use tokio::time::{Instant, timeout};

use crate::admission;
use crate::convert::{member_from_proto, member_to_proto};
use crate::error::StartError;
use crate::identity::{self, StoredIdentity};
use crate::node::Inner;
use crate::notes::Promise;
use crate::peers::wire_range;
use crate::status::NodeState;
use crate::types::NodeMeta;
use crate::who::Sought;

pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
/// What a call takes beyond the time in which every member makes one.
const LISTEN_MORE: Duration = Duration::from_millis(200);
/// A node that waits for an operator need not ask often.
const PAUSE_NOT_MEMBER: Duration = Duration::from_secs(1);

/// Refuses an initial cluster that cannot work, before anything is written.
///
/// # Errors
/// An unusual size, a name twice, or this node not in it.
pub(crate) fn check_initial_cluster(
    name: &str,
    initial: &[(String, String)],
) -> Result<(), StartError> {
    let refuse = |reason: String| Err(StartError::InitialCluster(reason));
    if initial.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = initial.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!("it names {} twice", twice[0]));
    }
    if !names.contains(&name) {
        return refuse(format!("it does not contain this node {name}, only {}", names.join(", ")));
    }
    if !matches!(initial.len(), 1 | 3 | 5) {
        return refuse(format!("it has {} nodes; start with 1, 3 or 5", initial.len()));
    }
    Ok(())
}

/// What this node says of itself to anyone who asks.
pub(crate) async fn hello(
    node: &Arc<Inner>,
    request: quorate::HelloRequest,
) -> quorate::HelloReply {
    let stored = node.stored_identity.lock().await.clone();
    let initialized = match node.is_admitted() {
        true => node.engine.is_initialized().await.unwrap_or(true),
        // The engine does not run yet.
        false => stored.used,
    };
    let status = node.status.borrow().clone();
    quorate::HelloReply {
        member: Some(member_to_proto(node.identity.node, &node.meta)),
        cluster: node.identity.cluster(),
        initialized,
        members: status
            .members
            .iter()
            .map(|member| member_to_proto(member.id, &member.meta))
            .collect(),
        wire: PEER.newest,
        wire_oldest: PEER.oldest,
        level: versions::KNOWN_LEVEL,
        version: node.version.clone(),
        initial_cluster: initial_text(&node.initial_cluster),
        applied_index: node.storage.state.position().applied.map_or(0, |applied| applied.index),
        nonce: stored.nonce,
        roster: stored.roster,
        forgotten: forgotten_by(node, &request).await,
    }
}

/// What the caller does not remember of itself although this node has seen it.
async fn forgotten_by(node: &Arc<Inner>, request: &quorate::HelloRequest) -> String {
    let from = request.from.as_ref().map_or(0, |member| member.id);
    if from == 0 || request.starts == 0 || request.cluster != node.identity.cluster() {
        return String::new();
    }
    let vote = request.vote.unwrap_or_default();
    let claimed = Promise {
        starts: request.starts,
        run: request.run,
        vote: (vote.term, vote.node),
        last_index: request.last_index,
    };
    match node.notes.compare(from, claimed) {
        Ok(true) => {
            node.save_notes().await;
            String::new()
        }
        Ok(false) => String::new(),
        Err(forgotten) => {
            tracing::error!(node = from, forgotten, "a member's directory was put back");
            forgotten
        }
    }
}

fn initial_text(initial: &[(String, String)]) -> Vec<String> {
    let mut text: Vec<String> =
        initial.iter().map(|(name, address)| format!("{name}={address}")).collect();
    text.sort_unstable();
    text
}

/// Asks whoever listens at `address` who it is.
///
/// # Errors
/// It does not answer, or speaks another version.
pub(crate) async fn say_hello(node: &Inner, address: &str) -> Result<quorate::HelloReply, String> {
    let own = admission::own_promise(node);
    let request = quorate::HelloRequest {
        from: Some(member_to_proto(node.identity.node, &node.meta)),
        cluster: node.identity.cluster(),
        starts: own.starts,
        run: own.run,
        vote: Some(quorate::Vote { term: own.vote.0, node: own.vote.1, committed: false }),
        last_index: own.last_index,
    };
    let mut client = node.peers.client(address);
    let reply = match timeout(HELLO_TIMEOUT, client.hello(request)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return Err(status.message().to_owned()),
        Err(_) => return Err(format!("no answer within {HELLO_TIMEOUT:?}")),
    };
    let oldest = if reply.wire_oldest == 0 { reply.wire } else { reply.wire_oldest };
    let wire = wire_range(oldest.into(), reply.wire.into());
    if PEER.shared_with(wire).is_none() {
        return Err(format!("it speaks {wire} of the peer protocol, this node {PEER}"));
    }
    Ok(reply)
}

/// Takes the identity that the founder hands out.
///
/// # Errors
/// Why not, for the founder's log.
pub(crate) async fn take_founding(
    node: &Inner,
    request: quorate::FoundRequest,
) -> Result<(), String> {
    if !request.roster.is_empty() {
        return admission::take_founding(node, request).await;
    }
    take_cluster(node, request.cluster, request.to, request.members, BTreeMap::new()).await
}

/// Takes the invitation of a cluster's leader.
///
/// # Errors
/// Why not, for the operator.
pub(crate) async fn take_invitation(
    node: &Inner,
    request: quorate::JoinRequest,
) -> Result<(), String> {
    take_cluster(node, request.cluster, request.to, request.members, request.roster).await
}

async fn take_cluster(
    node: &Inner,
    cluster: u64,
    to: u64,
    members: Vec<quorate::Member>,
    roster: BTreeMap<u64, u64>,
) -> Result<(), String> {
    let own = node.identity.node;
    if to != own {
        return Err(format!("this is node {own:016x}, not {to:016x}"));
    }
    let mut stored = node.stored_identity.lock().await;
    if stored.cluster == cluster {
        return Ok(());
    }
    // A cluster that this node has neither voted nor stored anything in is only a draft.
    let used = stored.used || node.engine.is_initialized().await.map_err(|e| e.to_string())?;
    if used {
        return Err(format!(
            "node {own:016x} ({}) belongs to cluster {:016x} already",
            stored.name, stored.cluster
        ));
    }
    let next =
        StoredIdentity { cluster, founding: false, roster: roster.clone(), ..stored.clone() };
    store(node, &mut stored, next).await?;
    node.identity.set_roster(roster);
    node.peers.learn(members.into_iter().map(|member| (member.id, member.peer)));
    Ok(())
}

/// Puts the identity on disk, then takes it over.
pub(crate) async fn store(
    node: &Inner,
    stored: &mut StoredIdentity,
    next: StoredIdentity,
) -> Result<(), String> {
    let data_dir = node.data_dir.clone();
    let writing = next.clone();
    tokio::task::spawn_blocking(move || identity::write(&data_dir, &writing))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let is_new = next.cluster != stored.cluster;
    if is_new {
        tracing::info!(
            node = next.node,
            cluster = format!("{:016x}", next.cluster),
            "cluster identity stored"
        );
    }
    node.identity.set_cluster(next.cluster);
    *stored = next;
    if is_new {
        node.set_state(NodeState::Recovering);
    }
    Ok(())
}

/// Notes that this node has voted or stored entries. From now on it must never start without its
/// log.
pub(crate) async fn note_used(node: &Inner) -> Result<(), String> {
    let mut stored = node.stored_identity.lock().await;
    if stored.used {
        return Ok(());
    }
    let next = StoredIdentity { used: true, founding: false, ..stored.clone() };
    store(node, &mut stored, next).await
}

/// Runs until this node has a cluster that exists.
pub(crate) async fn find_cluster(node: &Arc<Inner>) {
    let mut told_operator = false;
    let began = Instant::now();
    if node.initial_cluster.is_empty() && node.identity.cluster() == 0 {
        node.set_state(NodeState::NotMember);
        let command = format!("quorate member add {}", node.meta.endpoints.peer);
        tracing::warn!(command, "this node waits to be taken into a cluster");
    }
    loop {
        match node.engine.is_initialized().await {
            Ok(false) => {}
            // Initialised, or stopped: nothing to do here either way.
            Ok(true) | Err(_) => return,
        }
        let (has_cluster, founding) = {
            let stored = node.stored_identity.lock().await;
            (stored.cluster != 0, stored.founding)
        };
        if has_cluster && !founding {
            // The founder, or the cluster's leader, brings the rest.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let pause = match look_around(node, began).await {
            Surroundings::Sought(sought) => {
                if !told_operator {
                    told_operator = true;
                    node.set_state(NodeState::NotMember);
                    ask_operator_of(node, sought);
                }
                PAUSE_NOT_MEMBER
            }
            Surroundings::Incomplete(reason) => {
                tracing::debug!(reason, "cannot found a cluster yet");
                PAUSE
            }
            Surroundings::Cluster { cluster, members, roster } => {
                if members.iter().any(|member| member.id == node.identity.node) {
                    // Taken in by the cluster, but the invitation was lost on its way.
                    let own = node.identity.node;
                    if let Err(reason) = take_cluster(node, cluster, own, members, roster).await {
                        tracing::error!(reason, "cannot take the cluster's identity");
                    }
                } else if !told_operator {
                    told_operator = true;
                    node.set_state(NodeState::NotMember);
                    ask_operator(node, cluster, &members);
                }
                PAUSE_NOT_MEMBER
            }
            Surroundings::Complete(members) => {
                if let Err(reason) = found(node, members).await {
                    tracing::warn!(reason, "founding of the cluster is not complete yet");
                }
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What the other nodes of the initial cluster say.
enum Surroundings {
    /// Somebody is missing, or it is another node's turn.
    Incomplete(String),
    /// A cluster exists.
    Cluster { cluster: u64, members: Vec<quorate::Member>, roster: BTreeMap<u64, u64> },
    /// Members of a cluster look for another node at this node's address.
    Sought(Sought),
    /// All are there, none has a cluster, and it is this node's turn to found one.
    Complete(BTreeMap<u64, NodeMeta>),
}

async fn look_around(node: &Arc<Inner>, began: Instant) -> Surroundings {
    if let Some(sought) = node.identity.sought() {
        return Surroundings::Sought(sought);
    }
    let own_name = &node.meta.name;
    let others: Vec<&(String, String)> =
        node.initial_cluster.iter().filter(|(name, _)| name != own_name).collect();
    let hellos = others.iter().map(|(_, address)| say_hello(node, address));
    let replies = futures::future::join_all(hellos).await;
    let mut members = BTreeMap::from([(node.identity.node, node.meta.clone())]);
    let mut missing = Vec::new();
    for ((name, address), reply) in others.iter().zip(replies) {
        let reply = match reply {
            Ok(reply) => reply,
            Err(reason) => {
                missing.push(format!("{name} at {address}: {reason}"));
                continue;
            }
        };
        if reply.cluster != 0 && reply.initialized {
            let quorate::HelloReply { cluster, members, roster, .. } = reply;
            return Surroundings::Cluster { cluster, members, roster };
        }
        let (id, meta) = member_from_proto(reply.member.unwrap_or_default());
        if &meta.name != name {
            missing.push(format!("{name} at {address}: there is {}", meta.name));
        } else if reply.initial_cluster != initial_text(&node.initial_cluster) {
            missing.push(format!(
                "{name} at {address} was started with another initial cluster: {}",
                reply.initial_cluster.join(",")
            ));
        } else {
            members.insert(id, meta);
        }
    }
    if !missing.is_empty() {
        return Surroundings::Incomplete(missing.join("; "));
    }
    if node.initial_cluster.is_empty() {
        return Surroundings::Incomplete("no initial cluster was given".to_owned());
    }
    let founder = node.initial_cluster.iter().map(|(name, _)| name).min();
    if founder != Some(own_name) {
        return Surroundings::Incomplete(format!("waiting for {founder:?} to found the cluster"));
    }
    // Alone it has no node to ask, so it listens: members of the cluster that it may have been the
    // first node of call its address within an election's time.
    let listen = node.timers.election_max * 2 + LISTEN_MORE;
    if others.is_empty() && began.elapsed() < listen {
        return Surroundings::Incomplete(format!("listening for members for {listen:?}"));
    }
    if members.len() != node.initial_cluster.len() {
        return Surroundings::Incomplete("two nodes have the same id".to_owned());
    }
    Surroundings::Complete(members)
}

/// Draws the cluster's identity, hands it out, and begins once all have it on disk. After an
/// interruption it goes on with the identity that was drawn before.
async fn found(node: &Arc<Inner>, members: BTreeMap<u64, NodeMeta>) -> Result<(), String> {
    let cluster = {
        let mut stored = node.stored_identity.lock().await;
        if stored.cluster == 0 {
            let next =
                StoredIdentity { cluster: identity::random_id(), founding: true, ..stored.clone() };
            store(node, &mut stored, next).await?;
        }
        stored.cluster
    };
    let wire_members: Vec<quorate::Member> =
        members.iter().map(|(id, meta)| member_to_proto(*id, meta)).collect();
    for (id, meta) in members.iter().filter(|(id, _)| **id != node.identity.node) {
        let request = quorate::FoundRequest {
            cluster,
            to: *id,
            members: wire_members.clone(),
            roster: BTreeMap::new(),
        };
        let mut client = node.peers.client(&meta.endpoints.peer);
        let reply = timeout(HELLO_TIMEOUT, client.found(request))
            .await
            .map_err(|_elapsed| format!("{} does not answer", meta.name))?
            .map_err(|status| format!("{}: {}", meta.name, status.message()))?
            .into_inner();
        if !reply.refused.is_empty() {
            return Err(format!("{} refused: {}", meta.name, reply.refused));
        }
    }
    let n_nodes = members.len();
    node.engine.initialize(members).await.map_err(|error| error.to_string())?;
    tracing::info!(cluster = format!("{cluster:016x}"), n_nodes, "cluster founded");
    note_used(node).await
}

fn ask_operator(node: &Inner, cluster: u64, members: &[quorate::Member]) {
    let name = &node.meta.name;
    let address = &node.meta.endpoints.peer;
    let command = match members.iter().any(|member| &member.name == name) {
        true => format!("quorate member replace {name} --with {address}"),
        false => format!("quorate member add {address}"),
    };
    tracing::warn!(
        node = node.identity.node,
        cluster = format!("{cluster:016x}"),
        command,
        "this node is not a member of its cluster: its directory is new; to take it in, run the \
         command on any machine that reaches the cluster"
    );
}

/// As [`ask_operator`], where only the call of a member tells that there is a cluster.
fn ask_operator_of(node: &Inner, sought: Sought) {
    let name = &node.meta.name;
    let address = &node.meta.endpoints.peer;
    tracing::warn!(
        node = node.identity.node,
        cluster = format!("{:016x}", sought.cluster),
        by = format!("{:016x}", sought.by),
        former = format!("{:016x}", sought.node),
        command = format!("quorate member replace {name} --with {address}"),
        "this node founds no cluster: members of one look for another node at its address, so its \
         directory is new and that node's is gone; to take it in, run the command on any machine \
         that reaches the cluster"
    );
}
