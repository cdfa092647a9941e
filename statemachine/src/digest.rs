//! Digests of the state: what replicas compare.
//!
//! `content` is the sum, modulo 2^128, of a hash of each live record, so it is kept by adding and
//! subtracting and can be computed again by a scan. `chain` covers the changes of all entries in
//! order.

use std::ops::ControlFlow;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::ids::EventId;
use crate::keyspace::meta::RecordHash;
use crate::settings::Settings;
use crate::store::{Direction, Fault, StateRead, Table};
use crate::table;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    pub content: u128,
    pub chain: u128,
}

/// What a `CheckDigest` command recorded, after all commands of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestCheck {
    pub index: u64,
    pub revision: i64,
    pub digests: Digests,
}

/// What clients compare between members: versions above the compacted revision, and those that a
/// read at the compacted revision sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u128,
    pub compacted_revision: i64,
    pub revision: i64,
}

/// Seeds that keep records of different kinds apart. Revisions, the seeds of keys, are positive.
const LEASE_SEED: u64 = u64::MAX;
const SETTINGS_SEED: u64 = u64::MAX - 1;
const ROWS_SEED: u64 = u64::MAX - 2;

pub(crate) fn record_hash(record: &[u8], mod_revision: i64) -> RecordHash {
    RecordHash::from(xxh3_128_with_seed(record, mod_revision.cast_unsigned()))
}

pub(crate) fn lease_hash(id: i64, ttl_s: i64) -> u128 {
    let mut record = [0; 16];
    record[..8].copy_from_slice(&id.to_be_bytes());
    record[8..].copy_from_slice(&ttl_s.to_be_bytes());
    xxh3_128_with_seed(&record, LEASE_SEED)
}

pub(crate) fn settings_hash(settings: &Settings) -> u128 {
    xxh3_128_with_seed(&settings.encode(), SETTINGS_SEED)
}

/// What one entry adds to the chain.
pub(crate) struct Link<'a> {
    pub(crate) index: u64,
    pub(crate) at_ms: u64,
    pub(crate) revision: i64,
    pub(crate) compacted_revision: i64,
    pub(crate) n_rows: usize,
    /// Keys and values of the entry's changes, back to back.
    pub(crate) rows: &'a [u8],
}

pub(crate) fn chain(previous: u128, link: &Link<'_>) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.to_be_bytes());
    hasher.update(&link.index.to_be_bytes());
    hasher.update(&link.at_ms.to_be_bytes());
    hasher.update(&link.revision.to_be_bytes());
    hasher.update(&link.compacted_revision.to_be_bytes());
    hasher.update(&(link.n_rows as u64).to_be_bytes());
    hasher.update(&xxh3_128_with_seed(link.rows, ROWS_SEED).to_be_bytes());
    let digest = hasher.finalize();
    u128::from_be_bytes(digest.as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
}

/// What a store says of itself, without reading it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub revision: i64,
    pub compacted_revision: i64,
    pub digests: Digests,
}

/// The digests as the last applied entry left them: what a snapshot's manifest holds.
///
/// # Errors
/// A fault of the storage.
pub fn stored(store: &dyn StateRead) -> Result<Stored, Fault> {
    let counters =
        table::meta::counters(store)?.unwrap_or_else(crate::state::counters::Counters::fresh);
    Ok(Stored {
        revision: counters.revision,
        compacted_revision: counters.compacted_revision,
        digests: counters.digests,
    })
}

/// The content digest by a scan of everything live.
///
/// # Errors
/// A fault of the storage, or a live record that is missing or differs from its hash.
pub fn recompute(store: &dyn StateRead) -> Result<u128, Fault> {
    let mut live = live_events(store)?;
    live.sort_unstable_by_key(|(id, _)| *id);
    let mut content = 0_u128;
    let mut wanted = live.iter().peekable();
    store.scan(Table::Event, &[], None, Direction::Forward, &mut |row_key, row| {
        let Some((id, hash)) = wanted.peek() else { return Ok(ControlFlow::Break(())) };
        if table::event::decode_key(row_key)? != *id {
            return Ok(ControlFlow::Continue(()));
        }
        let found = table::event::EventRow::parse(row)?.hash(id.revision);
        if found != *hash {
            return Err(table::event::corrupt(&format!("{id:?} differs from its hash")));
        }
        content = content.wrapping_add(found.to_u128());
        wanted.next();
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some((id, _)) = wanted.next() {
        return Err(table::event::corrupt(&format!("{id:?} is live and missing")));
    }
    table::lease::scan(store, &mut |id, ttl_s| {
        content = content.wrapping_add(lease_hash(id, ttl_s));
    })?;
    let settings = Settings::load(store)?;
    Ok(content.wrapping_add(settings_hash(&settings)))
}

fn live_events(store: &dyn StateRead) -> Result<Vec<(EventId, RecordHash)>, Fault> {
    let mut live = Vec::new();
    table::version::scan_newest(store, &mut |_key, version| {
        live.push((version.event_id(), version.hash));
        Ok(())
    })?;
    Ok(live)
}

/// The hash that clients compare, up to `revision`. Physical compaction does not change it.
///
/// # Errors
/// A fault of the storage.
pub fn hash_kv(
    store: &dyn StateRead,
    compacted_revision: i64,
    revision: i64,
) -> Result<HashKv, Fault> {
    let mut hash = 0_u128;
    let mut add = |version: &table::version::Version| {
        hash = hash.wrapping_add(version.meta.hash.to_u128());
    };
    let mut key: Vec<u8> = Vec::new();
    // The newest version of the key at or below the compacted revision.
    let mut base: Option<table::version::Version> = None;
    let settle = |base: Option<table::version::Version>,
                  add: &mut dyn FnMut(&table::version::Version)| {
        if let Some(version) = base.filter(|version| !version.tombstone) {
            add(&version);
        }
    };
    store.scan(Table::Version, &[], None, Direction::Forward, &mut |row_key, row| {
        let (prefix, mod_revision) = table::version::split_key(row_key)?;
        if prefix != key {
            settle(base.take(), &mut add);
            key.clear();
            key.extend_from_slice(prefix);
        }
        if mod_revision <= revision {
            let version = table::version::Version::decode(mod_revision, row)?;
            if mod_revision <= compacted_revision {
                base = Some(version);
            } else {
                add(&version);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    settle(base.take(), &mut add);
    Ok(HashKv { hash, compacted_revision, revision })
}

#[cfg(test)]
mod tests;
