//! Physical compaction: deleting what the compacted revision makes unreachable.
//!
//! Compaction itself is a command that moves the compacted revision on every node at once. Each
//! node then deletes rows in the background, in bounded steps, by walking the changes up to the
//! compacted revision. A change makes its key's version before it unreachable. A tombstone below
//! the compacted revision goes itself; one exactly at it stays until the next compaction, because
//! watchers may start there. Reads at the compacted revision and history from it on are right at
//! any moment, since a step deletes only what they do not see, older versions first.

use std::ops::ControlFlow;

use crate::history;
use crate::ids::EventId;
use crate::state::State;
use crate::store::{Changes, Direction, Fault, StateRead, Table};
use crate::table::event::{self, EventRow};
use crate::table::{meta, version};

/// How far this node's walk is. A row of table `meta`, not part of the replicated state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next change to look at.
    pub next: EventId,
    /// The compacted revision for which the walk is complete.
    pub finished_for: i64,
    /// The compacted revision for which the walk came to `next`.
    pub walked_for: i64,
}

impl Cursor {
    /// # Errors
    /// A fault of the storage.
    pub fn load(store: &dyn StateRead) -> Result<Cursor, Fault> {
        meta::cursor(store)
    }

    pub fn is_finished(&self, compacted_revision: i64) -> bool {
        self.finished_for >= compacted_revision
    }

    /// Where a walk for this compacted revision begins. One that was cut within what was then the
    /// compacted revision left the tombstones of that revision, so it begins there again; see the
    /// test `a_walk_that_is_cut_within_the_compacted_revision_leaves_no_tombstone`.
    fn start(&self, compacted_revision: i64) -> EventId {
        let was_compacted = self.walked_for == self.next.revision;
        if was_compacted && compacted_revision > self.walked_for {
            EventId::first_of(self.next.revision)
        } else {
            self.next
        }
    }
}

/// One step of the walk.
#[derive(Debug)]
pub struct Step {
    /// Deletions, and the new cursor's row.
    pub changes: Changes,
    pub cursor: Cursor,
}

/// What compaction could free, copied from the state so that the search needs no lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaimable {
    compacted_revision: i64,
    revision: i64,
    superseded_at_compacted_bytes: u64,
    superseded_bytes: u64,
}

impl State {
    /// What compaction could free of the logical size.
    pub fn reclaimable(&self) -> Reclaimable {
        Reclaimable {
            compacted_revision: self.counters.compacted_revision,
            revision: self.counters.revision,
            superseded_at_compacted_bytes: self.counters.superseded_at_compacted_bytes,
            superseded_bytes: self.counters.superseded_bytes,
        }
    }
}

impl Reclaimable {
    /// Logical bytes of all versions that newer ones superseded and that are not compacted.
    pub fn bytes(&self) -> u64 {
        self.superseded_bytes - self.superseded_at_compacted_bytes
    }

    /// The lowest revision that compaction must go to, to free so many logical bytes; the newest
    /// revision where all of history is not enough.
    ///
    /// # Errors
    /// A fault of the storage.
    pub fn revision_that_frees(&self, store: &dyn StateRead, bytes: u64) -> Result<i64, Fault> {
        let wanted = self.superseded_at_compacted_bytes.saturating_add(bytes);
        // Superseded bytes never go down from one revision to the next, and each revision above the
        // compacted one exists.
        let (mut low, mut high) = (self.compacted_revision.max(1), self.revision);
        while low < high {
            let middle = i64::midpoint(low, high);
            let is_enough = middle > self.compacted_revision
                && history::superseded_bytes_at(store, middle)? >= wanted;
            if is_enough { high = middle } else { low = middle + 1 }
        }
        Ok(high)
    }
}

/// Looks at no more than `changes_max` changes. Write `changes`, then call again with the new
/// cursor until it [is finished](Cursor::is_finished).
///
/// Invariant: `store` holds everything committed up to `compacted_revision`.
///
/// # Errors
/// A fault of the storage.
pub fn step(
    store: &dyn StateRead,
    compacted_revision: i64,
    cursor: Cursor,
    changes_max: usize,
) -> Result<Step, Fault> {
    let mut changes = Changes::default();
    let start = event::encode_key(cursor.start(compacted_revision));
    let end = event::encode_key(EventId::first_of(compacted_revision.saturating_add(1)));
    // Tombstones at the compacted revision wait for the next compaction, so does the cursor.
    let mut next = EventId::first_of(compacted_revision);
    let mut finished_for = compacted_revision;
    let mut n_seen = 0;
    let mut seen = Vec::new();
    store.scan(Table::Event, &start, Some(&end), Direction::Forward, &mut |row_key, row| {
        let id = event::decode_key(row_key)?;
        if n_seen == changes_max {
            (next, finished_for) = (id, cursor.finished_for);
            return Ok(ControlFlow::Break(()));
        }
        n_seen += 1;
        let row = EventRow::parse(row)?;
        let shadowed = row.shadowed_sub();
        seen.push((id, row.is_tombstone(), shadowed, row.key().to_vec()));
        Ok(ControlFlow::Continue(()))
    })?;
    for (id, is_tombstone, shadowed, key) in seen {
        delete_before(store, &key, id.revision, &mut changes)?;
        if is_tombstone && id.revision < compacted_revision {
            delete_version(&key, id, &mut changes);
            // No version points to a put that its own command deleted again.
            if let Some(sub) = shadowed {
                changes.delete(Table::Event, &event::encode_key(EventId { sub, ..id }));
            }
        }
    }
    let cursor = Cursor { next, finished_for, walked_for: compacted_revision };
    meta::put_cursor(&mut changes, &cursor);
    Ok(Step { changes, cursor })
}

/// Deletes the versions of a key below `revision`. There is one at most: the walk took the others.
fn delete_before(
    store: &dyn StateRead,
    key: &[u8],
    revision: i64,
    changes: &mut Changes,
) -> Result<(), Fault> {
    let (mut start, mut end) = (Vec::new(), Vec::new());
    version::encode_prefix(key, &mut start);
    version::encode_key(key, revision, &mut end);
    store.scan(Table::Version, &start, Some(&end), Direction::Backward, &mut |row_key, row| {
        let (_, mod_revision) = version::split_key(row_key)?;
        let version = version::Version::decode(mod_revision, row)?;
        delete_version(key, version.meta.event_id(), changes);
        Ok(ControlFlow::Continue(()))
    })
}

fn delete_version(key: &[u8], id: EventId, changes: &mut Changes) {
    let mut row_key = Vec::new();
    version::encode_key(key, id.revision, &mut row_key);
    changes.delete(Table::Version, &row_key);
    changes.delete(Table::Event, &event::encode_key(id));
}

#[cfg(test)]
mod tests;
