//! The page of versions: every number by which binaries of different releases recognise each
//! other's bytes, and what a change of it was.
//!
//! A format has a range: the oldest version that this binary still reads, and the newest, which it
//! writes. Add a dated line for each change. Raise `newest` where an older binary could not read the
//! new bytes; raise `oldest` only where reading the old ones was given up.
//!
//! A *feature level* is another kind of number: it is replicated, and apply obeys it. What a log
//! entry means depends on the level that the cluster agreed on, never on the binary that applies it.

use std::fmt;

/// Versions of one format that this binary reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub oldest: u32,
    /// The one that this binary writes.
    pub newest: u32,
}

impl Versions {
    const fn new(oldest: u32, newest: u32) -> Versions {
        assert!(0 < oldest && oldest <= newest, "a range of versions begins above 0");
        Versions { oldest, newest }
    }

    /// Whether bytes of version `found` can be read.
    pub const fn contains(self, found: u32) -> bool {
        self.oldest <= found && found <= self.newest
    }

    /// The newest version that both sides know.
    pub fn shared_with(self, other: Versions) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (self.contains(newest) && other.contains(newest)).then_some(newest)
    }
}

/// As error messages name it: `version 2`, `versions 1 to 3`.
impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "version {}", self.newest),
            false => write!(f, "versions {} to {}", self.oldest, self.newest),
        }
    }
}

/// One log entry as bytes on disk; its first byte.
///
/// - 1, 2026-11-24: head, payload, CRC-32C over both and the index.
pub const LOG_ENTRY: Versions = Versions::new(1, 1);

/// Layout of the log's store: its families and the facts beside the entries.
///
/// - 1, 2026-11-24.
pub const LOG_STORE: Versions = Versions::new(1, 1);

/// Layout of the state's tables.
///
/// - 1, 2026-11-24.
pub const STATE: Versions = Versions::new(1, 1);

/// Text of the file that holds a node's identity.
///
/// - 2, 2026-11-29: number of starts; nonce and roster of a restored directory. 1 was never
///   released.
pub const IDENTITY: Versions = Versions::new(2, 2);

/// Manifest of a snapshot and its transfer.
///
/// - 1, 2026-11-24: table files with a digest each.
pub const SNAPSHOT: Versions = Versions::new(1, 1);

/// Release of RocksDB whose table files a snapshot holds: the receiver must be able to open them.
pub const SNAPSHOT_ROCKSDB: &str = "10.4";

/// What the nodes of a cluster say to each other (`raft.proto`, `ask.proto`). A caller sends its
/// range with each call; nodes whose ranges do not meet refuse each other.
///
/// - 1, 2026-11-24.
/// - 2, 2026-11-26: read indexes and confirmations over streams that stay open.
/// - 3, 2026-11-29: forwarded runs carry a checksum; a run can be refused; a call carries the range.
pub const PEER: Versions = Versions::new(3, 3);

/// Framing of a backup file; the last digit of its first eight bytes.
///
/// - 1, 2026-11-24: frames with a CRC-32C each, a digest of the file at its end.
pub const BACKUP_FRAMES: Versions = Versions::new(1, 1);

/// What the frames of a backup hold.
///
/// - 1, 2026-11-24: header, blocks of rows, trailer.
pub const BACKUP: Versions = Versions::new(1, 1);

/// The keyspace of etcd, leases, settings, digests.
pub const KEYSPACE: u32 = 1;
/// Commands of the coordinator.
pub const COORDINATOR: u32 = 2;
/// Bounds on the cost of commands, runs that are refused one by one, cluster time that can be set.
pub const HARDENING: u32 = 3;

/// The highest feature level that this binary understands.
pub const KNOWN_LEVEL: u32 = HARDENING;

/// The level of a cluster before its first `RaiseLevel`. Never changes after a release: the log of
/// such a cluster says nothing of it. Levels below are of states that were written before it.
///
/// - 2026-11-29: 3, because no cluster of a lower level was ever released.
pub const FOUNDING_LEVEL: u32 = HARDENING;

/// What a feature level brings to the meaning of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    /// The first level that has it.
    pub since: u32,
}

/// Everything that apply makes depend on the level. Command kinds and fields have a table of their
/// own, in `admission`.
pub const FEATURES: &[Feature] = &[
    // 2026-11-24
    Feature { name: "keyspace", since: KEYSPACE },
    // 2026-11-25
    Feature { name: "coordinator commands", since: COORDINATOR },
    // 2026-11-29
    Feature { name: "bounds on the cost of a command", since: HARDENING },
    Feature { name: "runs that are refused one by one", since: HARDENING },
    Feature { name: "cluster time that can be set back", since: HARDENING },
    Feature { name: "garbage collection that waits after a restore", since: HARDENING },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranges_meet_at_the_newest_version_of_both() {
        let range = Versions::new;
        assert_eq!(range(1, 3).shared_with(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).shared_with(range(1, 3)), Some(3));
        assert_eq!(range(2, 2).shared_with(range(1, 3)), Some(2));
        assert_eq!(range(1, 2).shared_with(range(3, 4)), None);
        assert_eq!(range(3, 4).shared_with(range(1, 2)), None);
    }

    #[test]
    fn a_range_names_itself() {
        assert_eq!(Versions::new(2, 2).to_string(), "version 2");
        assert_eq!(Versions::new(1, 3).to_string(), "versions 1 to 3");
    }

    #[test]
    fn features_are_of_known_levels_in_order() {
        assert!(FEATURES.is_sorted_by_key(|feature| feature.since));
        assert_eq!(FEATURES.last().map(|feature| feature.since), Some(KNOWN_LEVEL));
        assert!((1..=KNOWN_LEVEL).all(|level| FEATURES.iter().any(|one| one.since == level)));
    }
}
