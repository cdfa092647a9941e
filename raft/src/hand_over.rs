//! Hands the leadership to another voter.
//!
//! From the moment that openraft begins a hand-over, the leader takes no writes and sends no
//! heartbeats until some vote replaces its own. So a hand-over that cannot succeed costs the
//! cluster an election: who is to lead is asked first, and has to be close behind.

use std::cmp::Reverse;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use proto::quorate;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::MembershipError;
use crate::membership::{members, refuse};
use crate::node::Inner;

/// A voter this close to the leader's log may take over: it has to write and sync the rest before
/// it campaigns, while no node leads.
const LAG_ENTRIES_MAX: u64 = 64;
/// How long a voter that is further behind may take to come that close.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Entries that `id` still lacks; `None` while the leader has not heard from it.
pub(crate) fn lag(node: &Inner, id: u64) -> Option<u64> {
    let metrics = node.engine.data_metrics();
    let metrics = metrics.borrow_watched();
    let last = metrics.last_log.as_ref().map_or(0, |log_id| log_id.index);
    let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?.index;
    Some(last.saturating_sub(matched))
}

/// Whether `id` answered the leader within two elections' time, and never forgot what it acknowledged.
pub(crate) fn is_healthy(node: &Inner, id: u64) -> bool {
    if id == node.identity.node {
        return true;
    }
    if node.notes.has_forgotten(id) {
        return false;
    }
    let metrics = node.engine.data_metrics();
    let metrics = metrics.borrow_watched();
    let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(&id).copied().flatten());
    heard.is_some_and(|at| openraft::Instant::elapsed(&*at) < node.timers.election_max * 2)
}

/// Up to where every other member has the log that answers this leader; `None` where this node
/// does not lead, or no member answers.
pub(crate) fn followed(node: &Inner) -> Option<u64> {
    let metrics = node.engine.data_metrics().borrow_watched().clone();
    let matched = metrics.replication.as_ref()?.iter();
    let others = matched.filter(|(id, _)| **id != node.identity.node && is_healthy(node, **id));
    others.map(|(_, log_id)| log_id.as_ref().map_or(0, |log_id| log_id.index)).min()
}

/// The healthy other voters, those with most of the log first.
fn candidates(node: &Inner) -> Vec<u64> {
    let own = node.identity.node;
    let voters = members(node).voters.into_iter();
    let mut healthy: Vec<u64> = voters.filter(|id| *id != own && is_healthy(node, *id)).collect();
    healthy.sort_by_key(|id| lag(node, *id).map_or((1, 0), |lag| (0, lag)));
    healthy
}

/// What `id` says of itself right now. A node that hangs still counts as heard of for a while.
async fn ask(node: &Inner, id: u64) -> Result<quorate::HelloReply, String> {
    let within = node.timers.election_max;
    let peer = node.peers.get(id).map_err(|status| status.message().to_owned())?;
    let mut client = peer.control();
    let reply = match timeout(within, client.hello(quorate::HelloRequest::default())).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return Err(status.message().to_owned()),
        Err(_) => return Err(format!("no answer within {within:?}")),
    };
    let found = reply.member.as_ref().map_or(0, |member| member.id);
    if found != id {
        return Err(format!("node {found:016x} listens at its address"));
    }
    Ok(reply)
}

/// Whether `id` can take over now.
///
/// # Errors
/// A refusal that says why not.
async fn check(node: &Inner, id: u64, deadline: Instant) -> Result<(), MembershipError> {
    let name = members(node).nodes.get(&id).map(|meta| meta.name.clone()).unwrap_or_default();
    if node.notes.has_forgotten(id) {
        return refuse(format!(
            "{name} ({id:016x}) cannot take the leadership: it lacks what it had acknowledged"
        ));
    }
    if let Err(reason) = ask(node, id).await {
        return refuse(format!(
            "{name} ({id:016x}) cannot take the leadership: it does not answer ({reason})"
        ));
    }
    let caught_up_by = deadline.min(Instant::now() + CATCH_UP_MAX);
    loop {
        let behind = lag(node, id);
        if behind.is_some_and(|lag| lag <= LAG_ENTRIES_MAX) {
            return Ok(());
        }
        if Instant::now() >= caught_up_by {
            let behind = match behind {
                Some(lag) => format!("it lacks {lag} entries, {LAG_ENTRIES_MAX} at most may lack"),
                None => "it has not stored anything of this leader yet".to_owned(),
            };
            return refuse(format!("{name} ({id:016x}) cannot take the leadership: {behind}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Hands the leadership over and waits until another node has it.
///
/// # Errors
/// A refusal, or the other node did not take over in time.
pub(crate) async fn transfer(
    node: &Inner,
    to: Option<u64>,
    deadline: Instant,
) -> Result<u64, MembershipError> {
    if to == Some(node.identity.node) {
        return Ok(node.identity.node);
    }
    if let Some(id) = to {
        if !members(node).voters.contains(&id) {
            return Err(MembershipError::UnknownNode { node: id });
        }
        check(node, id, deadline).await?;
        return transfer_to(node, id, deadline).await;
    }
    let mut refused = MembershipError::NoCandidate;
    for id in candidates(node) {
        match check(node, id, deadline).await {
            Ok(()) => return transfer_to(node, id, deadline).await,
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// As [`transfer`], to the voter that has applied most, where that is more than this node has:
/// what holds this node's apply up may hold up every other one at the same entry.
///
/// # Errors
/// As [`transfer`]; [`MembershipError::NoCandidate`] where no voter has applied more.
pub(crate) async fn transfer_to_more_applied(
    node: &Inner,
    deadline: Instant,
) -> Result<u64, MembershipError> {
    let own = node.storage.state.position().applied.map_or(0, |applied| applied.index);
    let mut ahead = Vec::new();
    for id in candidates(node) {
        match ask(node, id).await {
            Ok(reply) if reply.applied_index > own => ahead.push((reply.applied_index, id)),
            Ok(_) | Err(_) => {}
        }
    }
    ahead.sort_unstable_by_key(|(applied, _)| Reverse(*applied));
    for (_, id) in ahead {
        if check(node, id, deadline).await.is_ok() {
            return transfer_to(node, id, deadline).await;
        }
    }
    Err(MembershipError::NoCandidate)
}

async fn transfer_to(node: &Inner, target: u64, deadline: Instant) -> Result<u64, MembershipError> {
    let own = node.identity.node;
    let trigger = node.engine.trigger();
    trigger.transfer_leader(target).await.map_err(|_fatal| MembershipError::ShuttingDown)?;
    let mut leadership = node.leadership.clone();
    let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != own));
    match timeout_at(deadline, moved).await {
        Ok(Ok(now)) => {
            let leader = now.leader.unwrap_or_default();
            tracing::info!(node = leader, term = now.term, "leadership handed over");
            Ok(leader)
        }
        Ok(Err(_)) => Err(MembershipError::ShuttingDown),
        Err(_) => Err(MembershipError::Deadline(format!(
            "{target:016x} did not take over; the voters elect a leader by themselves"
        ))),
    }
}
