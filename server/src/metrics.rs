//! The metrics page: gathered when Prometheus asks, so that nobody pays for what nobody reads.
//!
//! Names are `quorate_<area>_<what>_<unit>`; labels come from closed sets.

mod calls;
mod coordinator;
mod edge;
mod page;
mod process;
mod storage;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use raft::{Node, NodeState, WaitsFor};

use crate::coordinator::Coordinator;
use crate::edge::doors::Doors;
use crate::edge::outflow::Outflow;
use crate::lease_clock::Leases;
use crate::rpc::etcd::PastImages;
use crate::watch_hub::WatchHub;

pub(crate) use calls::Calls;
use page::Page;
pub(crate) use process::resident_bytes;

/// The process, consensus, the keyspace and the storage, in the text format of Prometheus.
pub(crate) fn node_page(node: &Node, started: Instant) -> String {
    let mut page = Page::default();
    process::write(&mut page, started);
    raft(&mut page, node);
    keyspace(&mut page, node);
    storage::write(&mut page, &node.metrics());
    page.into_text()
}

/// What a node tells of Milvus's things.
pub(crate) fn coordinator_page(coordinator: &Coordinator) -> String {
    let mut page = Page::default();
    coordinator::write(&mut page, coordinator);
    page.into_text()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Leases, watches and calls.
pub(crate) fn services_page(
    leases: &Leases,
    hub: &WatchHub,
    past_images: &PastImages,
    calls: &Calls,
) -> String {
    let mut page = Page::default();
    page.gauge(
        "quorate_lease_on_clock_count",
        "Leases whose time this node watches because it leads",
        leases.n_on_clock().unwrap_or_default() as u64,
    );
    page.gauge("quorate_watch_watchers_count", "Watchers of this node", hub.n_watchers() as u64);
    page.gauge("quorate_watch_streams_count", "Streams that carry them", hub.n_streams() as u64);
    page.gauge(
        "quorate_watch_behind_count",
        "Watchers that read history, because they start in the past or their client reads slowly",
        hub.n_behind() as u64,
    );
    page.gauge(
        "quorate_watch_unread_streams_count",
        "Streams whose requests are not read, because their clients do not read the answers",
        hub.n_unread() as u64,
    );
    let refused = hub.refused();
    let by_bound = [
        ("stream-watchers", refused.stream),
        ("member-watchers", refused.member),
        ("member-range-bytes", refused.range_bytes),
    ];
    for (bound, n_refused) in by_bound {
        page.counter(
            "quorate_watch_refused_total",
            "Watches that were refused, by the bound that they met",
            &[("bound", bound)],
            n_refused,
        );
    }
    if let Some(revision) = hub.low_water() {
        page.gauge(
            "quorate_watch_low_water_revision",
            "Lowest revision that a watcher still needs",
            revision.cast_unsigned(),
        );
    }
    past(&mut page, past_images);
    calls.write(&mut page);
    page.into_text()
}

/// Reads at past revisions.
fn past(page: &mut Page, images: &PastImages) {
    let counts = images.counts();
    page.gauge(
        "quorate_past_images_count",
        "Past revisions whose index is kept for the pages that follow",
        counts.kept as u64,
    );
    page.gauge(
        "quorate_past_images_bytes",
        "Memory that they take beside the newest index",
        counts.bytes as u64,
    );
    page.counter("quorate_past_images_made_total", "Images made", &[], counts.made);
    page.counter("quorate_past_images_used_total", "Pages read by a kept image", &[], counts.used);
}

/// Connections of all listeners.
pub(crate) fn edge_page(node: &Node, doors: &Doors, outflow: &Outflow) -> String {
    let mut page = Page::default();
    edge::write(&mut page, node, doors, outflow);
    page.into_text()
}

fn raft(page: &mut Page, node: &Node) {
    let status = node.status().borrow().clone();
    page.labelled(
        "quorate_build_info",
        "Version of the binary and name of the node",
        &[("version", env!("CARGO_PKG_VERSION")), ("name", &status.name)],
        1,
    );
    let flag = |is: bool| u64::from(is);
    page.gauge(
        "quorate_raft_is_leader",
        "1 on the leader while a majority follows it",
        flag(status.is_leader()),
    );
    page.gauge(
        "quorate_raft_has_leader",
        "1 where a leader is known that a majority follows",
        flag(status.leader.is_some()),
    );
    page.gauge(
        "quorate_raft_is_ready",
        "1 where clients are served",
        flag(status.state >= NodeState::Keyspace),
    );
    page.gauge(
        "quorate_raft_is_hot",
        "1 where index and views are complete",
        flag(status.state == NodeState::Hot),
    );
    let skew_ms = node.clock_skew_ms();
    page.gauge(
        "quorate_clock_ahead_ms",
        "By how much this machine's clock is ahead of cluster time",
        u64::try_from(skew_ms).unwrap_or(0),
    );
    page.gauge(
        "quorate_clock_behind_ms",
        "By how much this machine's clock is behind cluster time",
        u64::try_from(skew_ms.saturating_neg()).unwrap_or(0),
    );
    page.gauge("quorate_raft_term", "Term of the vote", status.term);
    page.gauge("quorate_raft_last_log_index", "Last entry in the log", status.last_log_index);
    page.gauge(
        "quorate_raft_committed_index",
        "Last entry known to be committed",
        status.committed_index,
    );
    page.gauge("quorate_raft_applied_index", "Last entry in the state", status.applied.index);
    page.gauge(
        "quorate_raft_snapshot_index",
        "Last entry in the newest snapshot",
        status.snapshot_index,
    );
    page.gauge(
        "quorate_raft_purged_index",
        "Last entry that is gone from the log",
        status.purged_index,
    );
    page.gauge(
        "quorate_raft_members_count",
        "Members, learners among them",
        status.members.len() as u64,
    );
    page.gauge(
        "quorate_raft_is_refused",
        "Whether this node must take no part in its cluster with its data directory",
        u64::from(status.refused.is_some()),
    );
    page.gauge("quorate_raft_voters_count", "Members that vote", status.voters().count() as u64);
    let name = |id: &u64| status.member(*id).map_or("", |member| member.meta.name.as_str());
    for (id, progress) in &status.peers {
        page.labelled(
            "quorate_raft_peer_lag_entries",
            "Entries that a peer still lacks, on the leader",
            &[("peer", name(id))],
            progress.lag_entries,
        );
    }
    for (id, progress) in &status.peers {
        page.labelled(
            "quorate_raft_peer_forgot",
            "Whether a peer was seen to lack what it had acknowledged, on the leader",
            &[("peer", name(id))],
            u64::from(progress.forgot),
        );
    }
    let troubles = node.troubles();
    for waits_for in [WaitsFor::Room, WaitsFor::State] {
        let waits = |id: &u64| troubles.get(id).is_some_and(|it| it.waits_for == waits_for);
        for id in status.peers.keys() {
            page.labelled(
                "quorate_raft_peer_waits",
                "What a peer that answers waits for before it takes part, on the leader",
                &[("peer", name(id)), ("for", waits_for.as_str())],
                u64::from(waits(id)),
            );
        }
    }
    for (id, room) in node.rooms().iter().filter(|(id, _)| status.peers.contains_key(*id)) {
        page.labelled(
            "quorate_raft_peer_disk_free_bytes",
            "Free space of a peer's disk as it reported it last, on the leader",
            &[("peer", name(id))],
            room.free_bytes,
        );
    }
    for (id, progress) in &status.peers {
        let Some(silent) = progress.silent else { continue };
        page.labelled(
            "quorate_raft_peer_silent_ms",
            "Since a peer last answered the leader",
            &[("peer", name(id))],
            u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        );
    }
}

fn keyspace(page: &mut Page, node: &Node) {
    node.local_view().read(|state| {
        page.gauge(
            "quorate_state_revision",
            "Revision of the keyspace",
            state.revision().cast_unsigned(),
        );
        page.gauge(
            "quorate_state_compacted_revision",
            "Reads below are refused",
            state.compacted_revision().cast_unsigned(),
        );
        page.gauge("quorate_state_keys_count", "Live keys", state.n_keys() as u64);
        page.gauge("quorate_state_logical_bytes", "What the quota bounds", state.logical_bytes());
        page.gauge(
            "quorate_state_quota_bytes",
            "The quota; 0 for none",
            state.settings().quota_bytes,
        );
        page.gauge(
            "quorate_state_unsettled_outcomes_count",
            "Outcomes kept for writes that may come again",
            state.n_unsettled_outcomes(),
        );
        page.gauge("quorate_lease_count", "Leases", state.n_leases() as u64);
        page.gauge(
            "quorate_memory_index_bytes",
            "Index of the live keys",
            state.index_memory_bytes() as u64,
        );
        page.gauge(
            "quorate_view_undecodable_count",
            "Rows under the root path that no view can read",
            state.views().undecodable() as u64,
        );
        page.gauge(
            "quorate_state_alarms_count",
            "Alarms that are raised",
            state.alarms().count() as u64,
        );
    });
}
