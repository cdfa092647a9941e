//! What a node has to learn from its peers before its engine runs.
//!
//! A directory may be one that must not vote: restored a second time under ids that a running
//! cluster knows, or put back to an earlier state. The node cannot see that; its peers can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use proto::quorate;
use tokio::time::timeout;

use crate::bootstrap::{HELLO_TIMEOUT, say_hello, store};
use crate::identity::StoredIdentity;
use crate::node::Inner;
use crate::notes::Promise;
use crate::status::NodeState;

/// Between two rounds in which the members of a restored cluster look for each other.
const PAUSE: Duration = Duration::from_millis(100);
/// A peer that runs answers long before; one that does not must not hold up a start.
const ASK_MAX: Duration = Duration::from_millis(500);
/// Between two attempts to reach those who have not been asked yet.
const ASK_PAUSE: Duration = Duration::from_secs(1);

/// Returns once this node may take part.
///
/// # Errors
/// Why it must not, ever, with this directory.
pub(crate) async fn admit(node: &Arc<Inner>) -> Result<(), String> {
    found_restored(node).await?;
    ask_peers(node).await?;
    node.note_admitted();
    node.engine.run();
    Ok(())
}

/// Asks those who could not be asked before the engine ran: the whole cluster may have been
/// started at once.
///
/// # Errors
/// As [`admit`].
pub(crate) async fn ask_the_rest(node: &Arc<Inner>) -> Result<(), String> {
    loop {
        if ask_peers(node).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// What this node says that it has promised.
pub(crate) fn own_promise(node: &Inner) -> Promise {
    let storage = &node.storage;
    let log = storage.log.last_log_id();
    let last = log.max(storage.state.position().applied);
    Promise {
        starts: node.starts,
        run: node.run,
        vote: storage.vote().map_or((0, 0), |vote| (vote.leader_id.term, vote.leader_id.node_id)),
        last_index: last.map_or(0, |last| last.index),
    }
}

/// The other members, by id, as the state has them; where the node was given another address for
/// one of them, that one.
fn others(node: &Inner) -> Vec<(u64, String, String)> {
    let position = node.storage.state.position();
    let given: BTreeMap<&str, &str> =
        node.initial_cluster.iter().map(|(name, at)| (name.as_str(), at.as_str())).collect();
    position
        .membership
        .membership()
        .nodes()
        .filter(|(id, _)| **id != node.identity.node)
        .map(|(id, meta)| {
            let address = given.get(meta.name.as_str()).copied();
            let address = address.unwrap_or(meta.endpoints.peer.as_str());
            (*id, meta.name.clone(), address.to_owned())
        })
        .collect()
}

/// Says to the other members what this node remembers; returns those that did not answer.
///
/// # Errors
/// What one of them has seen of this node that this directory does not know.
async fn ask_peers(node: &Arc<Inner>) -> Result<Vec<u64>, String> {
    let others = others(node);
    let hellos = others.iter().map(|(_, _, address)| timeout(ASK_MAX, say_hello(node, address)));
    let replies = join_all(hellos).await;
    let mut silent = Vec::new();
    for ((id, name, _), reply) in others.iter().zip(replies) {
        match reply {
            Ok(Ok(reply)) if !reply.forgotten.is_empty() => {
                return Err(format!(
                    "this data directory was put back to an earlier state: {name} says that {}",
                    reply.forgotten
                ));
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => silent.push(*id),
        }
    }
    Ok(silent)
}

/// What the other members of a restored cluster say.
enum Round {
    /// Somebody is missing, or it is another member's turn.
    Incomplete(String),
    /// The cluster was founded with these directories.
    Founded(BTreeMap<u64, u64>),
    /// All are there, none of them founded, and it is this member's turn.
    Complete(BTreeMap<u64, u64>),
}

/// Where this directory was restored: finds out with which directories of the others the cluster
/// begins. Members of one restore have equal ids whenever they are made, so only this tells the
/// directory that has acknowledged writes from one that was made again later.
async fn found_restored(node: &Arc<Inner>) -> Result<(), String> {
    let mut last_reason = String::new();
    loop {
        let stored = node.stored_identity.lock().await.clone();
        if !stored.awaits_founding() {
            return Ok(());
        }
        node.set_state(NodeState::Founding);
        match look_around(node, &stored).await {
            Round::Incomplete(reason) => {
                if reason != last_reason {
                    tracing::info!(reason, "this restored member waits for the others");
                    last_reason = reason;
                }
            }
            Round::Founded(roster) => {
                if roster.get(&stored.node) != Some(&stored.nonce) {
                    return Err("this data directory was restored again after its cluster had \
                                begun: what the first one acknowledged is not in it"
                        .to_owned());
                }
                take_roster(node, roster).await?;
            }
            Round::Complete(roster) => {
                take_roster(node, roster.clone()).await?;
                hand_out(node, roster).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look_around(node: &Arc<Inner>, stored: &StoredIdentity) -> Round {
    let others = others(node);
    let replies = join_all(others.iter().map(|(_, _, address)| say_hello(node, address))).await;
    let mut roster = BTreeMap::from([(stored.node, stored.nonce)]);
    let mut missing = Vec::new();
    for ((id, name, address), reply) in others.iter().zip(replies) {
        let reply = match reply {
            Ok(reply) => reply,
            Err(reason) => {
                missing.push(format!("{name} at {address}: {reason}"));
                continue;
            }
        };
        let found = reply.member.as_ref().map_or(0, |member| member.id);
        if found != *id || reply.cluster != stored.cluster {
            missing.push(format!(
                "{name} at {address}: node {found:016x} of cluster {:016x} is there, not {id:016x} \
                 of {:016x}",
                reply.cluster, stored.cluster
            ));
        } else if reply.roster.is_empty() {
            roster.insert(*id, reply.nonce);
        } else {
            return Round::Founded(reply.roster);
        }
    }
    if !missing.is_empty() {
        return Round::Incomplete(missing.join("; "));
    }
    match roster.first_key_value() {
        Some((first, _)) if *first == stored.node => Round::Complete(roster),
        Some(_) | None => Round::Incomplete("another member begins".to_owned()),
    }
}

/// Makes the roster durable, then counts on it.
async fn take_roster(node: &Inner, roster: BTreeMap<u64, u64>) -> Result<(), String> {
    let mut stored = node.stored_identity.lock().await;
    if !stored.awaits_founding() {
        return if stored.roster == roster {
            Ok(())
        } else {
            Err("this member was founded with other directories".to_owned())
        };
    }
    if roster.get(&stored.node) != Some(&stored.nonce) {
        return Err(format!(
            "the roster holds another directory of {} ({:016x}) than this one",
            stored.name, stored.node
        ));
    }
    let next = StoredIdentity { roster: roster.clone(), ..stored.clone() };
    store(node, &mut stored, next).await?;
    node.identity.set_roster(roster);
    node.peers.forget_connections();
    tracing::info!(cluster = format!("{:016x}", stored.cluster), "restored cluster founded");
    Ok(())
}

/// Takes the roster that another member hands out.
///
/// # Errors
/// Why not, for that member's log.
pub(crate) async fn take_founding(
    node: &Inner,
    request: quorate::FoundRequest,
) -> Result<(), String> {
    let own = node.identity.node;
    if request.to != own || request.cluster != node.identity.cluster() {
        return Err(format!("this is node {own:016x} of {:016x}", node.identity.cluster()));
    }
    take_roster(node, request.roster).await
}

/// Those who miss it ask by themselves.
async fn hand_out(node: &Arc<Inner>, roster: BTreeMap<u64, u64>) {
    let cluster = node.identity.cluster();
    for (to, name, address) in others(node) {
        let mut client = node.peers.client(&address);
        let roster = roster.clone();
        let request = quorate::FoundRequest { cluster, to, members: Vec::new(), roster };
        match timeout(HELLO_TIMEOUT, client.found(request)).await {
            Ok(Ok(reply)) if reply.get_ref().refused.is_empty() => {}
            Ok(Ok(reply)) => tracing::warn!(name, reason = reply.get_ref().refused, "refused"),
            Ok(Err(_)) | Err(_) => {
                tracing::debug!(name, "the roster did not reach this member yet");
            }
        }
    }
}

/// Keeps this node out of its cluster for good, and says why and what to do.
pub(crate) fn refuse(node: &Inner, reason: &str) {
    let name = &node.meta.name;
    let address = &node.meta.endpoints.peer;
    let what_to_do = format!(
        "stop this node, wipe its data directory, start it again and run `quorate member replace \
         {name} --with {address}`"
    );
    tracing::error!(reason, what_to_do, "this node must not take part in its cluster");
    node.note_refused(format!("{reason}; {what_to_do}"));
    node.set_state(NodeState::NotMember);
}
