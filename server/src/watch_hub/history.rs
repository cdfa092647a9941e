//! Past events and past values, read from the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proto::etcd;
use raft::Node;
use statemachine::history::{self, HistoryBudget};
use statemachine::{Event, EventId, Fault, State, StateRead};

use super::batch::{Batch, BatchBuilder};
use super::feed::wire;
use super::index::{RangeIndex, Slot};
use super::watcher::{Form, Watcher};
use crate::tasks;

/// What one read of history takes at most; a revision is never split.
const PART: HistoryBudget = HistoryBudget { events_max: 2_000, bytes_max: 1024 * 1024 };
/// Encoded events of one read. Watchers of different ranges that overlap get the same events encoded
/// for each range; those that are left out get the part again.
const ENCODED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Previous values of more events are read off the threads that serve.
const INLINE_VALUES_MAX: usize = 16;

pub(super) struct History {
    node: Node,
}

/// What became of one read for a group of watchers.
pub(super) struct Part {
    /// Those whose history is gone.
    pub(super) compacted: Vec<Arc<Watcher>>,
    pub(super) compacted_revision: i64,
    /// Everything up to here was handed to whoever of the group stood in it and had room.
    pub(super) through: i64,
}

impl History {
    pub(super) fn new(node: Node) -> History {
        History { node }
    }

    /// Reads on from the lowest revision that one of `group` lacks, and hands out what it finds.
    pub(super) async fn read(&self, group: &[Arc<Watcher>]) -> Result<Part, Fault> {
        let node = self.node.clone();
        let group = group.to_vec();
        let read = tasks::spawn_blocking(move || {
            let ((current, compacted), store) =
                node.local_view().pin(|state| (state.revision(), state.compacted_revision()));
            hand_out(&store, current, compacted, &group)
                .inspect_err(|fault| node.state_failed(fault))
        });
        read.await.unwrap_or_else(|error| Err(Fault::Invariant(format!("history reader: {error}"))))
    }

    /// The pairs that events replaced. One that cannot be read is left out, and stops the node.
    pub(super) async fn replaced(&self, events: Vec<Event>) -> PreviousPairs {
        let node = self.node.clone();
        let inline = events.len() <= INLINE_VALUES_MAX;
        let read = move || {
            let (compacted, store) = node.local_view().pin(State::compacted_revision);
            PreviousPairs::read(&store, compacted, &events, &|fault| node.state_failed(fault))
        };
        if inline { read() } else { tasks::spawn_blocking(read).await.unwrap_or_default() }
    }
}

/// The pairs that events replaced, by event.
#[derive(Debug, Default)]
pub(super) struct PreviousPairs(BTreeMap<EventId, Option<etcd::KeyValue>>);

impl PreviousPairs {
    pub(super) fn read(
        store: &dyn StateRead,
        compacted_revision: i64,
        events: &[Event],
        failed: &dyn Fn(&Fault),
    ) -> PreviousPairs {
        let mut pairs = PreviousPairs::default();
        for event in events {
            match history::replaced(store, event, compacted_revision) {
                Ok(pair) => drop(pairs.0.insert(event.id(), pair)),
                Err(fault) => failed(&fault),
            }
        }
        pairs
    }

    /// `None` where it was not looked up.
    pub(super) fn get(&self, event: &Event) -> Option<Option<etcd::KeyValue>> {
        match event.replaced {
            None => Some(None),
            Some(_) => self.0.get(&event.id()).cloned(),
        }
    }
}

/// Watchers of one range that take events in one form.
type Interest = BTreeMap<Form, Vec<Arc<Watcher>>>;

