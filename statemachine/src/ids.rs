//! Names of things that cross a crate's border.

/// A command's name for ever: the node that took it, which start of that node, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    pub origin: u64,
    /// Counts the origin's starts; 0 only on the registration that asks for it.
    pub epoch: u64,
    pub seq: u64,
}

/// Where one change of one key stands in history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub revision: i64,
    /// Position among the changes of the same revision.
    pub sub: u32,
}

impl EventId {
    /// The place before every change of `revision`.
    pub fn first_of(revision: i64) -> EventId {
        EventId { revision, sub: 0 }
    }
}

/// Index, term and proposing node of a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    pub index: u64,
    pub term: u64,
    pub node: u64,
}
