//! Which segments may lack a build: those that changed, those of collections whose indexes changed,
//! and from time to time all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::{AppliedEvent, RecvError, Subscription};
use statemachine::EventKind;
use statemachine::view::{CollectionId, SegmentId, Views};
use tokio::time::Instant;

/// Also without any news everything is looked at this often.
const EVERYTHING_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Survey {
    applied: Subscription,
    places: Places,
    everything_at: Instant,
}

impl Survey {
    /// Begins with everything.
    pub(super) fn new(mut applied: Subscription) -> Survey {
        // It is asked in every round, and never waits for news.
        applied.relax();
        Survey { applied, places: Places::default(), everything_at: Instant::now() }
    }

    /// Takes in what was applied since the last call, without waiting.
    pub(super) fn listen(&mut self) {
        while let Some(event) = self.applied.try_recv() {
            match event.as_deref() {
                Ok(AppliedEvent::Applied(applied)) => {
                    let puts = applied.events.iter().filter(|event| event.kind == EventKind::Put);
                    puts.for_each(|event| self.places.note(event.key()));
                }
                Ok(AppliedEvent::Reset { .. }) | Err(RecvError::Lagged { .. }) => {
                    self.everything_at = Instant::now();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// At most `n` segments to look at; none: everything has been looked at.
    pub(super) fn take(&mut self, views: &Views, n: usize) -> Vec<SegmentId> {
        if self.everything_at <= Instant::now() {
            self.everything_at = Instant::now() + EVERYTHING_EVERY;
            self.places.add_all(views);
        }
        self.places.take(views, n)
    }

    /// Could not be dealt with: look again.
    pub(super) fn put_back(&mut self, segments: Vec<SegmentId>) {
        self.places.segments.extend(segments);
    }
}

/// Where to look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    segments: BTreeSet<SegmentId>,
    /// Each with the segment that was looked at last.
    collections: BTreeMap<CollectionId, SegmentId>,
}

const BEFORE_ALL: SegmentId = SegmentId(i64::MIN);

impl Places {
    /// A key was put. Its root path does not matter: what it names is looked up in the views.
    pub(super) fn note(&mut self, key: &[u8]) {
        let Ok(key) = std::str::from_utf8(key) else { return };
        if let Some((_, of)) = key.split_once("meta/datacoord-meta/s/") {
            let segment = of.rsplit('/').next().and_then(|id| id.parse().ok());
            self.segments.extend(segment.map(SegmentId));
        } else if let Some((_, of)) = key.split_once("meta/field-index/") {
            let collection = of.split('/').next().and_then(|id| id.parse().ok());
            self.collections.extend(collection.map(|id| (CollectionId(id), BEFORE_ALL)));
        }
    }

    /// All collections that have an index.
    pub(super) fn add_all(&mut self, views: &Views) {
        for ((collection, _), definition) in views.indexes().definitions().decoded() {
            if !definition.is_deleted {
                self.collections.insert(*collection, BEFORE_ALL);
            }
        }
    }

    pub(super) fn take(&mut self, views: &Views, n: usize) -> Vec<SegmentId> {
        let mut taken = Vec::new();
        while taken.len() < n
            && let Some(segment) = self.segments.pop_first()
        {
            taken.push(segment);
        }
        while taken.len() < n
            && let Some((collection, after)) = self.collections.pop_first()
        {
            let room = n - taken.len();
            let found = views.segments().of_collection_after(collection, after).take(room);
            taken.extend(found.map(|(id, _)| id));
            if taken.len() == n
                && let Some(last) = taken.last()
            {
                self.collections.insert(collection, *last);
            }
        }
        taken
    }
}
