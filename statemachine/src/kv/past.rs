//! The keyspace as it was at a revision below the newest, read from table `version`.

use std::ops::ControlFlow;

use crate::keyspace::key_range::{End, KeyRange};
use crate::keyspace::meta::KeyMeta;
use crate::store::{Direction, Fault, StateRead, Table};
use crate::table::version::{self, Version};

/// Called for each key; `Break` ends the walk.
pub(crate) type VisitPast<'a> = dyn FnMut(&[u8], &KeyMeta) -> Result<ControlFlow<()>, Fault> + 'a;

/// The version of a key that lived at `revision`.
pub(crate) fn get(
    store: &dyn StateRead,
    key: &[u8],
    revision: i64,
) -> Result<Option<KeyMeta>, Fault> {
    if revision < 0 {
        return Ok(None);
    }
    let (mut start, mut end) = (Vec::new(), Vec::new());
    version::encode_prefix(key, &mut start);
    version::encode_key(key, revision.saturating_add(1), &mut end);
    let mut found = None;
    store.scan(Table::Version, &start, Some(&end), Direction::Backward, &mut |row_key, row| {
        let (_, mod_revision) = version::split_key(row_key)?;
        found = Some(Version::decode(mod_revision, row)?);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found.filter(|version| !version.tombstone).map(|version| version.meta))
}

/// Whether the versions of the keys of a range are more than `rows_max` rows.
pub(crate) fn has_more_rows(
    store: &dyn StateRead,
    range: &KeyRange<'_>,
    rows_max: usize,
) -> Result<bool, Fault> {
    if range.is_empty() || range.end == End::Single {
        return Ok(false);
    }
    let (start, end) = version::scan_bounds(range);
    let mut n_rows = 0;
    store.scan(Table::Version, &start, end.as_deref(), Direction::Forward, &mut |_key, _row| {
        n_rows += 1;
        let flow =
            if n_rows > rows_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        Ok(flow)
    })?;
    Ok(n_rows > rows_max)
}

/// Visits the keys of a range that lived at `revision`, in order.
///
/// Invariant: `revision` is not below the compacted one; then physical compaction, which may be
/// under way, does not change what this sees.
pub(crate) fn visit(
    store: &dyn StateRead,
    range: &KeyRange<'_>,
    revision: i64,
    visit: &mut VisitPast<'_>,
) -> Result<(), Fault> {
    if range.is_empty() {
        return Ok(());
    }
    if range.end == End::Single {
        if let Some(meta) = get(store, range.start, revision)? {
            // There is nothing after it to go on to.
            let _flow = visit(range.start, &meta)?;
        }
        return Ok(());
    }
    let (start, end) = version::scan_bounds(range);
    let mut prefix_before: Vec<u8> = Vec::new();
    let mut newest: Option<Version> = None;
    let mut key = Vec::new();
    let mut stopped = false;
    let mut emit = |prefix: &[u8], newest: Option<Version>| match newest {
        Some(version) if !version.tombstone => {
            version::decode_prefix(prefix, &mut key)?;
            visit(&key, &version.meta)
        }
        Some(_) | None => Ok(ControlFlow::Continue(())),
    };
    store.scan(
        Table::Version,
        &start,
        end.as_deref(),
        Direction::Forward,
        &mut |row_key, row| {
            let (prefix, mod_revision) = version::split_key(row_key)?;
            if prefix != prefix_before {
                let flow = emit(&prefix_before, newest.take())?;
                if flow.is_break() {
                    stopped = true;
                    return Ok(flow);
                }
                prefix_before.clear();
                prefix_before.extend_from_slice(prefix);
            }
            if mod_revision <= revision {
                newest = Some(Version::decode(mod_revision, row)?);
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    if !stopped {
        let _flow = emit(&prefix_before, newest)?;
    }
    Ok(())
}
