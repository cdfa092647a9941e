//! What waits to be collected.

use std::collections::BTreeMap;

use proto::admin::Sheet;
use statemachine::State;
use statemachine::view::{CollectionId, SegmentId};

use super::{Filter, LAST_TIME_MS, collection_name, sheet, time, unix_ms};

#[derive(Default)]
struct Heap {
    segments: usize,
    bytes: i64,
    oldest_ms: u64,
    indexes: usize,
}

/// Dropped things by collection.
pub(super) fn list(state: &State, filter: &Filter) -> Sheet {
    let views = state.views();
    let mut heaps: BTreeMap<CollectionId, Heap> = BTreeMap::new();
    for (id, segment) in views.segments().dropped_after(SegmentId(i64::MIN)) {
        let heap = heaps.entry(segment.collection).or_default();
        heap.segments += 1;
        heap.bytes += views.segments().logs(id).map_or(0, |logs| logs.size_bytes());
        let dropped_ms = segment.dropped_at_ns / 1_000_000;
        if heap.oldest_ms == 0 || (dropped_ms > 0 && dropped_ms < heap.oldest_ms) {
            heap.oldest_ms = dropped_ms;
        }
    }
    for ((collection, _), definition) in views.indexes().definitions().decoded() {
        if definition.is_deleted {
            heaps.entry(*collection).or_default().indexes += 1;
        }
    }
    let rows = heaps
        .into_iter()
        .filter(|(collection, _)| filter.collection.is_none_or(|wanted| *collection == wanted))
        .take(filter.limit)
        .map(|(collection, heap)| {
            vec![
                collection.to_string(),
                collection_name(views, collection),
                heap.segments.to_string(),
                heap.bytes.to_string(),
                time(heap.oldest_ms),
                heap.indexes.to_string(),
            ]
        })
        .collect();
    let columns =
        ["collection", "name", "dropped segments", "bytes", "oldest drop", "dropped indexes"];
    sheet(&columns, rows, notes(state))
}

/// That nothing is collected, where that is so.
pub(super) fn notes(state: &State) -> Vec<String> {
    if state.settings().garbage_held {
        let note = "garbage collection waits since a restore: files that were written after the \
                    backup are named by no record; `quorate gc dry-run` shows what would go, `quorate \
                    gc resume` goes on";
        return vec![note.to_owned()];
    }
    let pause = state.views().garbage();
    if !pause.holds_at(unix_ms()) {
        return Vec::new();
    }
    let until = match pause.until_ms {
        until_ms if until_ms <= LAST_TIME_MS => format!(" until {}", time(until_ms)),
        _ => String::new(),
    };
    vec![format!("garbage collection is paused{until}; `quorate gc resume` goes on")]
}
