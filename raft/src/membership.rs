//! Changes of who belongs to the cluster, carried out by the leader.

mod bounds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use proto::quorate;
use proto::quorate::change_members_reply;
use proto::quorate::change_members_request::{
    AddLearner, Change, Promote, Remove, Replace, UpdateEndpoints,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::bootstrap::say_hello;
use crate::convert::{member_from_proto, member_to_proto};
use crate::error::MembershipError;
use crate::hand_over::{is_healthy, lag, transfer};
use crate::node::Inner;
use crate::tasks;
use crate::types::{NodeMeta, TypeConfig};

use bounds::MEMBERS_MAX;
pub(crate) use bounds::{MEMBERSHIP_BYTES_MAX, check_member};

/// A learner this close to the leader's log may become a voter: it catches up with the rest in
/// less than an election.
const CAUGHT_UP_ENTRIES: u64 = 500;
const PAUSE: Duration = Duration::from_millis(20);
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);
/// A change that no majority takes for so long is given up; the leader completes what is left.
const CHANGE_MAX: Duration = Duration::from_secs(60);

type Refused = MembershipError;

pub(crate) fn refuse<T>(reason: impl Into<String>) -> Result<T, Refused> {
    Err(MembershipError::Refused(reason.into()))
}

/// Has the leader carry out `change`; follows it through elections until `deadline`.
///
/// # Errors
/// The leader's refusal, or no leader in time.
pub(crate) async fn change(
    node: &Arc<Inner>,
    change: Change,
    deadline: Instant,
) -> Result<u64, MembershipError> {
    let mut last_error = MembershipError::NoLeader;
    while Instant::now() < deadline {
        let leadership = *node.leadership.borrow();
        let attempt = match (leadership.mine, leadership.leader) {
            (Some(_), _) => carry_out(node, change.clone(), deadline).await.map(Some),
            (None, Some(leader)) => at_leader(node, leader, &change, deadline).await,
            // A node that moved hears nothing of the leader until the others know its address.
            (None, None) => at_any_member(node, &change, deadline).await,
        };
        match attempt {
            Ok(Some(id)) => return Ok(id),
            Ok(None) => {}
            Err(error @ (MembershipError::NoLeader | MembershipError::Unreachable { .. })) => {
                last_error = error;
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(last_error)
}

async fn at_leader(
    node: &Inner,
    leader: u64,
    change: &Change,
    deadline: Instant,
) -> Result<Option<u64>, MembershipError> {
    let unreachable = |reason: String| MembershipError::Unreachable {
        address: format!("leader {leader:016x}"),
        reason,
    };
    let peer = node.peers.get(leader).map_err(|status| unreachable(status.to_string()))?;
    let left = deadline.saturating_duration_since(Instant::now());
    let request = peer.request(quorate::ChangeMembersRequest {
        change: Some(change.clone()),
        timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
    });
    let reply = timeout_at(deadline, peer.bulk().change_members(request))
        .await
        .map_err(|_elapsed| MembershipError::Deadline("the leader is still at it".to_owned()))?
        .map_err(|status| unreachable(status.message().to_owned()))?
        .into_inner();
    match reply.result {
        Some(change_members_reply::Result::Node(id)) => Ok(Some(id)),
        Some(change_members_reply::Result::Refused(reason)) => refuse(reason),
        Some(change_members_reply::Result::NotLeader(_)) | None => Ok(None),
    }
}

async fn at_any_member(
    node: &Inner,
    change: &Change,
    deadline: Instant,
) -> Result<Option<u64>, MembershipError> {
    let others: Vec<u64> = {
        let status = node.status.borrow();
        let own = node.identity.node;
        status.members.iter().map(|member| member.id).filter(|id| *id != own).collect()
    };
    for other in others {
        match at_leader(node, other, change, deadline).await {
            Ok(None) | Err(MembershipError::Unreachable { .. }) => {}
            answered => return answered,
        }
    }
    Ok(None)
}

/// The leader's side of a change that another node asked for.
pub(crate) async fn answer(
    node: &Arc<Inner>,
    request: quorate::ChangeMembersRequest,
) -> quorate::ChangeMembersReply {
    let deadline = Instant::now() + Duration::from_millis(u64::from(request.timeout_ms));
    let leadership = *node.leadership.borrow();
    let result = match (leadership.mine, request.change) {
        (Some(_), Some(change)) => match carry_out(node, change, deadline).await {
            Ok(id) => change_members_reply::Result::Node(id),
            Err(MembershipError::NoLeader) => not_leader(node),
            Err(error) => change_members_reply::Result::Refused(error.to_string()),
        },
        (None, _) => not_leader(node),
        (Some(_), None) => {
            change_members_reply::Result::Refused("the change is unknown here".to_owned())
        }
    };
    quorate::ChangeMembersReply { result: Some(result) }
}

fn not_leader(node: &Inner) -> change_members_reply::Result {
    let leader = node.leadership.borrow().leader.unwrap_or_default();
    change_members_reply::Result::NotLeader(quorate::NotLeader { leader })
}

/// In a task of its own: a caller that hangs up must not leave a change half done.
async fn carry_out(
    node: &Arc<Inner>,
    change: Change,
    deadline: Instant,
) -> Result<u64, MembershipError> {
    let (done, outcome) = oneshot::channel();
    let worker = Arc::clone(node);
    let task = async move {
        // Nobody may be listening any more.
        let _ = done.send(run(&worker, change, deadline).await);
    };
    tasks::spawn(&node.runtime, "membership change", task);
    outcome.await.unwrap_or(Err(MembershipError::ShuttingDown))
}

async fn run(node: &Arc<Inner>, change: Change, deadline: Instant) -> Result<u64, MembershipError> {
    match change {
        Change::AddLearner(AddLearner { peer }) => add_learner(node, &peer, deadline).await,
        Change::Promote(Promote { node: id }) => promote(node, id, deadline).await,
        Change::Remove(Remove { node: id }) => remove(node, id, deadline).await,
        Change::Replace(Replace { old, peer }) => replace(node, old, &peer, deadline).await,
        Change::UpdateEndpoints(UpdateEndpoints { member }) => {
            update_endpoints(node, member.unwrap_or_default(), deadline).await
        }
        Change::TransferTo(id) => transfer(node, (id != 0).then_some(id), deadline).await,
    }
}

/// The members as the leader's last membership entry has them.
pub(crate) struct Members {
    pub(crate) nodes: BTreeMap<u64, NodeMeta>,
    /// Of both sets while the membership is between two.
    pub(crate) voters: BTreeSet<u64>,
    pub(crate) joint: bool,
    /// Index of the entry that holds them.
    pub(crate) index: u64,
}

pub(crate) fn members(node: &Inner) -> Members {
    let metrics = node.engine.server_metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    Members {
        nodes: membership.nodes().map(|(id, meta)| (*id, meta.clone())).collect(),
        voters: membership.voter_ids().collect(),
        joint: membership.get_joint_config().len() > 1,
        index: metrics.membership_config.log_id().as_ref().map_or(0, |log_id| log_id.index),
    }
}

/// The members once no change is between two sets of voters any more. Until then an answer about
/// a voter could be undone.
async fn settled_members(node: &Inner, deadline: Instant) -> Result<Members, MembershipError> {
    loop {
        let now = members(node);
        if !now.joint {
            return Ok(now);
        }
        if node.leadership.borrow().mine.is_none() {
            return Err(MembershipError::NoLeader);
        }
        if Instant::now() >= deadline {
            return Err(MembershipError::Deadline(
                "an earlier change is still between two sets of voters, the leader completes it"
                    .to_owned(),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn add_learner(
    node: &Arc<Inner>,
    address: &str,
    deadline: Instant,
) -> Result<u64, MembershipError> {
    let (id, meta) = invite(node, address, None).await?;
    if members(node).nodes.contains_key(&id) {
        return Ok(id);
    }
    submit(node, ChangeMembers::AddNodes(BTreeMap::from([(id, meta.clone())])), deadline).await?;
    tracing::info!(node = id, name = meta.name, "learner added");
    Ok(id)
}

/// Gives the node at `address` the identity of this cluster. `replaces` may have the same name.
async fn invite(
    node: &Arc<Inner>,
    address: &str,
    replaces: Option<u64>,
) -> Result<(u64, NodeMeta), MembershipError> {
    let unreachable =
        |reason: String| MembershipError::Unreachable { address: address.to_owned(), reason };
    let reply = match say_hello(node, address).await {
        Ok(reply) => reply,
        // To the caller this is a refusal: the leader was there, the new node was not.
        Err(reason) => return refuse(unreachable(reason).to_string()),
    };
    let cluster = node.identity.cluster();
    let (id, meta) = member_from_proto(reply.member.unwrap_or_default());
    let known = members(node).nodes;
    if !known.contains_key(&id) && known.len() >= MEMBERS_MAX {
        return refuse(format!(
            "the cluster has {} members, the limit is {MEMBERS_MAX}: remove one first",
            known.len()
        ));
    }
    check_member(&meta).or_else(refuse)?;
    if reply.cluster != 0 && reply.cluster != cluster && reply.initialized {
        return refuse(format!(
            "{} at {address} belongs to cluster {:016x}, this is cluster {cluster:016x}: wipe its \
             data directory first",
            meta.name, reply.cluster
        ));
    }
    let namesake = known
        .iter()
        .find(|(other, known)| known.name == meta.name && **other != id)
        .filter(|(other, _)| Some(**other) != replaces);
    if let Some((other, _)) = namesake {
        return refuse(format!(
            "a member is called {} already, with id {other:016x}: use `quorate member replace {} \
             --with {address}`",
            meta.name, meta.name
        ));
    }
    let level = node.storage.state.view().level();
    if reply.level < level {
        return refuse(format!(
            "{} at {address} knows feature level {} at most, the cluster is at level {level}: start \
             it with a newer release",
            meta.name, reply.level
        ));
    }
    let request = quorate::JoinRequest {
        cluster,
        to: id,
        members: known.iter().map(|(id, meta)| member_to_proto(*id, meta)).collect(),
        roster: node.identity.roster(),
    };
    let mut client = node.peers.client(address);
    let reply = match timeout(JOIN_TIMEOUT, client.join(request)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return refuse(unreachable(status.message().to_owned()).to_string()),
        Err(_) => return refuse(unreachable("no answer".to_owned()).to_string()),
    };
    if !reply.refused.is_empty() {
        return refuse(reply.refused);
    }
    Ok((id, meta))
}

async fn promote(node: &Arc<Inner>, id: u64, deadline: Instant) -> Result<u64, MembershipError> {
    let now = settled_members(node, deadline).await?;
    if !now.nodes.contains_key(&id) {
        return Err(MembershipError::UnknownNode { node: id });
    }
    if now.voters.contains(&id) {
        return Ok(id);
    }
    match lag(node, id) {
        Some(lag) if lag <= CAUGHT_UP_ENTRIES => {}
        Some(lag) => {
            return refuse(format!(
                "learner {id:016x} lacks {lag} entries: it can become a voter when it lacks \
                 {CAUGHT_UP_ENTRIES} at most"
            ));
        }
        None => return refuse(format!("learner {id:016x} has not answered the leader yet")),
    }
    submit(node, ChangeMembers::AddVoterIds(BTreeSet::from([id])), deadline).await?;
    tracing::info!(node = id, "learner promoted to voter");
    Ok(id)
}

async fn remove(node: &Arc<Inner>, id: u64, deadline: Instant) -> Result<u64, MembershipError> {
    let now = settled_members(node, deadline).await?;
    if !now.nodes.contains_key(&id) {
        return Err(MembershipError::UnknownNode { node: id });
    }
    if !now.voters.contains(&id) {
        submit(node, ChangeMembers::RemoveNodes(BTreeSet::from([id])), deadline).await?;
        tracing::info!(node = id, "learner removed");
        return Ok(id);
    }
    let rest: BTreeSet<u64> = now.voters.iter().copied().filter(|voter| *voter != id).collect();
    if rest.is_empty() {
        return refuse("it is the only voter");
    }
    let healthy = rest.iter().filter(|voter| is_healthy(node, **voter)).count();
    let quorum = rest.len() / 2 + 1;
    if healthy < quorum {
        return refuse(format!(
            "of the {} voters that would stay only {healthy} answer, {quorum} are needed",
            rest.len()
        ));
    }
    submit(node, ChangeMembers::RemoveVoters(BTreeSet::from([id])), deadline).await?;
    tracing::info!(node = id, "voter removed");
    Ok(id)
}

async fn replace(
    node: &Arc<Inner>,
    old: u64,
    address: &str,
    deadline: Instant,
) -> Result<u64, MembershipError> {
    let now = settled_members(node, deadline).await?;
    let Some(old_meta) = now.nodes.get(&old) else {
        return replaced_already(node, &now, old, address).await;
    };
    let old_votes = now.voters.contains(&old);
    let (id, meta) = invite(node, address, Some(old)).await?;
    if id == old {
        // The command names a member by its name, which the new node has after the first time.
        if old_votes && is_healthy(node, id) {
            return Ok(id);
        }
        return refuse(format!(
            "the node at {address} is {} itself, not a new one: stop it, wipe its data directory, \
             start it and run the command again",
            old_meta.name
        ));
    }
    if !now.nodes.contains_key(&id) {
        let learner = BTreeMap::from([(id, meta.clone())]);
        submit(node, ChangeMembers::AddNodes(learner), deadline).await?;
    }
    tracing::info!(node = id, old, name = meta.name, "replacement joined, catching up");
    while old_votes && lag(node, id).is_none_or(|lag| lag > CAUGHT_UP_ENTRIES) {
        if Instant::now() >= deadline {
            let lag = lag(node, id);
            return Err(MembershipError::Deadline(format!(
                "{} is a learner and still lacks {lag:?} entries; run the command again to go on",
                meta.name
            )));
        }
        if node.leadership.borrow().mine.is_none() {
            return Err(MembershipError::NoLeader);
        }
        tokio::time::sleep(PAUSE).await;
    }
    // One joint change: at no time do fewer nodes than before stand for the data.
    let swap = match old_votes {
        true => ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([id])),
            ChangeMembers::RemoveVoters(BTreeSet::from([old])),
        ]),
        false => ChangeMembers::RemoveNodes(BTreeSet::from([old])),
    };
    submit(node, swap, deadline).await?;
    tracing::info!(node = id, old, name = meta.name, "node replaced");
    Ok(id)
}

/// The answer to a command that is repeated after it was carried out.
async fn replaced_already(
    node: &Arc<Inner>,
    now: &Members,
    old: u64,
    address: &str,
) -> Result<u64, MembershipError> {
    let there = say_hello(node, address).await.ok().and_then(|reply| reply.member);
    match there.map(|member| member.id).filter(|id| now.voters.contains(id)) {
        Some(id) => Ok(id),
        None => Err(MembershipError::UnknownNode { node: old }),
    }
}

async fn update_endpoints(
    node: &Arc<Inner>,
    member: quorate::Member,
    deadline: Instant,
) -> Result<u64, MembershipError> {
    let (id, meta) = member_from_proto(member);
    let now = members(node);
    let Some(known) = now.nodes.get(&id) else {
        return Err(MembershipError::UnknownNode { node: id });
    };
    if *known == meta {
        return Ok(id);
    }
    check_member(&meta).or_else(refuse)?;
    tracing::info!(node = id, name = meta.name, peer = meta.endpoints.peer, "endpoints change");
    submit(node, ChangeMembers::SetNodes(BTreeMap::from([(id, meta)])), deadline).await?;
    Ok(id)
}

/// Completes a change that was left between two sets of voters.
pub(crate) async fn complete_joint(node: &Arc<Inner>) -> Result<(), MembershipError> {
    tracing::info!("completing a membership change that is between two sets of voters");
    let deadline = Instant::now() + node.timers.propose;
    submit(node, ChangeMembers::AddVoterIds(BTreeSet::new()), deadline).await
}

/// Has the engine carry out `change`, and waits for it until `deadline`.
///
/// A change of voters is two entries. In a task of its own: what the engine has begun is finished
/// however little time the caller has.
async fn submit(
    node: &Arc<Inner>,
    change: ChangeMembers<u64, NodeMeta>,
    deadline: Instant,
) -> Result<(), MembershipError> {
    let (done, outcome) = oneshot::channel();
    let worker = Arc::clone(node);
    tasks::spawn(&node.runtime, "membership entries", async move {
        // The caller's time may be up.
        let _ = done.send(drive(&worker, change, deadline).await);
    });
    match timeout_at(deadline, outcome).await {
        Ok(outcome) => outcome.unwrap_or(Err(MembershipError::ShuttingDown)),
        Err(_) => Err(MembershipError::Deadline(
            "the change is not committed yet; it goes on, run the command again to see it done"
                .to_owned(),
        )),
    }
}

/// Begins `change` until `begin_by`, and sees it through.
async fn drive(
    node: &Inner,
    change: ChangeMembers<u64, NodeMeta>,
    begin_by: Instant,
) -> Result<(), MembershipError> {
    loop {
        let changing = node.engine.change_membership(change.clone(), false);
        let Ok(result) = timeout(CHANGE_MAX, changing).await else {
            return Err(MembershipError::Deadline(format!("not committed within {CHANGE_MAX:?}")));
        };
        match result {
            Ok(_) => return Ok(()),
            Err(RaftError::APIError(error)) if must_wait(&error) => {}
            Err(RaftError::APIError(
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
            )) => return Err(MembershipError::NoLeader),
            Err(RaftError::APIError(error)) => return refuse(error.to_string()),
            Err(RaftError::Fatal(_)) => return Err(MembershipError::ShuttingDown),
        }
        if Instant::now() >= begin_by {
            return Err(MembershipError::Deadline("another change is under way".to_owned()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Another change is under way, or this leadership has not committed anything yet.
fn must_wait(error: &ClientWriteError<TypeConfig>) -> bool {
    matches!(
        error,
        ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)
        )
    )
}
