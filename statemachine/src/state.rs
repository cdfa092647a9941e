//! The replicated state in memory. All of it can be rebuilt from the tables.

use std::collections::VecDeque;

use crate::alarm::{Alarm, AlarmKind, Alarms};
use crate::digest::{DigestCheck, Digests};
use crate::keyspace::key_index::KeyIndex;
use crate::keyspace::key_range::KeyRange;
use crate::keyspace::meta::KeyMeta;
use crate::lease::{Lease, Leases};
use crate::origin::Origins;
use crate::settings::Settings;
use crate::store::{Fault, StateRead};
use crate::view::Views;

use self::counters::Counters;
use self::load::Loading;

pub(crate) mod chunk;
pub(crate) mod command;
pub(crate) mod commit;
pub(crate) mod counters;
pub(crate) mod draft;
mod lease_commands;
pub(crate) mod live_keys;
pub(crate) mod load;
mod refusal;
mod time;

/// What readers see and commands are evaluated against.
///
/// Invariant: equals `State::load` of the tables that all committed changes are in, but for what is
/// said to belong to this process.
#[derive(Debug)]
pub struct State {
    pub(crate) index: KeyIndex,
    pub(crate) leases: Leases,
    pub(crate) origins: Origins,
    pub(crate) settings: Settings,
    pub(crate) alarms: Alarms,
    pub(crate) counters: Counters,
    pub(crate) views: Views,
    /// Of this process: the newest digest checks, oldest first.
    pub(crate) checks: VecDeque<DigestCheck>,
    /// Of this process.
    pub(crate) lease_generation: u64,
}

impl State {
    /// Rebuilds the state from the tables; empty ones give the state of a new cluster.
    ///
    /// # Errors
    /// A fault of the storage, or rows that cannot be read.
    pub fn load(store: &dyn StateRead) -> Result<State, Fault> {
        let loading = Loading::begin(store)?;
        let mut views = loading.views();
        loading.read(store, &mut |pairs| {
            pairs.load_into(&mut views);
            Ok(())
        })?;
        Ok(loading.finish(views))
    }

    /// Of the newest change. A fresh state stands at 1.
    pub fn revision(&self) -> i64 {
        self.counters.revision
    }

    /// Reads below are refused; 0 where nothing was ever compacted.
    pub fn compacted_revision(&self) -> i64 {
        self.counters.compacted_revision
    }

    pub fn digests(&self) -> Digests {
        self.counters.digests
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How often cluster time was set back.
    pub fn time_epoch(&self) -> u64 {
        self.counters.time_epoch
    }

    /// The latest cluster time seen, milliseconds since the Unix epoch.
    pub fn at_ms(&self) -> u64 {
        self.counters.at_ms
    }

    /// The last entry that held commands.
    pub fn last_index(&self) -> u64 {
        self.counters.last_index
    }

    pub fn level(&self) -> u32 {
        self.counters.level
    }

    /// What the quota bounds.
    pub fn logical_bytes(&self) -> u64 {
        self.counters.logical_bytes()
    }

    /// Logical size of live keys and leases alone.
    pub fn live_bytes(&self) -> u64 {
        self.counters.live_bytes
    }

    pub fn n_keys(&self) -> usize {
        self.index.len()
    }

    /// Bytes that the index of live keys takes, keys included.
    pub fn index_memory_bytes(&self) -> usize {
        self.index.memory_bytes()
    }

    pub fn views(&self) -> &Views {
        &self.views
    }

    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.alarms.iter()
    }

    pub fn is_alarm_raised(&self, kind: AlarmKind) -> bool {
        self.alarms.is_raised(kind)
    }

    /// A lease that has not ended.
    pub fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.get(id).filter(|lease| !lease.is_ended())
    }

    /// Those that have not ended, by ascending id.
    pub fn leases(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().filter(|(_, lease)| !lease.is_ended())
    }

    /// Leases that have ended and still have keys to be deleted.
    pub fn ending_leases(&self) -> impl Iterator<Item = i64> {
        self.leases.iter().filter(|(_, lease)| lease.is_ended()).map(|(id, _)| id)
    }

    pub fn is_lease_ending(&self, id: i64) -> bool {
        self.leases.get(id).is_some_and(Lease::is_ended)
    }

    /// With those that are ending.
    pub fn n_leases(&self) -> usize {
        self.leases.len()
    }

    /// Rises whenever a lease comes or goes, as long as the process lives.
    pub fn lease_generation(&self) -> u64 {
        self.lease_generation
    }

    /// What the check entry at `index` recorded, if it is one of the last few.
    pub fn digest_check(&self, index: u64) -> Option<DigestCheck> {
        self.checks.iter().find(|check| check.index == index).copied()
    }

    /// Boot epoch of each origin, by node id.
    pub fn origins(&self) -> impl Iterator<Item = (u64, u64)> {
        self.origins.iter().map(|(node, origin)| (node, origin.header.epoch))
    }

    /// Outcomes kept because their origins have not settled them.
    pub fn n_unsettled_outcomes(&self) -> u64 {
        self.origins.iter().map(|(_, origin)| origin.n_outcomes()).sum()
    }

    /// What is known of a live key without reading its value.
    pub fn key_meta(&self, key: &[u8]) -> Option<KeyMeta> {
        self.index.get(key).copied()
    }

    /// Number of live keys in a range.
    pub fn count(&self, range: &KeyRange<'_>) -> usize {
        self.index.count(range)
    }
}
