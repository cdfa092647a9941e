//! Follows what the node applies and hands it to the watchers in sync.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::etcd;
use raft::AppliedEvent;
use statemachine::{Event, EventKind};

use super::batch::{Batch, BatchBuilder};
use super::history::PreviousValues;
use super::index::Slot;
use super::registry::Registry;
use super::watcher::{Form, Watcher};
use super::{WatchHub, catch_up};

pub(super) fn spawn(hub: &Arc<WatchHub>, mut subscription: raft::Subscription) {
    let hub = Arc::clone(hub);
    crate::tasks::spawn("watch-feed", async move {
        loop {
            let next = tokio::select! {
                () = hub.stop.cancelled() => break,
                // Cancel-safe: an event that was not returned stays in the ring.
                next = subscription.recv() => next,
            };
            match next {
                Ok(event) => match event.as_ref() {
                    AppliedEvent::Applied(applied) => {
                        hub.leases.note(&applied.touched.leases);
                        hub.hand_out(&applied.events, applied.revision);
                    }
                    AppliedEvent::Reset { revision, .. } => {
                        hub.leases.lost();
                        hub.skip_to(*revision);
                    }
                },
                Err(raft::RecvError::Lagged { .. }) => {
                    hub.leases.lost();
                    let revision = hub.applied_revision();
                    hub.skip_to(revision);
                }
                Err(raft::RecvError::Closed) => break,
            }
        }
        hub.end_all();
    });
}

/// Looks up the pair as it was before an event.
pub(super) type Previous<'a> = &'a mut dyn FnMut(&Event) -> Option<etcd::KeyValue>;

impl WatchHub {
    /// Hands events to whom they are of interest, then counts everything up to `revision` as
    /// handed out.
    fn hand_out(self: &Arc<Self>, events: &[Event], revision: i64) {
        let mut behind = Vec::new();
        {
            let mut registry = self.registry.lock();
            let done = registry.revision();
            // What a skip has already covered comes by once more.
            let start = events.partition_point(|event| event.revision <= done);
            let events = &events[start..];
            if !events.is_empty() {
                let mut values = PreviousValues::new(&self.node);
                let through = revision.max(done);
                let mut previous = |event: &Event| values.of(event);
                behind = distribute(&mut registry, events, through, &mut previous);
            }
            for watcher in &behind {
                registry.fall_behind(watcher, done + 1);
            }
            registry.set_revision(revision);
        }
        self.revision.send_if_modified(|current| {
            let ahead = revision > *current;
            *current = revision.max(*current);
            ahead
        });
        for watcher in behind {
            catch_up::spawn(self, watcher);
        }
    }

    /// The events up to `revision` did not pass here: whoever was in sync reads them from history.
    fn skip_to(self: &Arc<Self>, revision: i64) {
        let behind = {
            let mut registry = self.registry.lock();
            let first_missed = registry.revision() + 1;
            registry.set_revision(revision);
            // A watcher of the future lacks nothing and joins again at once.
            registry.all_behind(first_missed)
        };
        self.revision.send_if_modified(|current| {
            let ahead = revision > *current;
            *current = revision.max(*current);
            ahead
        });
        for watcher in behind {
            catch_up::spawn(self, watcher);
        }
    }
}

/// Returns the watchers whose streams are full.
pub(super) fn distribute(
    registry: &mut Registry,
    events: &[Event],
    through: i64,
    previous: Previous<'_>,
) -> Vec<Arc<Watcher>> {
    let mut hits: BTreeMap<Slot, Vec<usize>> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        registry.index.matching(event.key(), |slot| hits.entry(slot).or_default().push(at));
    }
    let mut full = Vec::new();
    for (slot, hits) in hits {
        let Some(interest) = registry.index.value(slot) else { continue };
        for (form, members) in interest {
            let of_interest = hits.iter().map(|at| &events[*at]);
            if let Some(batch) = encode(*form, of_interest, previous) {
                full.extend(Registry::deliver(members, &Arc::new(batch), through + 1));
            }
        }
    }
    full
}

fn encode<'a>(
    form: Form,
    events: impl Iterator<Item = &'a Event>,
    previous: Previous<'_>,
) -> Option<Batch> {
    let mut builder = BatchBuilder::default();
    for event in events.filter(|event| form.wants(event.kind)) {
        let prev_kv = if form.prev_kv { previous(event) } else { None };
        builder.push(event.revision, &wire(event, prev_kv));
    }
    builder.finish(None)
}

pub(super) fn wire(event: &Event, prev_kv: Option<etcd::KeyValue>) -> etcd::Event {
    let kind = match event.kind {
        EventKind::Put => etcd::event::EventType::Put,
        EventKind::Delete => etcd::event::EventType::Delete,
    };
    etcd::Event { r#type: kind.into(), kv: Some(event.kv.clone()), prev_kv }
}
