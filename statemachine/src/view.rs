//! Typed views of what Milvus keeps in the keyspace, derived from it as entries apply.
//!
//! Memory only: a node builds them from the live keys when it loads, and afterwards from the
//! events of each entry, so a running follower is as warm as the leader. etcd clients and a stock
//! RootCoord write these keys raw, therefore a value that does not decode becomes a row that says
//! so and nothing else happens: no write, load or replay ever fails because of it.
//!
//! Invariant: views that followed the events equal views that were built from the live keys.

mod ids;
mod names;
mod row;

use std::fmt;

use proto::etcd;
use proto::quorate::SegmentRef;

use crate::catalog::Catalog;
use crate::channel::Channels;
use crate::coordinator::channel::view::Assignments;
use crate::coordinator::compaction::view::Plans;
use crate::coordinator::garbage::view::GarbagePause;
use crate::coordinator::index::view::Indexes;
use crate::coordinator::keys::{self, DataKey, LogKind};
use crate::coordinator::segment::view::Segments;
use crate::event::{Event, EventKind};
use crate::session::Sessions;
use crate::store::Fault;

pub use ids::{
    BuildId, CollectionId, DatabaseId, FieldId, IndexId, PartitionId, PlanId, SegmentId, ServerId,
    canonical_i64,
};
pub use names::{Name, Names};
pub use row::{Row, Rows, Undecodable};

/// Live pairs of the keyspace, for building views from nothing.
pub trait LiveKeys {
    /// Visits the pairs with `start <= key`, and `key < end` where an end is given, in key order.
    ///
    /// # Errors
    /// A fault of the storage, or what `visit` returned.
    fn visit(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(etcd::KeyValue) -> Result<(), Fault>,
    ) -> Result<(), Fault>;
}

/// Which view a key belongs to. Duties wake up by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    Session,
    Channel,
    Catalog,
    Segment,
    /// Checkpoints, removal marks and our own records of channels.
    Assignment,
    Index,
    Compaction,
    Garbage,
}

impl Area {
    pub const ALL: [Area; 8] = [
        Area::Session,
        Area::Channel,
        Area::Catalog,
        Area::Segment,
        Area::Assignment,
        Area::Index,
        Area::Compaction,
        Area::Garbage,
    ];
}

/// A row that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub what: String,
    pub revision: i64,
    pub reason: String,
}

/// How much each view holds, rows that do not decode included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewCounts {
    pub sessions: usize,
    pub channels: usize,
    pub databases: usize,
    pub collections: usize,
    pub partitions: usize,
    pub fields: usize,
    pub aliases: usize,
    pub segments: usize,
    pub checkpoints: usize,
    pub indexes: usize,
    pub builds: usize,
    pub plans: usize,
    /// Things that RootCoord removed and whose keys it has not collected yet.
    pub tombstones: usize,
    /// RootCoord's copies of earlier states.
    pub copies: usize,
    pub undecodable: usize,
}

/// All views of one state.
#[derive(Debug)]
pub struct Views {
    /// `<root path>/meta/`, or `meta/` where the root path is empty.
    meta_root: String,
    /// `<root path>/quorate/`, our own records.
    own_root: String,
    names: Names,
    sessions: Sessions,
    channels: Channels,
    catalog: Catalog,
    segments: Segments,
    assignments: Assignments,
    indexes: Indexes,
    plans: Plans,
    garbage: GarbagePause,
}

impl Views {
    /// Empty views under a root path such as `by-dev`.
    pub fn new(root_path: &str) -> Views {
        let root_path = root_path.trim_end_matches('/');
        let below = |name: &str| match root_path {
            "" => format!("{name}/"),
            root_path => format!("{root_path}/{name}/"),
        };
        Views {
            meta_root: below("meta"),
            own_root: below("quorate"),
            names: Names::default(),
            sessions: Sessions::default(),
            channels: Channels::default(),
            catalog: Catalog::default(),
            segments: Segments::default(),
            assignments: Assignments::default(),
            indexes: Indexes::default(),
            plans: Plans::default(),
            garbage: GarbagePause::default(),
        }
    }

    /// Builds all views for a root path.
    ///
    /// # Errors
    /// A fault of the storage; never because of what a record holds.
    pub fn rebuild(root_path: &str, live: &mut dyn LiveKeys) -> Result<Views, Fault> {
        let mut views = Views::new(root_path);
        for (start, end) in views.ranges() {
            live.visit(&start, Some(&end), &mut |kv| {
                views.put(&kv);
                Ok(())
            })?;
        }
        Ok(views)
    }

