//! Bringing the memory up to what the store holds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::admission::Refused;
use crate::alarm::Alarms;
use crate::digest::DigestCheck;
use crate::event::Event;
use crate::ids::RequestId;
use crate::lease::LeaseChange;
use crate::limits;
use crate::origin::OriginDraft;
use crate::response::{Outcome, Response};
use crate::settings::Settings;
use crate::state::State;
use crate::state::chunk::{Chunk, LogEntry, Readers, Slot};
use crate::state::counters::Counters;
use crate::store::{Changes, Fault, StateRead};
use crate::view::{Area, Views};

/// A chunk of entries, evaluated. Nothing has happened yet.
pub struct Prepared {
    pub(crate) changes: Changes,
    pub(crate) keys: BTreeMap<Bytes, Slot>,
    pub(crate) leases: BTreeMap<i64, Option<i64>>,
    pub(crate) settings: Option<Settings>,
    pub(crate) alarms: Option<Alarms>,
    pub(crate) origins: BTreeMap<u64, OriginDraft>,
    pub(crate) forgotten_origins: Vec<u64>,
    pub(crate) counters: Counters,
    pub(crate) views: Option<Views>,
    pub(crate) events: Vec<Event>,
    pub(crate) outcomes: Vec<(RequestId, Outcome)>,
    pub(crate) checks: Vec<DigestCheck>,
    pub(crate) refused: Vec<RefusedRun>,
    pub(crate) touched: Touched,
}

/// What a chunk did, for whoever must be told.
#[derive(Debug)]
pub struct Applied {
    /// In the order of the commands.
    pub outcomes: Vec<(RequestId, Outcome)>,
    /// In the order of history.
    pub events: Vec<Event>,
    pub revision: i64,
    pub compacted_revision: i64,
    pub touched: Touched,
    /// The last entry of the chunk.
    pub last_index: u64,
    /// Cluster time after the chunk, milliseconds since the Unix epoch, and its epoch.
    pub at_ms: u64,
    pub time_epoch: u64,
    /// Runs that could not be understood, for the node's own log: the first ones of the chunk.
    pub refused: Vec<RefusedRun>,
    pub checks: Vec<DigestCheck>,
}

/// A run of the log that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRun {
    /// Of the entry.
    pub index: u64,
    /// What this binary found wrong with it.
    pub reason: Refused,
}

/// What changed beside keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// In the order of the commands.
    pub leases: Vec<LeaseChange>,
    pub settings: bool,
    pub alarms: bool,
    pub compaction: bool,
    pub level: bool,
    /// Views that followed a change; all of them where the root path changed.
    pub areas: BTreeSet<Area>,
}

impl Applied {
    /// Reads the answers that are left to be read.
    ///
    /// # Errors
    /// A fault of the storage.
    pub fn fetch_deferred(&mut self, store: &dyn StateRead) -> Result<(), Fault> {
        for (_, outcome) in &mut self.outcomes {
            if let Ok(Response::Deferred(deferred)) = outcome {
                *outcome = deferred.clone().fetch(store)?;
            }
        }
        Ok(())
    }
}

impl Prepared {
    /// Whether answers are left whose values are read after the commit. Their image of the store has
    /// to be taken after the changes are in it and before [`State::commit`].
    pub fn has_deferred(&self) -> bool {
        self.outcomes.iter().any(|(_, outcome)| matches!(outcome, Ok(Response::Deferred(_))))
    }

    /// The rows to write, as one batch.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }
}

impl State {
    /// Evaluates entries against the committed state: nothing is changed. Entry k sees what the
    /// entries before it did.
    ///
    /// # Errors
    /// A fault of the storage, or an entry that this binary does not understand.
    pub fn prepare(
        &self,
        store: &dyn StateRead,
        entries: &[LogEntry],
        readers: Readers,
    ) -> Result<Prepared, Fault> {
        let mut chunk = Chunk::new(self, store, readers);
        for entry in entries {
            chunk.apply_entry(entry)?;
        }
        chunk.finish()
    }

    /// Brings the memory up, after `prepared.changes()` are in the store.
    pub fn commit(&mut self, prepared: Prepared) -> Applied {
        for (id, ttl_s) in &prepared.leases {
            if let Some(ttl_s) = ttl_s {
                self.leases.grant(*id, *ttl_s);
            }
        }
        for (key, slot) in &prepared.keys {
            self.commit_key(key, slot);
        }
        for (id, ttl_s) in &prepared.leases {
            if ttl_s.is_none() {
                self.leases.revoke(*id);
            }
        }
        for node in prepared.forgotten_origins {
            self.origins.forget(node);
        }
        for origin in prepared.origins.into_values() {
            self.origins.commit(origin);
        }
        if let Some(alarms) = prepared.alarms {
            self.alarms = alarms;
        }
        if let Some(settings) = prepared.settings {
            self.settings = settings;
        }
        let mut touched = prepared.touched;
        match prepared.views {
            Some(views) => {
                self.views = views;
                touched.areas = Area::ALL.into();
            }
            None => {
                let areas = prepared.events.iter().filter_map(|event| self.views.apply(event));
                touched.areas.extend(areas);
            }
        }
        self.lease_generation += touched.leases.len() as u64;
        for check in &prepared.checks {
            if self.checks.len() == limits::DIGEST_CHECKS_KEPT {
                self.checks.pop_front();
            }
            self.checks.push_back(*check);
        }
        self.counters = prepared.counters;
        Applied {
            outcomes: prepared.outcomes,
            events: prepared.events,
            revision: self.counters.revision,
            compacted_revision: self.counters.compacted_revision,
            touched,
            last_index: self.counters.last_index,
            at_ms: self.counters.at_ms,
            time_epoch: self.counters.time_epoch,
            refused: prepared.refused,
            checks: prepared.checks,
        }
    }

    fn commit_key(&mut self, key: &Bytes, slot: &Slot) {
        let meta = slot.newest.live.as_ref().map(|live| live.meta);
        let before = match meta {
            Some(meta) => self.index.insert(key, meta),
            None if slot.in_index => self.index.remove(key),
            None => None,
        };
        let lease = meta.map_or(0, |meta| meta.lease);
        let lease_before = before.map_or(0, |meta| meta.lease);
        if lease != lease_before {
            if lease_before != 0 {
                self.leases.detach(lease_before, key);
            }
            if lease != 0 {
                self.leases.attach(lease, key);
            }
        }
    }
}
