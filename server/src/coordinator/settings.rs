//! What the operator configured for the coordinator, in the names and units of Milvus's
//! `dataCoord.*` keys. Part of no replicated state: it decides what is proposed, never how it
//! applies.

use std::time::Duration;

use super::allowed::Allowed;

/// Where object files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// `common.storageType: local`; the path is `localStorage.path`.
    Local { path: String },
    /// Any S3 API.
    Remote(RemoteStorage),
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct RemoteStorage {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) use_ssl: bool,
    pub(crate) bucket: String,
    /// Without slashes at either end.
    pub(crate) root_path: String,
    pub(crate) use_iam: bool,
    pub(crate) cloud_provider: String,
    pub(crate) iam_endpoint: String,
    pub(crate) region: String,
    pub(crate) use_virtual_host: bool,
    /// Ours: we name the bucket in the host; `use_virtual_host`, or the provider takes nothing else.
    pub(crate) has_bucket_in_host: bool,
    pub(crate) request_timeout: Duration,
}

/// Defaults are those of the shipped milvus.yaml, but for those that are ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CoordinatorSettings {
    /// Under which Milvus reaches this node's coordinator API, HOST:PORT.
    pub(crate) address: String,
    /// `msgChannel.chanNamePrefix.cluster`; also the cluster id of index jobs.
    pub(crate) cluster: String,
    /// `etcd.rootPath`, where the operator gave it. The replicated setting wins once the role is on.
    pub(crate) root_path: Option<String>,
    /// Names of message channels that old callers ask for, without the cluster.
    pub(crate) time_tick_channel: String,
    pub(crate) statistics_channel: String,
    pub(crate) segment_info_channel: String,
    pub(crate) session_ttl: Duration,
    pub(crate) storage: Storage,

    pub(crate) segment_max_size_mb: i64,
    pub(crate) disk_segment_max_size_mb: i64,
    pub(crate) seal_proportion: f64,
    pub(crate) assignment_expiration: Duration,
    pub(crate) segment_max_life: Duration,
    pub(crate) segment_max_idle: Duration,
    pub(crate) min_size_from_idle_mb: i64,
    pub(crate) max_binlog_files: u32,
    /// `sealPolicy.channel.growingSegmentsMemSize`, a key of later versions: size of a channel's
    /// growing segments.
    pub(crate) channel_growing_max_mb: i64,
    /// Ours: part of a segment that assignment leaves free, 0.1 by default.
    pub(crate) segment_reserve: f64,
    pub(crate) import_task_expiration: Duration,

    /// Ours: with fewer data nodes compaction pauses, and segments are sealed earlier.
    pub(crate) data_nodes_min: usize,
    pub(crate) watch_timeout: Duration,
    pub(crate) balance_silent: Duration,
    pub(crate) balance_interval: Duration,
    pub(crate) auto_balance: bool,

    pub(crate) enable_compaction: bool,
    pub(crate) enable_auto_compaction: bool,
    pub(crate) index_based_compaction: bool,
    pub(crate) compaction_rpc_timeout: Duration,
    pub(crate) compaction_parallel_max: usize,
    pub(crate) compaction_per_worker_max: usize,
    pub(crate) compaction_min_segments: usize,
    pub(crate) compaction_max_segments: usize,
    pub(crate) compaction_timeout: Duration,
    pub(crate) compaction_check_interval: Duration,
    pub(crate) compaction_global_interval: Duration,
    pub(crate) small_proportion: f64,
    pub(crate) compactable_proportion: f64,
    pub(crate) expansion_rate: f64,
    pub(crate) single_ratio: f64,
    pub(crate) single_delta_size_bytes: i64,
    pub(crate) single_expired_size_bytes: i64,
    pub(crate) single_delta_files_max: u32,
    pub(crate) binlog_max_size_bytes: i64,
    /// `common.entityExpiration`; `None`: rows live for ever.
    pub(crate) entity_expiration: Option<Duration>,
    pub(crate) auto_upgrade_index: bool,

    pub(crate) enable_gc: bool,
    pub(crate) gc_interval: Duration,
    pub(crate) gc_missing_tolerance: Duration,
    pub(crate) gc_drop_tolerance: Duration,
    pub(crate) gc_remove_concurrent: usize,
    /// Ours: files deleted in a second at most.
    pub(crate) gc_removes_per_s: u32,
    /// Ours: reports what would go and removes nothing.
    pub(crate) gc_dry_run: bool,

    pub(crate) index_min_rows: i64,
    pub(crate) index_scheduler_interval: Duration,
    /// `indexCoord.bindIndexNodeMode`: address and node id of the only index node.
    pub(crate) bound_index_node: Option<(String, i64)>,
    /// Ours: `indexCoord.allowedNodes`.
    pub(crate) allowed_index_nodes: Allowed,
    /// All of these by the key of Milvus, for people; secrets are hidden.
    pub(crate) effective: Vec<(&'static str, String)>,
}