    /// The key ranges `[start, end)` that the views are made of, in order and disjoint: building
    /// views reads the values of these live keys and of no others.
    pub(crate) fn ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let below_meta = [
            CHANNEL_PREFIX,
            DATA_PREFIX,
            FIELD_INDEX_PREFIX,
            Catalog::PREFIX,
            SEGMENT_INDEX_PREFIX,
            SESSION_PREFIX,
            Catalog::COPIES_PREFIX,
        ];
        below_meta
            .into_iter()
            .map(|prefix| format!("{}{prefix}", self.meta_root))
            .chain([self.own_root.clone()])
            .map(|prefix| {
                let start = prefix.into_bytes();
                let mut end = start.clone();
                // Every prefix ends in a slash, so the next string of that length ends in `0`.
                end.pop();
                end.push(b'/' + 1);
                (start, end)
            })
            .collect()
    }

    /// Takes in live pairs while the views are being built, in any order.
    pub(crate) fn load(&mut self, pairs: &[etcd::KeyValue]) {
        let mut segments = Vec::new();
        for kv in pairs {
            match self.locate(&kv.key) {
                Some(place @ Place::Segment(_)) => segments.push((place, kv)),
                Some(place) => self.put_at(place, kv),
                None => {}
            }
        }
        // A segment that finds its logs takes them along: each log that comes later looks for it.
        for (place, kv) in segments {
            self.put_at(place, kv);
        }
    }

    /// A key was put, or is alive while the views are being built.
    pub fn put(&mut self, kv: &etcd::KeyValue) -> Option<Area> {
        let place = self.locate(&kv.key)?;
        let area = place.area();
        self.put_at(place, kv);
        Some(area)
    }

    fn put_at(&mut self, place: Place<'_>, kv: &etcd::KeyValue) {
        let names = &mut self.names;
        match place {
            Place::Session(key) => self.sessions.put(names, key, kv),
            Place::Channel(key) => self.channels.put(names, key, kv),
            Place::Catalog(key) => self.catalog.put(names, key, kv),
            Place::Segment(of) => self.segments.put_segment(names, of, kv),
            Place::Log { kind, of, field } => self.segments.put_log(kind, of, field, kv),
            Place::Growth(segment) => self.segments.put_growth(segment, kv),
            Place::Stray => self.segments.put_stray(kv),
            Place::Checkpoint(channel) => self.assignments.put_checkpoint(names, channel, kv),
            Place::Removal(channel) => self.assignments.put_removal(names, channel, kv),
            Place::Assignment(channel) => self.assignments.put(names, channel, kv),
            Place::Drain(node) => self.assignments.put_drain(node),
            Place::Index(collection, index) => {
                self.indexes.put_definition(names, collection, index, kv);
            }
            Place::Build(of, build) => self.indexes.put_build(of, build, kv),
            Place::Plan(plan) => self.plans.put(plan, kv),
            Place::PlanControl => self.plans.put_control(kv),
            Place::Altered(collection) => self.plans.put_altered(collection, kv),
            Place::GarbageControl => self.garbage.put(kv),
        }
    }

    /// A key was deleted.
    pub fn delete(&mut self, key: &[u8]) -> Option<Area> {
        let place = self.locate(key)?;
        match place {
            Place::Session(key) => self.sessions.delete(key),
            Place::Channel(key) => self.channels.delete(key),
            Place::Catalog(key) => self.catalog.delete(key),
            Place::Segment(of) => self.segments.delete_segment(of),
            Place::Log { kind, of, field } => {
                self.segments.delete_log(kind, of, field);
                self.segments.delete_stray(key);
            }
            Place::Growth(segment) => self.segments.delete_growth(segment),
            Place::Stray => self.segments.delete_stray(key),
            Place::Checkpoint(channel) => self.assignments.delete_checkpoint(channel),
            Place::Removal(channel) => self.assignments.delete_removal(channel),
            Place::Assignment(channel) => self.assignments.delete(channel),
            Place::Drain(node) => self.assignments.delete_drain(node),
            Place::Index(collection, index) => self.indexes.delete_definition(collection, index),
            Place::Build(of, build) => self.indexes.delete_build(of, build),
            Place::Plan(plan) => self.plans.delete(plan),
            Place::PlanControl => self.plans.delete_control(),
            Place::Altered(collection) => self.plans.delete_altered(collection),
            Place::GarbageControl => self.garbage.delete(),
        }
        Some(place.area())
    }

    /// Where a key belongs; `None` where no view looks at it.
    fn locate<'k>(&self, key: &'k [u8]) -> Option<Place<'k>> {
        if let Some(own) = key.strip_prefix(self.own_root.as_bytes()) {
            return Some(Place::of_own(own).unwrap_or(Place::Stray));
        }
        Place::of_milvus(key.strip_prefix(self.meta_root.as_bytes())?)
    }

    /// Follows one change. Infallible and short: it runs under the state's write lock.
    pub fn apply(&mut self, event: &Event) -> Option<Area> {
        match event.kind {
            EventKind::Put => self.put(&event.kv),
            EventKind::Delete => self.delete(event.key()),
        }
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    pub fn assignments(&self) -> &Assignments {
        &self.assignments
    }

    pub fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    pub fn garbage(&self) -> &GarbagePause {
        &self.garbage
    }

    pub fn counts(&self) -> ViewCounts {
        let Views { sessions, channels, catalog, segments, assignments, indexes, plans, .. } = self;
        ViewCounts {
            sessions: sessions.rows().len(),
            channels: channels.rows().len(),
            databases: catalog.databases().len(),
            collections: catalog.collections().len(),
            partitions: catalog.partition_rows().len(),
            fields: catalog.field_rows().len(),
            aliases: catalog.aliases().len(),
            segments: segments.len(),
            checkpoints: assignments.checkpoints().len(),
            indexes: indexes.definitions().len(),
            builds: indexes.n_builds(),
            plans: plans.rows().len(),
            tombstones: catalog.tombstones(),
            copies: catalog.copies(),
            undecodable: self.undecodable(),
        }
    }

    /// What does not decode: key below `meta/` or name of the row, revision and reason. At most
    /// `limit` of them.
    pub fn troubles(&self, limit: usize) -> Vec<Trouble> {
        let row = |what: String, why: &Undecodable| Trouble {
            what,
            revision: why.revision,
            reason: why.reason.clone(),
        };
        let stray = |(key, revision): (&bytes::Bytes, &i64)| Trouble {
            what: format!("{key:?}"),
            revision: *revision,
            reason: "no key that Milvus writes".to_owned(),
        };
        let sessions = self.sessions.rows().troubles();
        let counter = self.sessions.next_id().and_then(Row::undecodable).into_iter();
        let channels = self.channels.rows().troubles();
        sessions
            .map(|(key, why)| row(format!("session {key}"), why))
            .chain(counter.map(|why| row("session counter".to_owned(), why)))
            .chain(channels.map(|((node, name), why)| row(format!("channel {node}/{name}"), why)))
            .chain(self.catalog.troubles().map(|(key, why)| row(key.to_string(), why)))
            .chain(self.segments.troubles().map(|(id, why)| row(format!("segment {id}"), why)))
            .chain(self.assignments.troubles().map(|(what, why)| row(what, why)))
            .chain(self.indexes.troubles().map(|(what, why)| row(what, why)))
            .chain(self.plans.troubles().map(|(id, why)| row(format!("plan {id}"), why)))
            .chain(self.segments.strays().iter().map(stray))
            .chain(self.sessions.strays().iter().map(stray))
            .chain(self.channels.strays().iter().map(stray))
            .chain(self.catalog.strays().iter().map(stray))
            .take(limit)
            .collect()
    }

    /// Rows whose value nobody understands, and keys that no row can be made of.
    pub fn undecodable(&self) -> usize {
        self.sessions.undecodable()
            + self.channels.undecodable()
            + self.catalog.undecodable()
            + self.segments.undecodable()
            + self.assignments.undecodable()
            + self.indexes.undecodable()
            + self.plans.undecodable()
    }
}