/// Reads one part of history and pushes it to the streams of the watchers that stand in it.
fn hand_out(
    store: &dyn StateRead,
    current: i64,
    compacted_revision: i64,
    group: &[Arc<Watcher>],
) -> Result<Part, Fault> {
    let next = |watcher: &Arc<Watcher>| watcher.next_revision.load(Ordering::Relaxed);
    let (compacted, readable): (Vec<_>, Vec<_>) =
        group.iter().cloned().partition(|watcher| next(watcher) < compacted_revision);
    let Some(from) = readable.iter().map(next).min() else {
        return Ok(Part { compacted, compacted_revision, through: compacted_revision - 1 });
    };
    let mut index: RangeIndex<Interest> = RangeIndex::default();
    for watcher in readable {
        let interest = index.entry(&watcher.range, Interest::default);
        interest.entry(watcher.form).or_default().push(watcher);
    }
    // The places of the events that interest a range, by range.
    let mut hits: BTreeMap<Slot, Vec<usize>> = BTreeMap::new();
    let mut n_events = 0;
    let part = history::events(store, from, current, PART, &mut |key| {
        let mut is_wanted = false;
        index.matching(key, |slot| {
            hits.entry(slot).or_default().push(n_events);
            is_wanted = true;
        });
        n_events += usize::from(is_wanted);
        is_wanted
    })?;
    let through = part.next_revision - 1;
    let mut previous = Previous { store, compacted_revision, read: BTreeMap::new() };
    let mut encoded_bytes = 0;
    for slot in index.slots() {
        let Some(interest) = index.value(slot) else { continue };
        let of_range = hits.get(&slot).map_or(&[][..], Vec::as_slice);
        for (form, watchers) in interest {
            if encoded_bytes > ENCODED_BYTES_MAX {
                return Ok(Part { compacted, compacted_revision, through });
            }
            let lowest = watchers.iter().map(next).min().unwrap_or(i64::MAX);
            let events = of_range.iter().map(|nth| &part.events[*nth]);
            let batch = encode(*form, lowest, events, through, &mut previous)?.map(Arc::new);
            encoded_bytes += batch.as_ref().map_or(0, |batch| batch.size_bytes());
            for watcher in watchers {
                deliver(watcher, batch.as_ref(), through);
            }
        }
    }
    Ok(Part { compacted, compacted_revision, through })
}

fn deliver(watcher: &Arc<Watcher>, batch: Option<&Arc<Batch>>, through: i64) {
    let from = watcher.next_revision.load(Ordering::Relaxed);
    if from > through {
        return;
    }
    let is_taken = match batch.filter(|batch| batch.last_revision() >= from) {
        Some(batch) => watcher.stream.push_events(watcher, batch, from).is_ok(),
        None => true,
    };
    if is_taken {
        watcher.next_revision.store(through + 1, Ordering::Relaxed);
    }
}

fn encode<'a>(
    form: Form,
    from: i64,
    events: impl Iterator<Item = &'a Event>,
    through: i64,
    previous: &mut Previous<'_>,
) -> Result<Option<Batch>, Fault> {
    let mut builder = BatchBuilder::default();
    for event in events.filter(|event| event.revision >= from && form.wants(event.kind)) {
        let prev_kv = if form.prev_kv { previous.of(event)? } else { None };
        builder.push(event.revision, &wire(event, prev_kv));
    }
    Ok(builder.finish(Some(through)))
}

/// Previous values of events of one part, each read once whatever the number of ranges.
struct Previous<'a> {
    store: &'a dyn StateRead,
    compacted_revision: i64,
    read: BTreeMap<EventId, Option<etcd::KeyValue>>,
}

impl Previous<'_> {
    fn of(&mut self, event: &Event) -> Result<Option<etcd::KeyValue>, Fault> {
        if event.is_create() {
            return Ok(None);
        }
        if let Some(pair) = self.read.get(&event.id()) {
            return Ok(pair.clone());
        }
        let pair =
            history::previous(self.store, event.key(), event.revision, self.compacted_revision)?;
        self.read.insert(event.id(), pair.clone());
        Ok(pair)
    }
}

#[cfg(test)]
mod tests;
