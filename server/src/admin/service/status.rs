//! What a node says of itself.

use std::path::Path;
use std::time::{Duration, Instant};

use proto::admin;
use raft::{Node, NodeState, Role, RoomLevel};
use statemachine::limits::CLOCK_SKEW_WARN_MS;

use crate::config::checked::show_size;
use crate::coordinator::Coordinator;
use crate::metrics::resident_bytes;

use super::digest_bytes;

/// Where raft keeps its log, in the data directory.
const LOG_FOLDER: &str = "raftlog";

pub(super) fn of(node: &Node, data_dir: &Path, started: Instant) -> admin::NodeStatus {
    let status = node.status().borrow().clone();
    let sizes = node.metrics();
    let mut reply = admin::NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: status.cluster,
        node_id: status.node,
        name: status.name.clone(),
        role: role(&status).into(),
        stage: stage(status.state).into(),
        term: status.term,
        leader_id: status.leader.as_ref().map_or(0, |leader| leader.id),
        leader_name: status
            .leader
            .as_ref()
            .map(|leader| leader.meta.name.clone())
            .unwrap_or_default(),
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied.index,
        leader_since_ms: status.leader.as_ref().map_or(0, |_| status.leader_since_unix_ms),
        uptime_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        members: members(&status),
        snapshot_index: status.snapshot_index,
        resident_bytes: resident_bytes(),
        state_bytes: sizes.state_disk_bytes + sizes.state_memtable_bytes,
        log_bytes: folder_bytes(&data_dir.join(LOG_FOLDER)),
        snapshot_bytes: sizes.storage.snapshot_size_bytes.get(),
        ..admin::NodeStatus::default()
    };
    if status.state >= NodeState::Keyspace {
        add_state(&mut reply, node);
    }
    if let Some(trouble) = &sizes.snapshot_trouble {
        reply.warnings.push(format!(
            "no snapshot could be built in {} attempts: {}; it is tried again",
            trouble.attempts, trouble.error
        ));
    }
    add_room(&mut reply, node, &status);
    for member in &status.members {
        if status.peers.get(&member.id).is_some_and(|progress| progress.forgot) {
            reply.warnings.push(format!(
                "{} lacks what it had acknowledged: its disk lost it, or its data directory was \
                 put back; stop it, wipe its directory, start it again and run `quorate member \
                 replace {} --with {}`",
                member.meta.name, member.meta.name, member.meta.endpoints.peer
            ));
        }
    }
    if status.is_without_quorum() {
        reply.warnings.push(
            "was elected, and a majority does not acknowledge it: no write is committed here"
                .to_owned(),
        );
    }
    add_clock(&mut reply, node, &status);
    if status.joint {
        reply.warnings.push("a membership change is not complete yet".to_owned());
    }
    if let Some(reason) = &status.refused {
        reply.warnings.push(format!("takes no part in its cluster: {reason}"));
    } else if status.state == NodeState::NotMember {
        reply.warnings.push(format!(
            "waits outside the cluster: `quorate member replace {} --with {}` takes it in",
            status.name,
            node.endpoints().peer
        ));
    }
    reply
}

fn add_clock(reply: &mut admin::NodeStatus, node: &Node, status: &raft::Status) {
    reply.clock_skew_ms = node.clock_skew_ms();
    let skew_ms = reply.clock_skew_ms.unsigned_abs();
    if status.state < NodeState::Hot || skew_ms <= CLOCK_SKEW_WARN_MS {
        return;
    }
    let skew = humantime::format_duration(Duration::from_millis(skew_ms));
    let side = if reply.clock_skew_ms > 0 { "ahead of" } else { "behind" };
    reply
        .warnings
        .push(format!("this machine's clock is {skew} {side} cluster time: have it set by NTP"));
}

/// Free space here, and on the leader what the others report; who takes no part, as it said why.
fn add_room(reply: &mut admin::NodeStatus, node: &Node, status: &raft::Status) {
    let name = |id: u64| status.member(id).map(|member| member.meta.name.as_str());
    for (id, room) in node.rooms() {
        if id == status.node {
            reply.disk_free_bytes = room.free_bytes;
            reply.disk_low_bytes = room.low_bytes;
            reply.disk_ballast_bytes = room.ballast_bytes;
        }
        let Some(name) = name(id) else { continue };
        if room.level < RoomLevel::Plenty {
            reply.warnings.push(format!(
                "the disk of {} is full: {} free, below its low mark of {}; it takes no writes and \
                 does not lead until there is room",
                name,
                show_size(room.free_bytes),
                show_size(room.low_bytes)
            ));
        }
    }
    for (id, trouble) in node.troubles() {
        let Some(name) = name(id) else { continue };
        reply.warnings.push(format!("{name} takes no part: it {}", trouble.reason));
    }
}

