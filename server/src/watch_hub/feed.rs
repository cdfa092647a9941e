//! Follows what the node applies and hands it to the watchers in sync.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::etcd;
use raft::AppliedEvent;
use statemachine::{Event, EventKind};

use super::WatchHub;
use super::batch::{Batch, BatchBuilder};
use super::history::PreviousPairs;
use super::index::Slot;
use super::registry::Registry;
use super::watcher::{Form, Watcher};

/// Encoded events of one hand-out. Watchers of different ranges that overlap get the same events
/// encoded for each range; those that are left out read them from history, a part at a time.
const ENCODED_BYTES_MAX: usize = 64 * 1024 * 1024;

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
                        hub.hand_out(&applied.events, applied.revision).await;
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

impl WatchHub {
    /// Hands events to whom they are of interest, then counts everything up to `revision` as
    /// handed out.
    async fn hand_out(self: &Arc<Self>, events: &[Event], revision: i64) {
        let (events, wanted) = {
            let mut registry = self.registry.lock();
            // What a skip has already covered comes by once more.
            let done = registry.revision();
            let start = events.partition_point(|event| event.revision <= done);
            let events = &events[start..];
            (events, registry.replaced_wanted(events))
        };
        // Read without the lock: a disk may take its time. Only this task moves the revision of
        // the registry, so whoever joins meanwhile lacks these events, too.
        let previous = match wanted.is_empty() {
            true => PreviousPairs::default(),
            false => self.history.replaced(wanted).await,
        };
        let has_behind = {
            let mut registry = self.registry.lock();
            let done = registry.revision();
            let behind = distribute(&mut registry, events, revision.max(done), &previous);
            for watcher in &behind {
                registry.fall_behind(watcher, done + 1);
            }
            registry.set_revision(revision);
            !behind.is_empty()
        };
        self.advance(revision, has_behind);
    }

    /// The events up to `revision` did not pass here: whoever was in sync reads them from history.
    fn skip_to(self: &Arc<Self>, revision: i64) {
        let has_behind = {
            let mut registry = self.registry.lock();
            let first_missed = registry.revision() + 1;
            registry.set_revision(revision);
            // A watcher of the future lacks nothing and joins again at once.
            registry.all_behind(first_missed)
        };
        self.advance(revision, has_behind);
    }

    fn advance(&self, revision: i64, has_behind: bool) {
        self.revision.send_if_modified(|current| {
            let ahead = revision > *current;
            *current = revision.max(*current);
            ahead
        });
        if has_behind {
            self.behind.notify_one();
        }
    }
}

/// Returns the watchers that have to read these events from history: their streams are full, a
/// previous value is not at hand, or too much would be encoded at once.
pub(super) fn distribute(
    registry: &mut Registry,
    events: &[Event],
    through: i64,
    previous: &PreviousPairs,
) -> Vec<Arc<Watcher>> {
    let mut hits: BTreeMap<Slot, Vec<usize>> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        registry.index.matching(event.key(), |slot| hits.entry(slot).or_default().push(at));
    }
    let mut behind = Vec::new();
    let mut encoded_bytes = 0;
    for (slot, hits) in hits {
        let Some(interest) = registry.index.value(slot) else { continue };
        for (form, members) in interest {
            let of_interest = hits.iter().map(|at| &events[*at]);
            let encoded = match encoded_bytes > ENCODED_BYTES_MAX {
                true => Err(NotAtHand),
                false => encode(*form, of_interest, previous),
            };
            match encoded {
                Ok(Some(batch)) => {
                    encoded_bytes += batch.size_bytes();
                    behind.extend(Registry::deliver(members, &Arc::new(batch), through + 1));
                }
                Ok(None) => {}
                Err(NotAtHand) => behind.extend(members.values().map(Arc::clone)),
            }
        }
    }
    behind
}

/// A previous value was not looked up.
struct NotAtHand;

fn encode<'a>(
    form: Form,
    events: impl Iterator<Item = &'a Event>,
    previous: &PreviousPairs,
) -> Result<Option<Batch>, NotAtHand> {
    let mut builder = BatchBuilder::default();
    for event in events.filter(|event| form.wants(event.kind)) {
        let prev_kv = if form.prev_kv { previous.get(event).ok_or(NotAtHand)? } else { None };
        builder.push(event.revision, &wire(event, prev_kv));
    }
    Ok(builder.finish(None))
}

pub(super) fn wire(event: &Event, prev_kv: Option<etcd::KeyValue>) -> etcd::Event {
    let kind = match event.kind {
        EventKind::Put => etcd::event::EventType::Put,
        EventKind::Delete => etcd::event::EventType::Delete,
    };
    etcd::Event { r#type: kind.into(), kv: Some(event.kv.clone()), prev_kv }
}
