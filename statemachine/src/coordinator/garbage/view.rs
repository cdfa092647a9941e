//! View of the pause of garbage collection.

use std::fmt;

use prost::Message;
use proto::{etcd, quorate};

/// Until when nothing is collected. A record that does not decode pauses for ever: somebody wrote
/// it, and files that are gone do not come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbagePause {
    /// Leader time, Unix milliseconds; 0 for none.
    pub until_ms: u64,
}

impl GarbagePause {
    pub fn holds_at(self, at_ms: u64) -> bool {
        at_ms < self.until_ms
    }

    pub(crate) fn put(&mut self, kv: &etcd::KeyValue) {
        self.until_ms = quorate::GarbageControl::decode(&kv.value[..])
            .map_or(u64::MAX, |control| control.paused_until_ms);
    }

    pub(crate) fn delete(&mut self) {
        self.until_ms = 0;
    }
}

impl fmt::Display for GarbagePause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until_ms {
            0 => Ok(()),
            until_ms => writeln!(out, "garbage collection paused until {until_ms}"),
        }
    }
}
