//! Log, state and snapshots on disk, and what waits for them.

use raft::storage_metrics::Histogram;
use raft::{Metrics, RoomLevel};

use super::page::Page;

pub(super) fn write(page: &mut Page, metrics: &Metrics) {
    waiting(page, metrics);
    log(page, metrics);
    state(page, metrics);
    snapshots(page, metrics);
    room(page, metrics);
}

fn room(page: &mut Page, metrics: &Metrics) {
    let gauges = [
        (
            "quorate_storage_disk_free_bytes",
            "Free space of the disk that holds the data directory",
            metrics.room.free_bytes,
        ),
        (
            "quorate_storage_disk_low_bytes",
            "Free space below which this node takes no writes and does not lead",
            metrics.room.low_bytes,
        ),
        (
            "quorate_storage_disk_ballast_bytes",
            "What is left of the space that is held for deletes, compactions and votes",
            metrics.room.ballast_bytes,
        ),
        (
            "quorate_storage_disk_is_full",
            "1 while this node takes no writes because its disk is below the low mark",
            u64::from(metrics.room.level < RoomLevel::Plenty),
        ),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help, value);
    }
}

fn waiting(page: &mut Page, metrics: &Metrics) {
    page.gauge(
        "quorate_raft_pending_commands_count",
        "Commands of this node's clients whose outcome is open",
        metrics.pending_commands as u64,
    );
    page.gauge(
        "quorate_raft_pending_bytes",
        "Size of the commands whose outcome is open",
        metrics.pending_bytes as u64,
    );
    page.gauge(
        "quorate_raft_inbound_bytes",
        "Commands of other nodes that wait at this leader",
        metrics.inbound_bytes as u64,
    );
}

fn log(page: &mut Page, metrics: &Metrics) {
    let storage = &metrics.storage;
    histogram(
        page,
        "quorate_fsync_log_seconds",
        "A write of the log that reached the disk: batch, write and sync",
        &storage.log_sync,
    );
    page.gauge(
        "quorate_fsync_log_running_us",
        "Age of the write of the log that runs now; a large one is a stalled disk",
        u64::try_from(storage.log_stall().as_micros()).unwrap_or(u64::MAX),
    );
    let counters = [
        ("quorate_storage_log_entries_total", "Entries written to the log", &storage.log_entries),
        ("quorate_storage_log_bytes_total", "Bytes written to the log", &storage.log_bytes),
        ("quorate_storage_log_batches_total", "Syncs of the log", &storage.log_batches),
        (
            "quorate_storage_log_reads_total",
            "Entries read back from disk because the tail in memory no longer held them",
            &storage.log_entries_read,
        ),
    ];
    for (name, help, counter) in counters {
        page.counter(name, help, &[], counter.get());
    }
    page.gauge(
        "quorate_storage_log_queue_bytes",
        "Given to the log and not yet durable",
        storage.log_queue_bytes.get(),
    );
    page.gauge(
        "quorate_storage_log_held_bytes",
        "Entries of the leader that were taken and are not yet durable here",
        storage.append_held_bytes.get(),
    );
    page.gauge(
        "quorate_storage_log_kept_bytes",
        "Entries that are not purged, roughly",
        metrics.log_bytes,
    );
    page.gauge(
        "quorate_memory_log_tail_bytes",
        "Newest entries kept in memory for followers and apply",
        storage.log_tail_bytes.get(),
    );
}

fn state(page: &mut Page, metrics: &Metrics) {
    let storage = &metrics.storage;
    page.gauge(
        "quorate_apply_running_us",
        "Age of the chunk of entries that is applied now; a large one is a stalled apply",
        u64::try_from(storage.apply_stall().as_micros()).unwrap_or(u64::MAX),
    );
    page.gauge(
        "quorate_apply_waiting_bytes",
        "Entries that this leader has proposed and not yet applied itself",
        storage.apply_waiting_bytes.get(),
    );
    histogram(
        page,
        "quorate_apply_chunk_seconds",
        "One chunk of entries: evaluate, write, make visible",
        &storage.apply_chunk,
    );
    histogram(
        page,
        "quorate_apply_commit_seconds",
        "The part of a chunk that holds readers off",
        &storage.apply_commit,
    );
    histogram(
        page,
        "quorate_storage_state_flush_seconds",
        "A flush of the state to disk",
        &storage.state_flush,
    );
    let counters = [
        ("quorate_apply_entries_total", "Entries applied", &storage.apply_entries),
        ("quorate_apply_bytes_total", "Bytes of entries applied", &storage.apply_bytes),
        (
            "quorate_storage_compaction_steps_total",
            "Steps of the deletion of compacted history",
            &storage.compaction_steps,
        ),
        (
            "quorate_storage_scrubs_total",
            "Times that all rows were read again and matched their digest",
            &storage.scrubs,
        ),
        (
            "quorate_storage_compaction_rows_total",
            "Rows of compacted history that were deleted",
            &storage.compaction_rows,
        ),
    ];
    for (name, help, counter) in counters {
        page.counter(name, help, &[], counter.get());
    }
    page.gauge(
        "quorate_storage_state_unflushed_bytes",
        "Applied and only in memory and the log",
        storage.state_unflushed_bytes.get(),
    );
    page.gauge("quorate_storage_state_disk_bytes", "The state on disk", metrics.state_disk_bytes);
    page.gauge(
        "quorate_memory_memtable_bytes",
        "Write buffers of the state",
        metrics.state_memtable_bytes,
    );
}

fn snapshots(page: &mut Page, metrics: &Metrics) {
    let storage = &metrics.storage;
    let histograms = [
        ("quorate_storage_snapshot_build_seconds", "A snapshot built", &storage.snapshot_build),
        (
            "quorate_storage_snapshot_verify_seconds",
            "A received snapshot checked",
            &storage.snapshot_verify,
        ),
        (
            "quorate_storage_snapshot_install_seconds",
            "A snapshot swapped in",
            &storage.snapshot_install,
        ),
    ];
    for (name, help, figures) in histograms {
        histogram(page, name, help, figures);
    }
    page.gauge(
        "quorate_storage_snapshot_bytes",
        "Size of the newest snapshot",
        storage.snapshot_size_bytes.get(),
    );
    page.counter(
        "quorate_storage_snapshot_build_failures_total",
        "Attempts to build a snapshot that failed; the node goes on and tries again",
        &[],
        storage.snapshot_build_failures.get(),
    );
    page.counter(
        "quorate_storage_snapshot_received_bytes_total",
        "Bytes of snapshots received from peers",
        &[],
        storage.snapshot_received_bytes.get(),
    );
}

fn histogram(page: &mut Page, name: &'static str, help: &str, figures: &Histogram) {
    page.histogram(name, help, &[], &figures.buckets(), figures.sum());
}
