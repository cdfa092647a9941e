//! Changes of keys, as watchers and views see them.

use bytes::Bytes;
use proto::etcd;

use crate::ids::EventId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub revision: i64,
    pub sub: u32,
    pub kind: EventKind,
    /// A delete carries only key and mod revision.
    pub kv: etcd::KeyValue,
    /// The version that this change replaced or deleted, for [`history::replaced`]; events read
    /// back from history do not know it.
    ///
    /// [`history::replaced`]: crate::history::replaced
    pub replaced: Option<EventId>,
}

impl Event {
    pub fn id(&self) -> EventId {
        EventId { revision: self.revision, sub: self.sub }
    }

    pub fn key(&self) -> &Bytes {
        &self.kv.key
    }

    /// Whether the key did not exist before.
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.create_revision == self.kv.mod_revision
    }
}
