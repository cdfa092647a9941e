//! The coordinator's metrics: those of stock Milvus under their own names and labels, and ours.
//!
//! Most come from the views when Prometheus asks, so a new leader starts from no zero. Gauges about
//! the cluster are exported by the leader alone, as a stock coordinator in standby exports none:
//! dashboards sum them over all processes. Counters stay with the node that counted.

use std::collections::BTreeMap;

use proto::milvus::common::IndexState;
use proto::milvus::data::CompactionType;
use statemachine::Views;
use statemachine::channel::ChannelState;
use statemachine::coordinator::segment::view::is_healthy;
use statemachine::session::Role;
use statemachine::view::{CollectionId, ServerId};

use super::page::Page;
use crate::coordinator::counts::{Counts, Histogram};
use crate::coordinator::objects::{Outcome, StoreHealth};
use crate::coordinator::observed::Observed;
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::tso::physical_ms;
use crate::coordinator::{Coordinator, data_nodes};

/// Counting every build walks all of them under the lock of the state; above this only those that
/// are not finished are counted.
const BUILDS_COUNTED_MAX: usize = 100_000;

pub(super) fn write(page: &mut Page, coordinator: &Coordinator) {
    let lead = coordinator.lead().ok();
    page.gauge(
        "quorate_coordinator_is_leading",
        "1 where this node serves as Milvus's DataCoord",
        u64::from(lead.is_some()),
    );
    page.counter(
        "quorate_coordinator_take_overs_total",
        "Times that this node began to serve as DataCoord",
        &[],
        coordinator.counts.n_tenures(),
    );
    page.counter(
        "quorate_coordinator_sessions_lost_total",
        "Times that the session key was somebody else's while this node led",
        &[],
        coordinator.counts.n_sessions_lost(),
    );
    let server = lead.as_ref().map_or(-1, |lead| lead.server.0).to_string();
    coordinator.node.local_view().read(|state| {
        let observed = lead.as_deref().map(|lead| &lead.observed);
        of_views(page, state.views(), &coordinator.settings, observed, &server);
    });
    object_store(page, &coordinator.objects().health());
    let counts = &coordinator.counts;
    counted(page, counts);
    let histograms: [(&'static str, &str, &Histogram); 6] = [
        (
            "milvus_datacoord_assign_segment_latency",
            "Time to answer AssignSegmentID, ms (ours)",
            &counts.assignments,
        ),
        (
            "milvus_datacoord_flush_latency",
            "Time from the seal of a segment with rows until it is written, ms (ours)",
            &counts.flushes,
        ),
        (
            "milvus_datacoord_compaction_latency",
            "Time from planning a compaction to its end, ms (stock's name of later versions)",
            &counts.compactions,
        ),
        (
            "milvus_datacoord_compacted_segment_size",
            "Bytes of the results of compactions (stock)",
            &counts.compacted,
        ),
        (
            "quorate_coordinator_compaction_planning_latency",
            "Time of one look at all segments for what is worth a compaction, ms",
            &counts.planning,
        ),
        (
            "quorate_coordinator_garbage_planning_latency",
            "Time of one look at all records for what is garbage, ms",
            &counts.garbage_planning,
        ),
    ];
    for (name, help, histogram) in histograms {
        page.milvus_histogram(name, help, &[], histogram.buckets(), histogram.sum());
    }
    for (kind, files) in &counts.flushed_files {
        page.milvus_histogram(
            "milvus_flushed_segment_file_num",
            "Files of the segments that were flushed (stock)",
            &[("segment_file_type", kind)],
            files.buckets(),
            files.sum(),
        );
    }
}

/// Gauges from the views. `observed` is there on the leader.
fn of_views(
    page: &mut Page,
    views: &Views,
    settings: &CoordinatorSettings,
    observed: Option<&Observed>,
    server: &str,
) {
    let Some(observed) = observed else { return };
    page.gauge(
        "quorate_coordinator_too_few_data_nodes",
        "1 while there are fewer than dataCoord.minDataNodes: compaction waits, segments are \
         sealed earlier",
        u64::from(data_nodes::are_too_few(views, settings)),
    );
    nodes(page, views);
    let allowed = &settings.allowed_index_nodes;
    let index_nodes = views.sessions().nodes(Role::IndexNode);
    page.gauge(
        "quorate_coordinator_index_nodes_refused",
        "Index nodes that get no jobs because indexCoord.allowedNodes does not name their address",
        index_nodes.filter(|(_, session)| !allowed.permits(&session.address)).count() as u64,
    );
    segments(page, views);
    channels(page, views, observed, server);
    tasks(page, views, server);
    page.labelled(
        "milvus_num_node",
        "1 for the active coordinator (stock)",
        &[("node_id", server), ("role_name", "datacoord")],
        1,
    );
}

/// Calls of this node, which only the leader makes.
fn object_store(page: &mut Page, health: &StoreHealth) {
    for (outcome, count) in Outcome::ALL.into_iter().zip(health.counts) {
        page.counter(
            "quorate_coordinator_object_store_calls_total",
            "Calls on the object store by how they ended",
            &[("outcome", outcome.as_str())],
            count,
        );
    }
    page.gauge(
        "quorate_coordinator_object_store_failing_seconds",
        "For how long no call on the object store has succeeded; 0 while calls succeed",
        health.failing.as_ref().map_or(0, |(failing, _)| failing.as_secs().max(1)),
    );
}

/// What is counted from the start of this process on.
fn counted(page: &mut Page, counts: &Counts) {
    page.counter(
        "milvus_datacoord_stored_rows_count",
        "Rows that were flushed (stock)",
        &[],
        counts.n_stored_rows(),
    );
    let (created, refused) = counts.n_indexes_asked();
    for (status, count) in [("total", created + refused), ("success", created), ("fail", refused)] {
        page.counter(
            "milvus_datacoord_index_req_count",
            "Requests for indexes (stock)",
            &[("status", status)],
            count,
        );
    }
}

fn nodes(page: &mut Page, views: &Views) {
    let count = |role| views.sessions().nodes(role).count() as u64;
    let (data, index) = (count(Role::DataNode), count(Role::IndexNode));
    page.gauge("milvus_datacoord_datanode_num", "Data nodes (stock)", data);
    page.gauge("milvus_datacoord_index_node_num", "Index nodes (stock)", index);
    page.gauge(
        "milvus_datacoord_collection_num",
        "Collections (stock)",
        views.catalog().collections().len() as u64,
    );
}

fn segments(page: &mut Page, views: &Views) {
    for (state, count) in views.segments().counts() {
        page.labelled(
            "milvus_datacoord_segment_num",
            "Segments by state (stock)",
            &[("segment_state", state.as_str_name())],
            count as u64,
        );
    }
    let tallies: Vec<_> =
        views.segments().tallies().filter(|(_, state, _)| is_healthy(*state)).collect();
    for (collection, state, tally) in &tallies {
        page.labelled(
            "milvus_datacoord_stored_rows_num",
            "Rows of segments that are not dropped (stock)",
            &[("collection_id", &collection.to_string()), ("segment_state", state.as_str_name())],
            u64::try_from(tally.rows).unwrap_or(0),
        );
    }
    for (collection, state, tally) in &tallies {
        page.labelled(
            "milvus_datacoord_stored_binlog_size",
            "Bytes of their logs (stock's name, labels of later versions)",
            &[("collection_id", &collection.to_string()), ("segment_state", state.as_str_name())],
            u64::try_from(tally.size_bytes).unwrap_or(0),
        );
    }
}

fn channels(page: &mut Page, views: &Views, observed: &Observed, server: &str) {
    let mut watched: BTreeMap<ServerId, u64> = BTreeMap::new();
    for ((node, _), channel) in views.channels().rows().decoded() {
        let count = watched.entry(*node).or_default();
        *count += u64::from(channel.state == ChannelState::WatchSuccess);
    }
    for (node, count) in watched.iter().filter(|(node, _)| **node != ServerId::NOBODY) {
        page.labelled(
            "milvus_datacoord_watched_dml_chanel_num",
            "Channels that a data node watches (stock)",
            &[("node_id", &node.to_string())],
            *count,
        );
    }
    for (channel, checkpoint) in views.assignments().checkpoints().decoded() {
        page.labelled(
            "milvus_datacoord_channel_checkpoint_unix_seconds",
            "Up to when the rows of a channel are written (stock)",
            &[("node_id", server), ("channel_name", channel)],
            physical_ms(checkpoint.position.timestamp) / 1000,
        );
    }
    let now_ms = super::unix_ms();
    for (channel, _) in views.assignments().rows().decoded() {
        let ts = observed.tick_ts(channel);
        if ts > 0 {
            page.labelled(
                "milvus_datacoord_consume_datanode_tt_lag_ms",
                "Age of the last tick of a channel (stock)",
                &[("node_id", server), ("channel_name", channel)],
                now_ms.saturating_sub(physical_ms(ts)),
            );
        }
    }
}

fn tasks(page: &mut Page, views: &Views, server: &str) {
    let mut plans: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
    for (_, plan) in views.plans().rows().decoded() {
        let kind =
            CompactionType::try_from(plan.task.kind).map_or("unknown", |kind| kind.as_str_name());
        let state = plan.task.state().as_str_name().trim_start_matches("COMPACTION_STATE_");
        *plans.entry((state, kind)).or_default() += 1;
    }
    for ((state, kind), count) in &plans {
        page.labelled(
            "milvus_datacoord_compaction_task_num",
            "Compaction plans on record (stock's name of later versions)",
            &[("node_id", server), ("state", &state.to_ascii_lowercase()), ("type", kind)],
            *count,
        );
    }
    let mut builds: BTreeMap<(CollectionId, &'static str), u64> = BTreeMap::new();
    let mut add = |collection, state| {
        *builds.entry((collection, index_status(state))).or_default() += 1;
    };
    if views.indexes().n_builds() <= BUILDS_COUNTED_MAX {
        let live = views.indexes().builds().filter(|(_, build)| !build.is_deleted);
        live.for_each(|(_, build)| add(build.collection, build.state));
    } else {
        views.indexes().unfinished().for_each(|(_, build)| add(build.collection, build.state));
    }
    for ((collection, status), count) in &builds {
        page.labelled(
            "milvus_datacoord_index_task_count",
            "Builds of indexes; above 100,000 of them only those that are not finished (stock)",
            &[("collection_id", &collection.to_string()), ("index_task_status", status)],
            *count,
        );
    }
}

/// As stock spells it.
fn index_status(state: IndexState) -> &'static str {
    match state {
        IndexState::None | IndexState::Unissued | IndexState::Retry => "unissued",
        IndexState::InProgress => "in-progress",
        IndexState::Finished => "finished",
        IndexState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_about_the_cluster_are_exported_by_the_leader_alone() {
        let (views, settings) = (Views::new("by-dev"), CoordinatorSettings::default());
        let text = |observed: Option<&Observed>| {
            let mut page = Page::default();
            of_views(&mut page, &views, &settings, observed, "7");
            page.into_text()
        };
        assert_eq!(text(None), "");
        let leading = text(Some(&Observed::default()));
        for name in ["milvus_num_node{", "milvus_datacoord_datanode_num 0"] {
            assert!(leading.contains(name), "{name} is missing in {leading}");
        }
    }
}
