//! Rows of events that were read lately, without a way through blocks and filters.
//!
//! An event never changes, so a row is right for as long as somebody asks for it: whoever has a
//! place of an event has it from an index of the same state.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What an entry costs beside its row, about.
const ENTRY_BYTES: usize = 96;
/// Larger rows would push out many small ones, and save little of their reading.
const ROW_BYTES_MAX: usize = 16 << 10;
/// Rows of this size are expected on average.
const ROW_BYTES_TYPICAL: usize = 256;

/// Revision and place in it, as the table has them.
type Key = [u8; 12];

#[derive(Clone)]
struct Bytewise;

impl Weighter<Key, Bytes> for Bytewise {
    fn weight(&self, _key: &Key, row: &Bytes) -> u64 {
        (row.len() + ENTRY_BYTES) as u64
    }
}

pub(super) struct RecentEvents {
    rows: Cache<Key, Bytes, Bytewise>,
}

impl RecentEvents {
    pub(super) fn new(bytes_max: usize) -> RecentEvents {
        let n_rows = bytes_max / (ENTRY_BYTES + ROW_BYTES_TYPICAL);
        RecentEvents { rows: Cache::with_weighter(n_rows, bytes_max as u64, Bytewise) }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.rows.get(<&Key>::try_from(key).ok()?)
    }

    pub(super) fn keep(&self, key: &[u8], row: &Bytes) {
        if let Ok(key) = Key::try_from(key)
            && row.len() <= ROW_BYTES_MAX
        {
            self.rows.insert(key, row.clone());
        }
    }
}