impl Default for CoordinatorSettings {
    fn default() -> CoordinatorSettings {
        let s = Duration::from_secs;
        CoordinatorSettings {
            address: "127.0.0.1:13333".to_owned(),
            cluster: "by-dev".to_owned(),
            root_path: None,
            time_tick_channel: "datacoord-timetick-channel".to_owned(),
            statistics_channel: "datacoord-statistics-channel".to_owned(),
            segment_info_channel: "segment-info-channel".to_owned(),
            session_ttl: s(30),
            storage: Storage::Local { path: "/var/lib/milvus/data".to_owned() },
            segment_max_size_mb: 512,
            disk_segment_max_size_mb: 2048,
            seal_proportion: 0.23,
            assignment_expiration: Duration::from_millis(2000),
            segment_max_life: s(86_400),
            segment_max_idle: s(600),
            min_size_from_idle_mb: 16,
            max_binlog_files: 32,
            channel_growing_max_mb: 4096,
            segment_reserve: 0.1,
            import_task_expiration: s(900),
            data_nodes_min: 1,
            watch_timeout: s(300),
            balance_silent: s(300),
            balance_interval: s(360),
            auto_balance: true,
            enable_compaction: true,
            enable_auto_compaction: true,
            index_based_compaction: true,
            compaction_rpc_timeout: s(10),
            compaction_parallel_max: 100,
            compaction_per_worker_max: 2,
            compaction_min_segments: 3,
            compaction_max_segments: 30,
            compaction_timeout: s(900),
            compaction_check_interval: s(10),
            compaction_global_interval: s(60),
            small_proportion: 0.5,
            compactable_proportion: 0.85,
            expansion_rate: 1.25,
            single_ratio: 0.2,
            single_delta_size_bytes: 2 << 20,
            single_expired_size_bytes: 10 << 20,
            single_delta_files_max: 200,
            binlog_max_size_bytes: 64 << 20,
            entity_expiration: None,
            auto_upgrade_index: false,
            enable_gc: true,
            gc_interval: s(3600),
            gc_missing_tolerance: s(3600),
            gc_drop_tolerance: s(10_800),
            gc_remove_concurrent: 32,
            gc_removes_per_s: 1000,
            gc_dry_run: false,
            index_min_rows: 1024,
            index_scheduler_interval: s(1),
            bound_index_node: None,
            allowed_index_nodes: Allowed::default(),
            effective: Vec::new(),
        }
    }
}

impl CoordinatorSettings {
    /// What every path of an object file begins with, as Milvus writes them: the root path and a
    /// slash, or nothing where files lie in the root of a bucket.
    pub(crate) fn storage_prefix(&self) -> String {
        match (&self.storage, self.storage_root()) {
            (Storage::Remote(_), "") => String::new(),
            (Storage::Remote(_) | Storage::Local { .. }, root) => format!("{root}/"),
        }
    }

    /// The root path itself.
    pub(crate) fn storage_root(&self) -> &str {
        match &self.storage {
            Storage::Local { path } => path.trim_end_matches('/'),
            Storage::Remote(remote) => &remote.root_path,
        }
    }
}