/// Equal when they show the same; how names are shared in memory is no part of that.
impl PartialEq for Views {
    fn eq(&self, other: &Views) -> bool {
        let Views {
            meta_root,
            own_root: _,
            names: _,
            sessions,
            channels,
            catalog,
            segments,
            assignments,
            indexes,
            plans,
            garbage,
        } = self;
        *meta_root == other.meta_root
            && *sessions == other.sessions
            && *channels == other.channels
            && *catalog == other.catalog
            && *segments == other.segments
            && *assignments == other.assignments
            && *indexes == other.indexes
            && *plans == other.plans
            && *garbage == other.garbage
    }
}

/// Every row on a line of its own: for tests and for people.
impl fmt::Display for Views {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "views of {}", self.meta_root)?;
        write!(out, "{}{}{}", self.sessions, self.channels, self.catalog)?;
        write!(out, "{}{}{}{}", self.segments, self.assignments, self.indexes, self.plans)?;
        write!(out, "{}", self.garbage)
    }
}

const SESSION_PREFIX: &str = "session/";
const CHANNEL_PREFIX: &str = "channelwatch/";

const DATA_PREFIX: &str = "datacoord-meta/";
const FIELD_INDEX_PREFIX: &str = "field-index/";
const SEGMENT_INDEX_PREFIX: &str = "segment-index/";

