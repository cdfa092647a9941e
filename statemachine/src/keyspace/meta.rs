//! What is known of a live key without reading its value.

use crate::ids::EventId;
use crate::limits;

/// The newest version of a key, without key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMeta {
    pub mod_revision: i64,
    pub create_revision: i64,
    pub version: i64,
    /// 0: none.
    pub lease: i64,
    pub hash: RecordHash,
    pub sub: u32,
    pub value_bytes: u32,
}

impl KeyMeta {
    pub fn event_id(&self) -> EventId {
        EventId { revision: self.mod_revision, sub: self.sub }
    }

    /// What the version counts against the quota.
    pub(crate) fn cost_bytes(&self, key: &[u8]) -> u64 {
        version_cost_bytes(key.len(), self.value_bytes as usize)
    }
}

pub(crate) fn version_cost_bytes(key_bytes: usize, value_bytes: usize) -> u64 {
    limits::VERSION_COST_BYTES + key_bytes as u64 + value_bytes as u64
}

/// 128-bit hash of a record. Two words and not one `u128`, whose alignment would cost the index
/// eight bytes a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHash {
    high: u64,
    low: u64,
}

impl RecordHash {
    pub fn to_u128(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.to_u128().to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> RecordHash {
        RecordHash::from(u128::from_be_bytes(bytes))
    }
}

impl From<u128> for RecordHash {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    fn from(hash: u128) -> RecordHash {
        RecordHash { high: (hash >> 64) as u64, low: hash as u64 }
    }
}
