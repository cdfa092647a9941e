//! Every bound of the state machine. Those that decide an outcome are part of the replicated
//! meaning: change one only together with a feature level.

/// Longest time to live of a lease, seconds; etcd's bound.
pub const LEASE_TTL_S_MAX: i64 = 9_000_000_000;

/// Commands in a run. A node puts far fewer into one; more are refused with the run.
pub const RUN_COMMANDS_MAX: usize = 4096;

/// Operations in a transaction unless the setting says otherwise; etcd's bound.
pub const TXN_OPS_DEFAULT: u32 = 128;
/// The setting's own bound, and the bound of a transaction on all of its branches.
pub const TXN_OPS_CEILING: u32 = 65_536;
/// Comparisons and operations of a transaction on all of its branches, as a multiple of the
/// setting, which bounds one path through it.
pub const TXN_OPS_IN_ALL_FACTOR: u64 = 16;

/// Comparisons and operations that a transaction may have on all of its branches.
pub(crate) fn txn_ops_in_all_max(ops_max: u32) -> u64 {
    (u64::from(ops_max) * TXN_OPS_IN_ALL_FACTOR).min(TXN_OPS_CEILING.into())
}

/// Transactions inside transactions. A deeper one could not be decoded as part of a log entry, since
/// the decoder bounds nesting, and would stop every node.
pub const TXN_DEPTH_MAX: u32 = 32;

/// Logical cost of a version beside its key and value, bytes; etcd's figure.
pub const VERSION_COST_BYTES: u64 = 256;
/// Logical cost of a lease, bytes; etcd's figure.
pub const LEASE_COST_BYTES: u64 = 64;

/// Bound on the logical size unless the setting says otherwise, bytes.
pub const QUOTA_BYTES_DEFAULT: u64 = 8 << 30;
/// Revisions that automatic compaction keeps unless the setting says otherwise.
pub const RETENTION_REVISIONS_DEFAULT: u64 = 100_000;
/// Age that automatic compaction keeps unless the setting says otherwise, milliseconds.
pub const RETENTION_MS_DEFAULT: u64 = 10 * 60 * 1000;
/// Where Milvus keeps its records unless the setting says otherwise.
pub const ROOT_PATH_DEFAULT: &str = "by-dev";
pub const ROOT_PATH_BYTES_MAX: usize = 256;

/// Keys that the comparisons and ranges of one write may visit.
pub const COMMAND_READ_KEYS_MAX: u64 = 1 << 18;
/// Keys that one write may delete. One entry and one revision, whatever the number.
pub const COMMAND_DELETED_KEYS_MAX: u64 = 1 << 20;
/// Keys of leases that one command deletes; a lease with more is marked ended, and its keys go in
/// pieces.
pub const LEASE_KEYS_PER_STEP_MAX: usize = 10_000;
/// Bytes of pairs in the answer of one write or one transaction.
pub const COMMAND_ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Bytes of values that the comparisons of one write may have to read.
pub const COMMAND_COMPARED_BYTES_MAX: u64 = 16 << 20;
/// What reading a value counts beside its length, bytes: a search in the store.
pub(crate) const COMPARED_VALUE_BYTES_MIN: u64 = 1 << 10;
/// Bytes of pairs in the answer of one range by itself. More than 2 GiB would not fit a message.
pub const RANGE_ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Bytes of values that the puts of one transaction may keep by `ignore_value`.
pub const COMMAND_KEPT_BYTES_MAX: u64 = 16 << 20;
/// What a pair of an answer counts beside its key and value, bytes.
pub(crate) const ANSWER_PAIR_BYTES: u64 = 64;
/// Keys that one transaction without writes may visit.
pub const READ_TXN_KEYS_MAX: u64 = 1 << 20;
/// Keys that are copied from the index under the state's lock for a transaction that only reads;
/// what needs more scans the tables, off the lock.
pub(crate) const LOCKED_TXN_KEYS_MAX: usize = 1 << 14;
/// As [`LOCKED_TXN_KEYS_MAX`], for one range by itself.
pub(crate) const LOCKED_RANGE_KEYS_MAX: usize = 1 << 18;

