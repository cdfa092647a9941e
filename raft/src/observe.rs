//! Tasks that watch a running node: its status, its recovery, its failures, its disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use proto::quorate::change_members_request::{Change, UpdateEndpoints};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::convert::member_to_proto;
use crate::error::LeaderHint;
use crate::node::Inner;
use crate::status::{LogIdView, Member, NodeState, PeerProgress, Role, Status};
use crate::types::LeaderId;
use crate::{admission, bootstrap, hand_over, membership, quarantine, room, tasks};

/// Indexes and lags in the status are this old at most.
const STATUS_PERIOD: Duration = Duration::from_millis(100);
const SWEEP_PERIOD: Duration = Duration::from_millis(20);
const STALL_PERIOD: Duration = Duration::from_millis(100);
/// What one attempt to hand over may take.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// A change of voters that is half way twice in a row has stopped there.
const JOINT_PERIOD: Duration = Duration::from_millis(500);
/// What peers promised since then is not noted after a crash of this node.
const NOTES_PERIOD: Duration = Duration::from_secs(30);
const RETENTION_PERIOD: Duration = Duration::from_secs(1);
/// After a hand-over because of a slow disk or apply, before the next one.
const STEP_DOWN_PAUSE: Duration = Duration::from_secs(5);

pub(crate) fn start(node: &Arc<Inner>) {
    spawn(node, "status", watch_status);
    spawn(node, "recovery", recover);
    spawn(node, "fatal", watch_fatal);
    spawn(node, "sweep", sweep);
    spawn(node, "stalls", watch_stalls);
    spawn(node, "joint", complete_joint_changes);
    spawn(node, "retention", retain);
    spawn(node, "notes", save_notes);
    spawn(node, "room", room::watch);
}

/// Runs `task` until the node stops.
fn spawn<F>(node: &Arc<Inner>, name: &'static str, task: impl FnOnce(Arc<Inner>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let cancel = node.cancel.clone();
    let running = task(Arc::clone(node));
    tasks::spawn(&node.runtime, name, async move {
        tokio::select! {
            // These tasks only watch; what they await is safe to drop.
            () = running => {}
            () = cancel.cancelled() => {}
        }
    });
}

async fn watch_status(node: Arc<Inner>) {
    let mut server_metrics = node.engine.server_metrics();
    let mut tick = tokio::time::interval(STATUS_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted = Vec::new();
    let mut noting: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            changed = server_metrics.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
        update_status(&node);
        let members = node.status.borrow().members.clone();
        // One after the other, and not awaited: a disk that hangs must not hold up the status.
        if members != noted && noting.as_ref().is_none_or(JoinHandle::is_finished) {
            noted.clone_from(&members);
            let (data_dir, own) = (node.data_dir.clone(), node.identity.node);
            let note = move || quarantine::note_peers(&data_dir, own, &members);
            noting = Some(tokio::task::spawn_blocking(note));
        }
    }
}