/// What a key names.
enum Place<'k> {
    /// What follows the prefix of the view.
    Session(&'k [u8]),
    Channel(&'k [u8]),
    Catalog(&'k [u8]),
    Segment(SegmentRef),
    Log {
        kind: LogKind,
        of: SegmentRef,
        field: i64,
    },
    Growth(SegmentId),
    Checkpoint(&'k str),
    Removal(&'k str),
    Assignment(&'k str),
    Drain(ServerId),
    Index(CollectionId, IndexId),
    Build(SegmentRef, BuildId),
    Plan(PlanId),
    PlanControl,
    Altered(CollectionId),
    GarbageControl,
    /// Below an owned prefix, and no key that anybody writes.
    Stray,
}

impl<'k> Place<'k> {
    /// What follows `meta/`.
    fn of_milvus(key: &'k [u8]) -> Option<Place<'k>> {
        if let Some(rest) = key.strip_prefix(SESSION_PREFIX.as_bytes()) {
            return Some(Place::Session(rest));
        }
        if let Some(rest) = key.strip_prefix(CHANNEL_PREFIX.as_bytes()) {
            return Some(Place::Channel(rest));
        }
        if key.starts_with(Catalog::PREFIX.as_bytes())
            || key.starts_with(Catalog::COPIES_PREFIX.as_bytes())
        {
            return Some(Place::Catalog(key));
        }
        if let Some(rest) = key.strip_prefix(DATA_PREFIX.as_bytes()) {
            return Some(match DataKey::parse(rest) {
                Some(DataKey::Segment(of)) => Place::Segment(of),
                Some(DataKey::Log { kind, of, field }) => Place::Log { kind, of, field },
                Some(DataKey::Checkpoint(channel)) => Place::Checkpoint(channel),
                Some(DataKey::Removal(channel)) => Place::Removal(channel),
                None => Place::Stray,
            });
        }
        if let Some(rest) = key.strip_prefix(FIELD_INDEX_PREFIX.as_bytes()) {
            return Some(Place::of_index(rest).unwrap_or(Place::Stray));
        }
        let rest = key.strip_prefix(SEGMENT_INDEX_PREFIX.as_bytes())?;
        Some(Place::of_build(rest).unwrap_or(Place::Stray))
    }

    fn of_index(key: &[u8]) -> Option<Place<'static>> {
        let [collection, index] = keys::numbers(std::str::from_utf8(key).ok()?)?;
        Some(Place::Index(CollectionId(collection), IndexId(index)))
    }

    fn of_build(key: &[u8]) -> Option<Place<'static>> {
        let [collection, partition, segment, build] =
            keys::numbers(std::str::from_utf8(key).ok()?)?;
        Some(Place::Build(SegmentRef { collection, partition, segment }, BuildId(build)))
    }

    /// What follows `quorate/`.
    fn of_own(key: &'k [u8]) -> Option<Place<'k>> {
        let key = std::str::from_utf8(key).ok()?;
        if key == "compaction-control" {
            return Some(Place::PlanControl);
        }
        if key == "garbage-control" {
            return Some(Place::GarbageControl);
        }
        let (area, rest) = key.split_once('/')?;
        Some(match area {
            "growing" => Place::Growth(SegmentId(canonical_i64(rest)?)),
            "channel" if keys::is_name(rest) => Place::Assignment(rest),
            "drain" => Place::Drain(ServerId(canonical_i64(rest)?)),
            "compaction" => Place::Plan(PlanId(canonical_i64(rest)?)),
            "altered" => Place::Altered(CollectionId(canonical_i64(rest)?)),
            _ => return None,
        })
    }

    fn area(&self) -> Area {
        match self {
            Place::Session(_) => Area::Session,
            Place::Channel(_) => Area::Channel,
            Place::Catalog(_) => Area::Catalog,
            Place::Segment(_) | Place::Log { .. } | Place::Growth(_) | Place::Stray => {
                Area::Segment
            }
            Place::Checkpoint(_) | Place::Removal(_) | Place::Assignment(_) | Place::Drain(_) => {
                Area::Assignment
            }
            Place::Index(..) | Place::Build(..) => Area::Index,
            Place::Plan(_) | Place::PlanControl | Place::Altered(_) => Area::Compaction,
            Place::GarbageControl => Area::Garbage,
        }
    }
}

#[cfg(test)]
mod tests;
