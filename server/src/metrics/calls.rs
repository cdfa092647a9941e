//! How many calls came, how long each took to its first answer, and how many were refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::page::Page;

/// Methods that are measured. All others are `other`.
const METHODS: [(&str, &str); 36] = [
    ("/etcdserverpb.KV/Range", "range"),
    ("/etcdserverpb.KV/Put", "put"),
    ("/etcdserverpb.KV/DeleteRange", "delete_range"),
    ("/etcdserverpb.KV/Txn", "txn"),
    ("/etcdserverpb.KV/Compact", "compact"),
    ("/etcdserverpb.Watch/Watch", "watch"),
    ("/etcdserverpb.Lease/LeaseGrant", "lease_grant"),
    ("/etcdserverpb.Lease/LeaseRevoke", "lease_revoke"),
    ("/etcdserverpb.Lease/LeaseKeepAlive", "lease_keep_alive"),
    ("/etcdserverpb.Lease/LeaseTimeToLive", "lease_time_to_live"),
    ("/etcdserverpb.Lease/LeaseLeases", "lease_leases"),
    ("/etcdserverpb.Cluster/MemberList", "member_list"),
    ("/etcdserverpb.Maintenance/Status", "status"),
    ("/etcdserverpb.Maintenance/Alarm", "alarm"),
    ("/etcdserverpb.Maintenance/HashKV", "hash_kv"),
    ("/etcdserverpb.Maintenance/Snapshot", "snapshot"),
    ("/etcdserverpb.Maintenance/MoveLeader", "move_leader"),
    ("/etcdserverpb.Maintenance/Defragment", "defragment"),
    ("/quorate.admin.v1.Admin/Status", "admin_status"),
    ("/quorate.admin.v1.Admin/Backup", "admin_backup"),
    ("/quorate.admin.v1.Admin/Digest", "admin_digest"),
    ("/quorate.admin.v1.Admin/Transfer", "admin_transfer"),
    ("/grpc.health.v1.Health/Check", "health_check"),
    ("/milvus.proto.data.DataCoord/AssignSegmentID", "assign_segment_id"),
    ("/milvus.proto.data.DataCoord/ReportDataNodeTtMsgs", "report_data_node_tt_msgs"),
    ("/milvus.proto.data.DataCoord/SaveBinlogPaths", "save_binlog_paths"),
    ("/milvus.proto.data.DataCoord/UpdateChannelCheckpoint", "update_channel_checkpoint"),
    ("/milvus.proto.data.DataCoord/Flush", "flush"),
    ("/milvus.proto.data.DataCoord/GetFlushState", "get_flush_state"),
    ("/milvus.proto.data.DataCoord/GetSegmentInfo", "get_segment_info"),
    ("/milvus.proto.data.DataCoord/GetRecoveryInfoV2", "get_recovery_info_v2"),
    ("/milvus.proto.data.DataCoord/GetIndexInfos", "get_index_infos"),
    ("/milvus.proto.data.DataCoord/DescribeIndex", "describe_index"),
    ("/milvus.proto.data.DataCoord/GetMetrics", "get_metrics"),
    ("/milvus.proto.data.DataCoord/GetComponentStates", "get_component_states"),
    ("", "other"),
];
const OTHER: usize = METHODS.len() - 1;

/// Buckets double from 64 us; the last one ends at about 134 s.
const BUCKETS: usize = 22;
const FIRST_BUCKET_US: u64 = 64;

/// One set of figures per method.
pub(crate) struct Calls {
    methods: [Method; METHODS.len()],
}

impl Default for Calls {
    fn default() -> Calls {
        // Arrays of this length do not implement it.
        Calls { methods: std::array::from_fn(|_| Method::default()) }
    }
}

#[derive(Default)]
struct Method {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
    refused: AtomicU64,
}

/// A call that is under way.
pub(crate) struct Call {
    method: usize,
    began: Instant,
}

impl Calls {
    /// `None` for paths that are no gRPC method.
    pub(crate) fn begin(&self, path: &str) -> Option<Call> {
        // The most frequent come first in the table.
        let method = match METHODS.iter().position(|(known, _)| *known == path) {
            Some(method) => method,
            None if path.contains('.') => OTHER,
            None => return None,
        };
        Some(Call { method, began: Instant::now() })
    }

    /// A gRPC refusal travels in the headers; what a stream meets later is not counted.
    pub(crate) fn end(&self, call: &Call, headers: &HeaderMap) {
        let method = &self.methods[call.method];
        let us = u64::try_from(call.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = us.div_ceil(FIRST_BUCKET_US).max(1).next_power_of_two().trailing_zeros();
        let bucket = usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1);
        method.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        method.sum_us.fetch_add(us, Ordering::Relaxed);
        if headers.get("grpc-status").is_some_and(|status| status != "0") {
            method.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn write(&self, page: &mut Page) {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        for ((_, name), method) in METHODS.iter().zip(&self.methods) {
            let buckets: Vec<(Duration, u64)> = method
                .buckets
                .iter()
                .enumerate()
                .map(|(place, count)| {
                    (Duration::from_micros(FIRST_BUCKET_US << place), load(count))
                })
                .collect();
            // A method that nobody calls would only fill the page.
            if buckets.iter().all(|(_, count)| *count == 0) {
                continue;
            }
            page.histogram(
                "quorate_rpc_first_answer_seconds",
                "From the request to the first answer",
                &[("method", name)],
                &buckets,
                Duration::from_micros(load(&method.sum_us)),
            );
        }
        for ((_, name), method) in METHODS.iter().zip(&self.methods) {
            if load(&method.refused) > 0 {
                page.counter(
                    "quorate_rpc_refused_total",
                    "Calls that were answered with an error",
                    &[("method", name)],
                    load(&method.refused),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_lands_in_the_bucket_of_its_time() {
        let calls = Calls::default();
        let at = |age: Duration| Call {
            method: 0,
            began: Instant::now().checked_sub(age).expect("the machine runs longer than that"),
        };
        calls.end(&at(Duration::from_millis(1)), &HeaderMap::new());
        let place = calls.methods[0]
            .buckets
            .iter()
            .position(|count| count.load(Ordering::Relaxed) == 1)
            .expect("it was counted");
        let bound = Duration::from_micros(FIRST_BUCKET_US << place);
        assert!(
            bound >= Duration::from_millis(1) && bound <= Duration::from_millis(4),
            "{bound:?}"
        );
    }

    #[test]
    fn pages_are_no_calls() {
        let calls = Calls::default();
        assert!(calls.begin("/metrics").is_none());
        assert!(calls.begin("/etcdserverpb.KV/Range").is_some());
        assert!(calls.begin("/etcdserverpb.Unknown/Method").is_some());
    }
}