fn update_status(node: &Inner) {
    let server = node.engine.server_metrics().borrow_watched().clone();
    let data = node.engine.data_metrics().borrow_watched().clone();
    let membership = server.membership_config.membership();
    let index = |log_id: &Option<crate::types::LogId>| log_id.as_ref().map_or(0, |id| id.index);
    let last_log_index = index(&data.last_log);
    let voters: Vec<u64> = membership.voter_ids().collect();
    let members: Vec<Member> = membership
        .nodes()
        .map(|(id, meta)| Member { id: *id, meta: meta.clone(), voter: voters.contains(id) })
        .collect();
    node.clocks.set_voters(&voters);
    node.peers.learn(members.iter().map(|member| (member.id, member.meta.endpoints.peer.clone())));
    let own = node.identity.node;
    let removed = !members.is_empty() && members.iter().all(|member| member.id != own);
    let peers = data.replication.iter().flatten().map(|(id, matched)| {
        let heard = data.heartbeat.as_ref().and_then(|heard| heard.get(id).copied().flatten());
        let matched = index(matched);
        let progress = PeerProgress {
            lag_entries: last_log_index.saturating_sub(matched),
            matched,
            forgot: node.notes.has_forgotten(*id),
            silent: heard.map(|at| openraft::Instant::elapsed(&*at)),
        };
        (*id, progress)
    });
    let leads = server.state == ServerState::Leader && server.vote.committed;
    let acked = data.last_quorum_acked.map(|at| openraft::Instant::elapsed(&*at));
    let is_recent = is_recent(node, leads, server.vote.leader_id, voters == [own], acked);
    let leader = server
        .current_leader
        .filter(|_| is_recent)
        .and_then(|id| membership.get_node(&id).map(|meta| LeaderHint { id, meta: meta.clone() }));
    node.status.send_if_modified(|status| {
        let same_leader = status.leader.as_ref().map(|leader| leader.id)
            == leader.as_ref().map(|leader| leader.id)
            && status.term == server.vote.leader_id.term;
        let next = Status {
            node: own,
            name: status.name.clone(),
            cluster: node.identity.cluster(),
            state: state_of(node, status.state, removed, !members.is_empty()),
            role: role(server.state),
            term: server.vote.leader_id.term,
            leader_since_unix_ms: match same_leader {
                true => status.leader_since_unix_ms,
                false => node.clock.unix_ms(),
            },
            leader,
            last_log_index,
            committed_index: index(&data.local_committed),
            applied: data.last_applied.as_ref().map(LogIdView::from).unwrap_or_default(),
            snapshot_index: index(&data.snapshot),
            purged_index: index(&data.purged),
            joint: membership.get_joint_config().len() > 1,
            refused: node.refused.get().cloned(),
            members,
            peers: peers.filter(|(id, _)| *id != own).collect(),
        };
        let changed = *status != next;
        if status.role != next.role || !same_leader {
            tracing::info!(
                role = %next.role,
                term = next.term,
                leader = next.leader.as_ref().map(|leader| leader.meta.name.as_str()),
                "role"
            );
        }
        *status = next;
        changed
    });
}

/// Whether the leader of the newest committed vote still has a majority, as this node can tell.
/// `leads`: it is this node, last acknowledged by a majority so long ago as `acked`.
fn is_recent(
    node: &Inner,
    leads: bool,
    leader: LeaderId,
    votes_alone: bool,
    acked: Option<Duration>,
) -> bool {
    let now = Instant::now();
    if leads {
        node.contact.begins(leader, now);
        let acked = if votes_alone { Some(Duration::ZERO) } else { acked };
        if let Some(at) = acked.and_then(|ago| now.checked_sub(ago)) {
            node.contact.note(leader, at);
        }
    }
    let is_recent = node.contact.is_recent(leader, now);
    node.contact.set_without_quorum(leads && !is_recent);
    is_recent
}

/// A node that joins first sees memberships from before its time, without itself.
fn state_of(node: &Inner, now: NodeState, removed: bool, has_members: bool) -> NodeState {
    if removed || node.refused.get().is_some() {
        return NodeState::NotMember;
    }
    if now != NodeState::NotMember || !has_members {
        return now;
    }
    if node.recovered.load(Ordering::Acquire) { NodeState::Hot } else { NodeState::Recovering }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

/// Brings the node from its start to its work.
async fn recover(node: Arc<Inner>) {
    if let Err(reason) = admission::admit(&node).await {
        admission::refuse(&node, &reason);
        return;
    }
    spawn(&node, "ask the rest", |node| async move {
        if let Err(reason) = admission::ask_the_rest(&node).await {
            (node.on_fatal)(&reason);
        }
    });
    bootstrap::find_cluster(&node).await;
    node.set_state(NodeState::Recovering);
    if let Err(reason) = bootstrap::note_used(&node).await {
        (node.on_fatal)(&format!("identity: {reason}"));
        return;
    }
    spawn(&node, "announce", announce_endpoints);
    if node.engine.wait_for_recovery(None).await.is_err() {
        return;
    }
    // Index and views were built before the engine began to run, and have grown with it since.
    node.recovered.store(true, Ordering::Release);
    node.set_state(NodeState::Keyspace);
    node.set_state(NodeState::Hot);
    node.proposer.wait_registered().await;
    tracing::info!(node = node.identity.node, "node is ready");
}

/// Corrects the membership where this node was started with other addresses than before.
async fn announce_endpoints(node: Arc<Inner>) {
    let own = node.identity.node;
    let mut status = node.status.subscribe();
    loop {
        {
            let status = status.borrow_and_update();
            match status.member(own) {
                Some(member) if member.meta == node.meta => return,
                Some(_) => {}
                None if status.members.is_empty() => {}
                None => return,
            }
        }
        let member = Some(member_to_proto(own, &node.meta));
        let deadline = Instant::now() + node.timers.propose;
        let change = Change::UpdateEndpoints(UpdateEndpoints { member });
        match membership::change(&node, change, deadline).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(error = %error, "own addresses not announced yet"),
        }
        tokio::time::sleep(STATUS_PERIOD).await;
    }
}

