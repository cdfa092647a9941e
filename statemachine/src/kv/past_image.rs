//! The index of live keys as it was at a past revision, made from the newest one.
//!
//! A client that reads a large range in pages names the revision of its first page with every
//! other one. Each page also carries the number of all keys of the range, which only a walk over
//! all of them or an index that counts can give. The newest index is copied, which costs next to
//! nothing, and what changed since is taken back in the copy. Whoever reads pages keeps the image
//! from one to the next.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::ids::EventId;
use crate::keyspace::key_index::KeyIndex;
use crate::kv::past;
use crate::limits;
use crate::state::State;
use crate::store::{Direction, Fault, StateRead, Table};
use crate::table::event::{self, EventRow};

/// The live keys of one past revision. It never changes, and shares with the newest index whatever
/// was not changed since.
#[derive(Clone, Debug)]
pub struct PastImage {
    revision: i64,
    index: KeyIndex,
}

/// A copy of the newest index, to make images of past revisions from.
#[derive(Clone, Debug)]
pub struct IndexCopy {
    revision: i64,
    index: KeyIndex,
}

impl State {
    /// Copies the index; short, whatever its size. Runs under the read lock.
    pub fn copy_index(&self) -> IndexCopy {
        IndexCopy { revision: self.revision(), index: self.index.clone() }
    }
}

/// What a key was just before its first change after a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Alive,
    Absent,
}

impl PastImage {
    /// Takes back in `newest` what changed after `revision`. `None` where that is more than [`limits::PAST_IMAGE_CHANGES_MAX`] changes or
    /// [`limits::PAST_IMAGE_KEY_BYTES_MAX`] of keys.
    ///
    /// Invariant: `revision` is not below the compacted one, and `store` is the image that belongs
    /// to the state of which `newest` is the index.
    ///
    /// # Errors
    /// A fault of the storage.
    pub fn build(
        newest: IndexCopy,
        revision: i64,
        store: &dyn StateRead,
    ) -> Result<Option<PastImage>, Fault> {
        let Some(changed) = changed_keys(store, revision, newest.revision)? else {
            return Ok(None);
        };
        let mut index = newest.index;
        for (key, before) in &changed {
            match before {
                Before::Absent => drop(index.remove(key)),
                Before::Alive => {
                    let meta = past::get(store, key, revision)?.ok_or_else(|| {
                        let reason = format!("a key that lived at revision {revision} is missing");
                        Fault::Invariant(reason)
                    })?;
                    index.insert(key, meta);
                }
            }
        }
        Ok(Some(PastImage { revision, index }))
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Bytes that dropping the image frees, about.
    pub fn unshared_bytes(&self) -> usize {
        self.index.unshared_bytes()
    }
}

/// The keys that changed after one revision, up to another, by the first of their changes.
fn changed_keys(
    store: &dyn StateRead,
    after: i64,
    through: i64,
) -> Result<Option<BTreeMap<Vec<u8>, Before>>, Fault> {
    let start = event::encode_key(EventId::first_of(after.saturating_add(1)));
    let end = event::encode_key(EventId::first_of(through.saturating_add(1)));
    let mut changed: BTreeMap<Vec<u8>, Before> = BTreeMap::new();
    let (mut n_changes, mut key_bytes) = (0, 0);
    store.scan(Table::Event, &start, Some(&end), Direction::Forward, &mut |row_key, row| {
        n_changes += 1;
        let is_too_much = n_changes > limits::PAST_IMAGE_CHANGES_MAX
            || key_bytes > limits::PAST_IMAGE_KEY_BYTES_MAX;
        if is_too_much {
            return Ok(ControlFlow::Break(()));
        }
        let id = event::decode_key(row_key)?;
        let row = EventRow::parse(row)?;
        if !changed.contains_key(row.key()) {
            let before = if row.is_create(id.revision) { Before::Absent } else { Before::Alive };
            key_bytes += row.key().len();
            changed.insert(row.key().to_vec(), before);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let is_whole = n_changes <= limits::PAST_IMAGE_CHANGES_MAX
        && key_bytes <= limits::PAST_IMAGE_KEY_BYTES_MAX;
    Ok(is_whole.then_some(changed))
}