/// A larger response is not kept: a duplicate of its command is told so instead.
pub const OUTCOME_BYTES_MAX: usize = 4 << 10;
/// Unsettled outcomes kept for one origin; the oldest give way, and their duplicates are stale.
pub const ORIGIN_OUTCOMES_MAX: u64 = 1 << 16;
/// Bytes of unsettled outcomes kept for one origin.
pub const ORIGIN_OUTCOME_BYTES_MAX: u64 = 16 << 20;
/// Numbers of commands stay below, so that sums of them do not overflow.
pub const SEQ_MAX: u64 = 1 << 62;
/// Origins remembered; the one registered longest ago gives way.
pub const ORIGINS_MAX: usize = 256;

/// Cluster time is corrected by one part in so many of the time that passes: it runs between 90 and
/// 110 per cent as fast as the leader's monotonic clock.
pub const TIME_SLEW_DIVISOR: i64 = 10;
/// Cluster time that is further behind the voters' clocks may step, milliseconds; see `raft`.
pub const TIME_STEP_MIN_MS: u64 = 10_000;
/// Cluster time that is further ahead of a majority of the voters' clocks is set back, milliseconds.
pub const TIME_SET_BACK_MIN_MS: u64 = 60_000;
/// A node whose clock differs more from cluster time warns, milliseconds.
pub const CLOCK_SKEW_WARN_MS: u64 = 1_000;
/// Records whose times one `SetTime` clips; the leader repeats the command until none is left.
pub const TIME_RECORDS_CLIPPED_MAX: u32 = 1_000;

/// Segments of a channel that one command drops; the leader repeats the command until none is left.
pub const CHANNEL_SEGMENTS_DROPPED_MAX: usize = 4_096;
/// Segments that one command lists for data nodes, beside those of its first channel; its further
/// channels are refused.
pub const LISTED_SEGMENTS_MAX: usize = 262_144;
/// Results of compactions, and results of those, that are dropped in place of one segment.
pub const COMPACTION_RESULTS_DROPPED_MAX: usize = 4_096;

/// Digests of check entries that a node remembers, for the leader to ask for.
pub const DIGEST_CHECKS_KEPT: usize = 16;

/// Rows of history are near each other where no more revisions lie between: a scan passes them
/// faster than a search finds the next.
pub(crate) const SCAN_GAP_MAX: i64 = 8;
/// Rows near each other that are worth a scan.
pub(crate) const SCAN_ROWS_MIN: usize = 8;
/// Rows of a scan share buffers of about this size.
pub(crate) const SHARED_ROWS_BYTES: usize = 64 << 10;
/// Pairs that are read at once while views are built of all of them.
pub(crate) const LOADED_PAIRS: usize = 8192;

/// Changes that are taken back to make the index of a past revision; older revisions are read row
/// by row.
pub const PAST_IMAGE_CHANGES_MAX: usize = 1_000_000;
/// Bytes of changed keys that are held while the index of a past revision is made.
pub const PAST_IMAGE_KEY_BYTES_MAX: usize = 64 << 20;

/// Keys in one block of the index.
pub(crate) const BLOCK_KEYS_MAX: usize = 128;
/// A block below this looks for a neighbour to merge with.
pub(crate) const BLOCK_KEYS_MIN: usize = 32;
/// Free places a full block's arrays grow by.
pub(crate) const BLOCK_GROWTH_KEYS: usize = 16;
/// Blocks in one group of the index.
pub(crate) const GROUP_BLOCKS_MAX: usize = 128;
pub(crate) const GROUP_BLOCKS_MIN: usize = 32;

#[cfg(test)]
mod tests {
    /// Constants of this file that refuse, delay and cut nothing that a person could meet.
    const NOT_A_BOUND: &[&str] = &[
        "RETENTION_REVISIONS_DEFAULT",
        "RETENTION_MS_DEFAULT",
        "ROOT_PATH_DEFAULT",
        "DIGEST_CHECKS_KEPT",
    ];

    #[test]
    fn every_bound_has_a_row_on_the_page_for_people() {
        let page = include_str!("../../docs/limits.md");
        let names = include_str!("limits.rs").lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("pub const ")?.split_once(':')?;
            Some(name)
        });
        let missing: Vec<_> = names
            .filter(|name| !NOT_A_BOUND.contains(name))
            .filter(|name| !page.contains(&format!("`{name}`")))
            .collect();
        assert_eq!(missing, Vec::<&str>::new(), "without a row in docs/limits.md");
    }
}