/// Looks now and then: the engine's metrics change with every entry, and waking for each of them
/// would cost more than an answer that comes a moment later.
async fn watch_fatal(node: Arc<Inner>) {
    let metrics = node.engine.metrics();
    let mut tick = tokio::time::interval(STATUS_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let failed = metrics.borrow_watched().running_state.clone().err();
        if let Some(fatal) = failed {
            if !node.cancel.is_cancelled() {
                (node.on_fatal)(&format!("consensus stopped: {fatal}"));
            }
            return;
        }
    }
}

async fn save_notes(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(NOTES_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if node.notes.is_unsaved() {
            node.save_notes().await;
        }
    }
}

async fn sweep(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(SWEEP_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        node.proposer.sweep(Instant::now());
    }
}

/// A leader whose disk or apply hangs still sends heartbeats: no other node would notice.
async fn watch_stalls(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(STALL_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if node.leadership.borrow().mine.is_none() {
            continue;
        }
        let disk_stall = node.storage.log.stall();
        let apply_stall = node.storage.metrics.apply_stall();
        let deadline = Instant::now() + HAND_OVER_MAX;
        let handed_over = if disk_stall >= node.timers.disk_stall {
            tracing::warn!(stall_ms = disk_stall.as_millis(), "own disk hangs, handing over");
            hand_over::transfer(&node, None, deadline).await
        } else if apply_stall >= node.timers.apply_stall {
            tracing::warn!(stall_ms = apply_stall.as_millis(), "own apply hangs, handing over");
            hand_over::transfer_to_more_applied(&node, deadline).await
        } else {
            continue;
        };
        if let Err(error) = handed_over {
            tracing::warn!(error = %error, "leadership not handed over");
        }
        tokio::time::sleep(STEP_DOWN_PAUSE).await;
    }
}

/// Snapshots and purges, when the storage finds that they are due.
async fn retain(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(RETENTION_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        node.storage.drop_stale_snapshot();
        let trigger = node.engine.trigger();
        // A restored node begins without the front of its log: whoever joins needs a snapshot.
        let needed = node.storage.snapshot_is_missing() && node.leadership.borrow().mine.is_some();
        if (needed || node.storage.snapshot_is_due()) && trigger.snapshot().await.is_err() {
            return;
        }
        let followed = hand_over::followed(&node);
        if let Some(upto) = node.storage.purge_upto(followed) {
            // openraft keeps what a stream still has to send, however much that is.
            if followed.is_some_and(|followed| followed < upto) {
                tracing::warn!(
                    upto,
                    "the log is too large: a follower that is late gets a snapshot"
                );
                node.cutoff.send_replace(upto);
            }
            if trigger.purge_log(upto).await.is_err() {
                return;
            }
        }
    }
}

/// Completes every change of voters that stopped half way: an earlier leader's at once, one of
/// this leadership where the engine does not go on with it by itself.
async fn complete_joint_changes(node: Arc<Inner>) {
    let mut tenure = node.tenure.clone();
    let mut tick = tokio::time::interval(JOINT_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        let is_new = tokio::select! {
            changed = tenure.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            _ = tick.tick() => false,
        };
        let leads = tenure.borrow_and_update().is_some();
        let now = membership::members(&node);
        if !leads || !now.joint {
            seen = None;
            continue;
        }
        let is_left = is_new || seen == Some(now.index);
        seen = Some(now.index);
        if is_left && let Err(error) = membership::complete_joint(&node).await {
            tracing::warn!(error = %error, "membership is still between two sets of voters");
        }
    }
}
