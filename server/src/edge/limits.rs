//! Every bound of the edge in one place. docs/limits.md lists them for operators.

use std::time::Duration;

/// Bytes make sense or a request has begun within this time, or the connection ends.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Head of a request of HTTP/1: it is complete within this time, also of the next one.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// Streams of one connection at once. etcd has no bound; its own benchmark with a thousand clients
/// shares one connection for a hundred of them.
pub(crate) const STREAMS_MAX: u32 = 32_768;

/// Connections that are turned away are told so, this many at once; the others just end.
pub(crate) const REFUSALS_MAX: usize = 64;
/// For each of them.
pub(crate) const REFUSAL_WITHIN: Duration = Duration::from_secs(1);

/// Files of the process that are none of a listener: the tables (512), the log, snapshots that are
/// made, sent and received, backups, the connections that this node makes. Where files are few,
/// half of them are left.
pub(crate) const FILES_RESERVED: u64 = 2_048;
/// Bytes of requests of one listener that are being received.
pub(crate) const CLIENT_INTAKE_BYTES_MAX: usize = 128 << 20;
pub(crate) const COORDINATOR_INTAKE_BYTES_MAX: usize = 192 << 20;
pub(crate) const HTTP_INTAKE_BYTES_MAX: usize = 8 << 20;

/// Large answers of the etcd API that are being read or sent, as counted for the largest range.
pub(crate) const CLIENT_OUTFLOW_BYTES_MAX: u64 = statemachine::limits::RANGE_ANSWER_BYTES_MAX;

/// A request is complete within this time, and what it takes to send it at 64 KiB/s.
pub(crate) const INTAKE_WITHIN: Duration = Duration::from_secs(30);

/// One request to the coordinator. Stock takes 256 MiB; the largest that a Milvus sends, the log
/// paths of a segment or the statistics of all segments of a node, has a few.
pub(crate) const COORDINATOR_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Elements of one request to the coordinator, whatever their kind.
pub(crate) const COORDINATOR_ELEMENTS_MAX: usize = 1 << 18;
/// Elements of one request to the etcd API: sixteen times what 2,048 operations need.
pub(crate) const CLIENT_ELEMENTS_MAX: usize = 1 << 16;

/// Connections of each listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) client: usize,
    pub(crate) coordinator: usize,
    pub(crate) http: usize,
    pub(crate) peer: usize,
}

/// Where files do not bound them further. A Milvus process holds six connections to its etcd.
const CONNECTIONS_MAX: Connections =
    Connections { client: 16_384, coordinator: 8_192, http: 512, peer: 256 };

impl Connections {
    /// What `n_files` leave room for.
    pub(crate) fn of_files(n_files: u64) -> Connections {
        let reserved = FILES_RESERVED.min(n_files / 2);
        let left = usize::try_from(n_files.saturating_sub(reserved)).unwrap_or(usize::MAX);
        // In the proportion of the bounds themselves.
        let all = CONNECTIONS_MAX;
        let total = all.client + all.coordinator + all.http + all.peer;
        let share = |max: usize| max.min((left.saturating_mul(max) / total).max(16));
        Connections {
            client: share(all.client),
            coordinator: share(all.coordinator),
            http: share(all.http),
            peer: share(all.peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_store() {
        assert_eq!(Connections::of_files(1 << 20), CONNECTIONS_MAX);
        for n_files in [256, 1024, 4096, 16_384, 65_536, 524_288] {
            let connections = Connections::of_files(n_files);
            let total =
                connections.client + connections.coordinator + connections.http + connections.peer;
            let left = n_files - FILES_RESERVED.min(n_files / 4);
            assert!(total as u64 <= left, "{n_files}: {connections:?}");
            assert!(connections.client >= 64, "{n_files}: {connections:?}");
        }
    }
}
