//! Everything about the state that is one number.

use crate::digest::{self, Digests};
use crate::settings::Settings;
use crate::versions;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) revision: i64,
    /// 0: nothing was ever compacted.
    pub(crate) compacted_revision: i64,
    pub(crate) at_ms: u64,
    pub(crate) last_index: u64,
    pub(crate) digests: Digests,
    pub(crate) live_bytes: u64,
    pub(crate) superseded_bytes: u64,
    pub(crate) superseded_at_compacted_bytes: u64,
    pub(crate) level: u32,
    /// How often cluster time was set back.
    pub(crate) time_epoch: u64,
}

impl Counters {
    /// A fresh store stands at revision 1, so that the first write gets 2, as in etcd.
    pub(crate) fn fresh() -> Counters {
        Counters {
            revision: 1,
            compacted_revision: 0,
            at_ms: 0,
            last_index: 0,
            digests: Digests { content: digest::settings_hash(&Settings::default()), chain: 0 },
            live_bytes: 0,
            superseded_bytes: 0,
            superseded_at_compacted_bytes: 0,
            level: versions::FOUNDING_LEVEL,
            time_epoch: 0,
        }
    }

    /// What the quota bounds: live keys and leases, and versions that are not compacted yet.
    pub(crate) fn logical_bytes(&self) -> u64 {
        self.live_bytes + self.superseded_bytes - self.superseded_at_compacted_bytes
    }

    pub(crate) fn add_content(&mut self, hash: u128) {
        self.digests.content = self.digests.content.wrapping_add(hash);
    }

    pub(crate) fn subtract_content(&mut self, hash: u128) {
        self.digests.content = self.digests.content.wrapping_sub(hash);
    }
}
