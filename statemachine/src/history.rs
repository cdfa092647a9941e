//! Past changes: catching watchers up, and pairs as they were before a change.

use std::ops::ControlFlow;

use bytes::Bytes;
use proto::etcd;

use crate::event::{Event, EventKind};
use crate::ids::EventId;
use crate::kv::past;
use crate::limits;
use crate::store::{Direction, Fault, StateRead, Table};
use crate::table::event::{self, EventRow};

/// How much of history to read at once. At least one revision is read whatever it takes.
#[derive(Clone, Copy, Debug)]
pub struct HistoryBudget {
    pub events_max: usize,
    /// Of keys and values.
    pub bytes_max: usize,
}

/// A part of history.
#[derive(Clone, Debug)]
pub struct History {
    pub events: Vec<Event>,
    /// Where to go on; above the wanted end when all was read. No revision is ever split.
    pub next_revision: i64,
}

/// Changes from one revision to another, both inclusive, that `wants` lets pass by key.
///
/// Invariant: `from_revision` is not below the compacted revision; the caller checks it against the
/// same image that it reads.
///
/// # Errors
/// A fault of the storage.
pub fn events(
    store: &dyn StateRead,
    from_revision: i64,
    to_revision: i64,
    budget: HistoryBudget,
    wants: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<History, Fault> {
    let mut history = History { events: Vec::new(), next_revision: to_revision.saturating_add(1) };
    let start = event::encode_key(EventId::first_of(from_revision.max(0)));
    let end = event::encode_key(EventId::first_of(to_revision.saturating_add(1)));
    // Rows that are looked at cost too, so that a rare filter does not read all history at once.
    let (mut n_rows, mut bytes) = (0, 0);
    let mut last_revision = None;
    store.scan(Table::Event, &start, Some(&end), Direction::Forward, &mut |row_key, row| {
        let id = event::decode_key(row_key)?;
        let is_full = n_rows >= budget.events_max || bytes >= budget.bytes_max;
        if is_full && last_revision.is_some_and(|last| last != id.revision) {
            history.next_revision = id.revision;
            return Ok(ControlFlow::Break(()));
        }
        last_revision = Some(id.revision);
        n_rows += 1;
        let row = EventRow::parse(row)?;
        bytes += row.key().len() + row.value().len();
        if wants(row.key()) {
            let kind = if row.is_tombstone() { EventKind::Delete } else { EventKind::Put };
            let kv = row.key_value_copied(id.revision);
            history.events.push(Event {
                revision: id.revision,
                sub: id.sub,
                kind,
                kv,
                replaced: None,
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(history)
}

/// Whether the moment just before `revision` is compacted away. A change at the compacted revision
/// is still in history, but the pair before it must not be shown: each node deletes that row when
/// it gets to it, so two nodes would answer differently.
pub fn is_before_compacted(revision: i64, compacted_revision: i64) -> bool {
    revision <= compacted_revision
}

/// The pair as it was just before `revision`, if the key lived then. `None` where that moment is
/// compacted away, whether or not its row is still there.
///
/// # Errors
/// A fault of the storage.
pub fn previous(
    store: &dyn StateRead,
    key: &[u8],
    revision: i64,
    compacted_revision: i64,
) -> Result<Option<etcd::KeyValue>, Fault> {
    if is_before_compacted(revision, compacted_revision) {
        return Ok(None);
    }
    let Some(meta) = past::get(store, key, revision.saturating_sub(1))? else { return Ok(None) };
    fetch(store, meta.event_id())
}

/// The pair that an event replaced, by the place that the event knows. `None` where it replaced
/// none, or where the moment before it is compacted away.
///
/// # Errors
/// A fault of the storage.
pub fn replaced(
    store: &dyn StateRead,
    event: &Event,
    compacted_revision: i64,
) -> Result<Option<etcd::KeyValue>, Fault> {
    match event.replaced {
        Some(id) if !is_before_compacted(event.revision, compacted_revision) => fetch(store, id),
        Some(_) | None => Ok(None),
    }
}

/// The pair that one change wrote; `None` where it is compacted away.
///
/// # Errors
/// A fault of the storage.
pub fn fetch(store: &dyn StateRead, id: EventId) -> Result<Option<etcd::KeyValue>, Fault> {
    let Some(shared) = store.get(Table::Event, &event::encode_key(id))? else { return Ok(None) };
    let pair = EventRow::parse(&shared)?.key_value(id.revision, &shared);
    Ok(Some(pair))
}

/// A pair that must be there, because the index says so.
pub(crate) fn pair(store: &dyn StateRead, id: EventId) -> Result<etcd::KeyValue, Fault> {
    fetch(store, id)?.ok_or_else(|| missing(id))
}

/// Pairs that must be there, in the given order. Those that were written one after the other, as
/// keys that are loaded in order are, cost a step of a scan each instead of a search.
pub fn pairs(store: &dyn StateRead, ids: &[EventId]) -> Result<Vec<etcd::KeyValue>, Fault> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|nth| ids[*nth]);
    let mut found = vec![None; ids.len()];
    let mut scattered = Vec::new();
    let are_near = |one: &usize, next: &usize| {
        ids[*next].revision - ids[*one].revision <= limits::SCAN_GAP_MAX
    };
    for near in order.chunk_by(are_near) {
        if near.len() < limits::SCAN_ROWS_MIN {
            scattered.extend_from_slice(near);
        } else {
            scan_pairs(store, ids, near, &mut found)?;
        }
    }
    let keys: Vec<_> = scattered.iter().map(|nth| event::encode_key(ids[*nth])).collect();
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; event::KEY_BYTES]>::as_slice).collect();
    for (nth, row) in scattered.iter().zip(store.get_many(Table::Event, &keys)?) {
        let shared = row.ok_or_else(|| missing(ids[*nth]))?;
        let pair = EventRow::parse(&shared)?.key_value(ids[*nth].revision, &shared);
        found[*nth] = Some(pair);
    }
    let pair = |(id, found): (&EventId, Option<etcd::KeyValue>)| found.ok_or_else(|| missing(*id));
    ids.iter().zip(found).map(pair).collect()
}

/// Finds the pairs at the places `near` of `ids`, which ascend there, by one scan.
fn scan_pairs(
    store: &dyn StateRead,
    ids: &[EventId],
    near: &[usize],
    found: &mut [Option<etcd::KeyValue>],
) -> Result<(), Fault> {
    let (Some(first), Some(last)) = (near.first(), near.last()) else { return Ok(()) };
    let start = event::encode_key(ids[*first]);
    let end = event::encode_key(EventId::first_of(ids[*last].revision.saturating_add(1)));
    let mut wanted = near.iter().copied().peekable();
    // Rows share buffers, so that one costs no allocation of its own.
    let (mut text, mut rows) = (Vec::new(), Vec::new());
    store.scan(Table::Event, &start, Some(&end), Direction::Forward, &mut |row_key, row| {
        let id = event::decode_key(row_key)?;
        while let Some(nth) = wanted.next_if(|nth| ids[*nth] == id) {
            rows.push((nth, text.len()..text.len() + row.len()));
            text.extend_from_slice(row);
        }
        if text.len() >= limits::SHARED_ROWS_BYTES {
            share_rows(&mut text, &mut rows, ids, found)?;
        }
        let is_done = wanted.peek().is_none();
        Ok(if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    share_rows(&mut text, &mut rows, ids, found)
}

fn share_rows(
    text: &mut Vec<u8>,
    rows: &mut Vec<(usize, std::ops::Range<usize>)>,
    ids: &[EventId],
    found: &mut [Option<etcd::KeyValue>],
) -> Result<(), Fault> {
    let shared = Bytes::from(std::mem::take(text));
    for (nth, place) in rows.drain(..) {
        let row = shared.slice(place);
        found[nth] = Some(EventRow::parse(&row)?.key_value(ids[nth].revision, &row));
    }
    Ok(())
}

/// Bytes superseded up to a revision that exists and is above the compacted one, or 1.
pub(crate) fn superseded_bytes_at(store: &dyn StateRead, revision: i64) -> Result<u64, Fault> {
    let start = event::encode_key(EventId::first_of(revision));
    let end = event::encode_key(EventId::first_of(revision.saturating_add(1)));
    let mut bytes = 0;
    store.scan(Table::Event, &start, Some(&end), Direction::Backward, &mut |_key, row| {
        bytes = EventRow::parse(row)?.superseded_bytes();
        Ok(ControlFlow::Break(()))
    })?;
    Ok(bytes)
}

fn missing(id: EventId) -> Fault {
    event::corrupt(&format!("{id:?} is live and missing"))
}

#[cfg(test)]
mod tests;
