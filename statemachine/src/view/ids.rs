//! Numbers that Milvus gives its things, each a type of its own.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta] $name:ident,)*) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }
    )*};
}

id! {
    /// A running Milvus process, never used twice.
    ServerId,
    /// A database.
    DatabaseId,
    /// A collection.
    CollectionId,
    /// A partition.
    PartitionId,
    /// A field within its collection; user fields count from 100.
    FieldId,
    /// A segment, never used twice.
    SegmentId,
    /// The definition of an index.
    IndexId,
    /// The build of an index over one segment.
    BuildId,
    /// A compaction plan.
    PlanId,
}

impl ServerId {
    /// The owner of channels that no node has: stock DataCoord calls it the buffer.
    pub const NOBODY: ServerId = ServerId(i64::MIN);
}

impl DatabaseId {
    /// `default`, which RootCoord creates at its first start.
    pub const DEFAULT: DatabaseId = DatabaseId(1);
}

/// Reads a decimal number, but only as Milvus writes it: no plus sign, no leading zeros.
///
/// So two different keys never name the same row.
pub fn canonical_i64(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.starts_with('+') || digits.is_empty() {
        return None;
    }
    if digits.starts_with('0') && text != "0" {
        return None;
    }
    text.parse().ok()
}
