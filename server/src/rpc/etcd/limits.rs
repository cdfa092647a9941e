//! Every bound of the etcd API in one place.

use std::time::Duration;

/// Room that a gRPC message may take beyond the request that it carries.
const MESSAGE_OVERHEAD_BYTES_MAX: usize = 512 * 1024;

/// Bounds and periods of the etcd API. The defaults are etcd's.
#[derive(Clone, Debug)]
pub struct EtcdLimits {
    /// Encoded size of one request.
    pub request_bytes_max: usize,
    /// How long a request may take where the client set no deadline of its own.
    pub request_timeout: Duration,
    /// Smaller times to live are raised to this.
    pub lease_ttl_s_min: i64,
    /// Larger times to live are refused.
    pub lease_ttl_s_max: i64,
    /// Period of progress notifications, each up to a tenth later.
    pub watch_progress_period: Duration,
    /// How long a stream that requires a leader may live without one.
    pub leaderless_max: Duration,
    /// Bytes of events that wait for one watch stream; beyond it watchers catch up from history.
    pub watch_stream_bytes_max: usize,
    /// Responses that wait for one watch stream.
    pub watch_stream_responses_max: usize,
    /// Answers to requests that wait for one watch stream; beyond it no request is read.
    pub watch_stream_answers_max: usize,
    /// Watchers of one watch stream.
    pub watch_stream_watchers_max: usize,
    /// Watchers of one member.
    pub watch_member_watchers_max: usize,
    /// Bytes of the keys that the watchers of one member name.
    pub watch_member_range_bytes_max: usize,
    /// Large reads that are in work at once.
    pub large_reads_max: usize,
    /// Writes over ranges of keys that are under way at once; others wait for them.
    pub wide_writes_max: usize,
    /// Pings of clients closer than this end their connection.
    pub keepalive_min: Duration,
    /// An idle connection is pinged after this time…
    pub keepalive_period: Duration,
    /// …and closed where no answer came within this.
    pub keepalive_timeout: Duration,
}

impl Default for EtcdLimits {
    fn default() -> Self {
        EtcdLimits {
            request_bytes_max: 1_572_864,
            request_timeout: Duration::from_secs(7),
            lease_ttl_s_min: 2,
            lease_ttl_s_max: 9_000_000_000,
            watch_progress_period: Duration::from_secs(600),
            leaderless_max: Duration::from_secs(3),
            watch_stream_bytes_max: 16 * 1024 * 1024,
            watch_stream_responses_max: 64 * 1024,
            watch_stream_answers_max: 4 * 1024,
            watch_stream_watchers_max: 50_000,
            watch_member_watchers_max: 250_000,
            watch_member_range_bytes_max: 64 * 1024 * 1024,
            large_reads_max: 4,
            wide_writes_max: 16,
            keepalive_min: Duration::from_secs(5),
            keepalive_period: Duration::from_secs(2 * 3600),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl EtcdLimits {
    /// Bound on a received message; a larger one is refused before it is read.
    pub fn message_bytes_max(&self) -> usize {
        self.request_bytes_max + MESSAGE_OVERHEAD_BYTES_MAX
    }
}
