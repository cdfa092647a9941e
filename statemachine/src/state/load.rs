//! Rebuilding the state from the tables, in steps that two threads can share: one reads the pairs
//! that views are made of, the other builds the views.

use std::collections::VecDeque;

use proto::etcd;

use crate::alarm::Alarms;
use crate::history;
use crate::ids::EventId;
use crate::keyspace::key_index::KeyIndex;
use crate::lease::Leases;
use crate::limits;
use crate::origin::Origins;
use crate::settings::Settings;
use crate::state::State;
use crate::state::counters::Counters;
use crate::store::{Fault, StateRead};
use crate::table;
use crate::versions;
use crate::view::Views;

/// A state that lacks its views, and where the pairs stand that they are made of.
pub struct Loading {
    /// Its views are empty.
    state: State,
    /// Ascending.
    ids: Vec<EventId>,
}

/// Some of the pairs that views are made of.
pub struct Pairs(Vec<etcd::KeyValue>);

impl Pairs {
    /// Takes them into the views; in any order of all of them.
    pub fn load_into(self, views: &mut Views) {
        views.load(&self.0);
    }
}

impl Loading {
    /// Reads everything but the pairs.
    ///
    /// # Errors
    /// A fault of the storage, or rows that cannot be read.
    pub fn begin(store: &dyn StateRead) -> Result<Loading, Fault> {
        let counters = table::meta::counters(store)?.unwrap_or_else(Counters::fresh);
        if counters.level > versions::KNOWN_LEVEL {
            return Err(Fault::UnknownLevel {
                index: counters.last_index,
                needed: counters.level,
                known: versions::KNOWN_LEVEL,
            });
        }
        let settings = Settings::load(store)?;
        let views = Views::new(&settings.root_path);
        let mut leases = Leases::load(store)?;
        let mut index = KeyIndex::default();
        let mut ids = Vec::new();
        let mut ranges = views.ranges().into_iter().peekable();
        table::version::scan_newest(store, &mut |key, meta| {
            index.append(key, *meta);
            leases.attach(meta.lease, key);
            // Both ascend.
            while ranges.next_if(|(_, end)| end.as_slice() <= key).is_some() {}
            if ranges.peek().is_some_and(|(start, _)| start.as_slice() <= key) {
                ids.push(meta.event_id());
            }
            Ok(())
        })?;
        // Views do not depend on the order, and in this one each block of the table is read once.
        ids.sort_unstable();
        let state = State {
            leases,
            origins: Origins::load(store)?,
            alarms: Alarms::load(store)?,
            index,
            settings,
            counters,
            views,
            checks: VecDeque::new(),
            lease_generation: 0,
        };
        Ok(Loading { state, ids })
    }

    /// Empty views, to be built of what [`Loading::read`] gives.
    pub fn views(&self) -> Views {
        Views::new(&self.state.settings.root_path)
    }

    /// Reads the pairs that views are made of, and hands over some at a time.
    ///
    /// # Errors
    /// A fault of the storage, or what `take` returned.
    pub fn read(
        &self,
        store: &dyn StateRead,
        take: &mut dyn FnMut(Pairs) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.ids
            .chunks(limits::LOADED_PAIRS)
            .try_for_each(|ids| take(Pairs(history::pairs(store, ids)?)))
    }

    /// The state, with the views that were built.
    pub fn finish(self, views: Views) -> State {
        State { views, ..self.state }
    }
}