fn add_state(reply: &mut admin::NodeStatus, node: &Node) {
    node.local_view().read(|state| {
        reply.revision = state.revision();
        reply.compacted_revision = state.compacted_revision();
        let digests = state.digests();
        reply.content_digest = digest_bytes(digests.content);
        reply.chain_digest = digest_bytes(digests.chain);
        reply.digest_revision = state.revision();
        reply.digest_index = state.last_index();
        reply.logical_bytes = state.logical_bytes();
        reply.quota_bytes = state.settings().quota_bytes;
        reply.keys = state.n_keys() as u64;
        reply.leases = state.n_leases() as u64;
        reply.alarms =
            state.alarms().map(|alarm| format!("{:?}", alarm.kind).to_uppercase()).collect();
        reply.feature_level = state.level();
        reply.undecodable_rows = state.views().undecodable() as u64;
    });
    if reply.undecodable_rows > 0 {
        reply.warnings.push(format!(
            "{} rows under the root path cannot be read by the typed views, see /debug/views",
            reply.undecodable_rows
        ));
    }
}

/// How it stands with the coordinator's role.
pub(super) fn add_coordinator(
    reply: &mut admin::NodeStatus,
    node: &Node,
    coordinator: Option<&Coordinator>,
) {
    let (on, raw_writes, clashes) = node.local_view().read(|state| {
        let settings = state.settings();
        let clashes = state.views().sessions().prefix_clashes();
        (settings.coordinator, settings.raw_writes, clashes)
    });
    reply.coordinator = match (coordinator.map(Coordinator::lead), on) {
        (Some(Ok(lead)), _) => format!("leads as {}", lead.server),
        (Some(Err(_)), true) => "stands by".to_owned(),
        (Some(Err(_)), false) if raw_writes => "handed over".to_owned(),
        (Some(Err(_)), false) => "off yet".to_owned(),
        (None, _) => String::new(),
    };
    if on && coordinator.is_none() {
        reply.warnings.push(
            "the coordinator's role is on in the cluster, and this node runs without \
             --coordinator datacoord: it cannot take the role over"
                .to_owned(),
        );
    }
    for (one, other) in clashes {
        reply.warnings.push(format!(
            "data nodes {one} and {other}: one id begins with the other, so both would run the \
             channels of the longer; restart one of them"
        ));
    }
}

/// A handful of files; 0 where there are none yet.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(folder) else { return 0 };
    files.flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

pub(super) fn members(status: &raft::Status) -> Vec<admin::Member> {
    status
        .members
        .iter()
        .map(|member| {
            let endpoints = &member.meta.endpoints;
            admin::Member {
                id: member.id,
                name: member.meta.name.clone(),
                voter: member.voter,
                addresses: Some(admin::Addresses {
                    peer: endpoints.peer.clone(),
                    client: endpoints.client.clone(),
                    http: endpoints.http.clone(),
                    coordinator: endpoints.coordinator.clone(),
                }),
                matched_index: status.peers.get(&member.id).map(|progress| progress.matched),
            }
        })
        .collect()
}

fn role(status: &raft::Status) -> admin::Role {
    match (status.state, status.role) {
        (NodeState::Founding | NodeState::NotMember, _) => admin::Role::Outside,
        // It asks for its majority back.
        (_, Role::Leader) if status.is_without_quorum() => admin::Role::Candidate,
        (_, Role::Leader) => admin::Role::Leader,
        (_, Role::Follower) => admin::Role::Follower,
        (_, Role::Candidate) => admin::Role::Candidate,
        (_, Role::Learner) => admin::Role::Learner,
        (_, Role::Stopped) => admin::Role::Unspecified,
    }
}

fn stage(state: NodeState) -> admin::Stage {
    match state {
        NodeState::Founding | NodeState::NotMember => admin::Stage::Unspecified,
        NodeState::Recovering => admin::Stage::Recovering,
        NodeState::Keyspace => admin::Stage::Keyspace,
        NodeState::Hot => admin::Stage::Hot,
    }
}
