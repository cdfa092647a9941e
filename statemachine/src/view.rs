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

use crate::catalog::Catalog;
use crate::channel::Channels;
use crate::event::{Event, EventKind};
use crate::session::Sessions;
use crate::store::Fault;

pub use ids::{CollectionId, DatabaseId, FieldId, PartitionId, ServerId, canonical_i64};
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
}

impl Area {
    pub const ALL: [Area; 3] = [Area::Session, Area::Channel, Area::Catalog];
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
    names: Names,
    sessions: Sessions,
    channels: Channels,
    catalog: Catalog,
}

impl Views {
    /// Empty views under a root path such as `by-dev`.
    pub fn new(root_path: &str) -> Views {
        let root_path = root_path.trim_end_matches('/');
        let meta_root =
            if root_path.is_empty() { "meta/".to_owned() } else { format!("{root_path}/meta/") };
        Views {
            meta_root,
            names: Names::default(),
            sessions: Sessions::default(),
            channels: Channels::default(),
            catalog: Catalog::default(),
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
    fn ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        [CHANNEL_PREFIX, Catalog::PREFIX, SESSION_PREFIX, Catalog::COPIES_PREFIX]
            .into_iter()
            .map(|prefix| {
                let start = format!("{}{prefix}", self.meta_root).into_bytes();
                let mut end = start.clone();
                // Every prefix ends in a slash, so the next string of that length ends in `0`.
                end.pop();
                end.push(b'/' + 1);
                (start, end)
            })
            .collect()
    }

    /// A key was put, or is alive while the views are being built.
    pub fn put(&mut self, kv: &etcd::KeyValue) -> Option<Area> {
        let Views { meta_root, names, sessions, channels, catalog } = self;
        let (area, key) = locate(meta_root, &kv.key)?;
        match area {
            Area::Session => sessions.put(names, key, kv),
            Area::Channel => channels.put(names, key, kv),
            Area::Catalog => catalog.put(names, key, kv),
        }
        Some(area)
    }

    /// A key was deleted.
    pub fn delete(&mut self, key: &[u8]) -> Option<Area> {
        let Views { meta_root, names: _, sessions, channels, catalog } = self;
        let (area, key) = locate(meta_root, key)?;
        match area {
            Area::Session => sessions.delete(key),
            Area::Channel => channels.delete(key),
            Area::Catalog => catalog.delete(key),
        }
        Some(area)
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

    pub fn counts(&self) -> ViewCounts {
        let Views { meta_root: _, names: _, sessions, channels, catalog } = self;
        ViewCounts {
            sessions: sessions.rows().len(),
            channels: channels.rows().len(),
            databases: catalog.databases().len(),
            collections: catalog.collections().len(),
            partitions: catalog.partition_rows().len(),
            fields: catalog.field_rows().len(),
            aliases: catalog.aliases().len(),
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
            .chain(self.sessions.strays().iter().map(stray))
            .chain(self.channels.strays().iter().map(stray))
            .chain(self.catalog.strays().iter().map(stray))
            .take(limit)
            .collect()
    }

    /// Rows whose value nobody understands, and keys that no row can be made of.
    pub fn undecodable(&self) -> usize {
        self.sessions.undecodable() + self.channels.undecodable() + self.catalog.undecodable()
    }
}

/// Equal when they show the same; how names are shared in memory is no part of that.
impl PartialEq for Views {
    fn eq(&self, other: &Views) -> bool {
        let Views { meta_root, names: _, sessions, channels, catalog } = self;
        *meta_root == other.meta_root
            && *sessions == other.sessions
            && *channels == other.channels
            && *catalog == other.catalog
    }
}

/// Every row on a line of its own: for tests and for people.
impl fmt::Display for Views {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Views { meta_root, names: _, sessions, channels, catalog } = self;
        writeln!(out, "views of {meta_root}")?;
        write!(out, "{sessions}{channels}{catalog}")
    }
}

const SESSION_PREFIX: &str = "session/";
const CHANNEL_PREFIX: &str = "channelwatch/";

/// The view of a key, and what follows the prefix of that view.
fn locate<'a>(meta_root: &str, key: &'a [u8]) -> Option<(Area, &'a [u8])> {
    let key = key.strip_prefix(meta_root.as_bytes())?;
    if let Some(rest) = key.strip_prefix(SESSION_PREFIX.as_bytes()) {
        return Some((Area::Session, rest));
    }
    if let Some(rest) = key.strip_prefix(CHANNEL_PREFIX.as_bytes()) {
        return Some((Area::Channel, rest));
    }
    if key.starts_with(Catalog::PREFIX.as_bytes())
        || key.starts_with(Catalog::COPIES_PREFIX.as_bytes())
    {
        return Some((Area::Catalog, key));
    }
    None
}

#[cfg(test)]
mod tests;
