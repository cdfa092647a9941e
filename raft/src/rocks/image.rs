//! Reads of one moment: a pinned image of the tables.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::quorate;
use rocksdb::{ColumnFamily, ReadOptions, Snapshot};
use statemachine::{Direction, Fault, StateRead, Table, Visit};

use crate::convert::log_id_from_proto;
use crate::types::LogId;

use super::{FAMILY_RAFT, KEY_APPLIED, Tables};

self_cell::self_cell!(
    struct Held {
        owner: Arc<Tables>,
        #[not_covariant]
        dependent: Snapshot,
    }
);

/// The tables as they were when it was taken, for as long as it is held. It keeps their files.
///
/// It may be ahead of the `State` it was pinned with, by entries whose rows are written and which
/// are about to become visible; it is never behind.
pub struct Pinned(Held);

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}

impl AsRef<Pinned> for Pinned {
    fn as_ref(&self) -> &Pinned {
        self
    }
}

impl Pinned {
    pub(crate) fn new(tables: Arc<Tables>) -> Pinned {
        Pinned(Held::new(tables, |tables| tables.db.snapshot()))
    }

    /// The last entry whose rows are in this image.
    ///
    /// # Errors
    /// A fault of the storage.
    pub fn applied(&self) -> Result<Option<LogId>, Fault> {
        self.0.with_dependent(|tables, snapshot| {
            let family = tables.family(FAMILY_RAFT);
            let options = read_options(Some(snapshot));
            let Some(row) = get(tables, family, options, KEY_APPLIED.as_bytes())? else {
                return Ok(None);
            };
            let message = quorate::LogId::decode(row).map_err(|error| Fault::Corrupt {
                table: FAMILY_RAFT,
                reason: error.to_string(),
            })?;
            Ok(Some(log_id_from_proto(&message)))
        })
    }

    /// Every row of the image, table by table in key order, without filling the cache: what a
    /// logical backup takes.
    ///
    /// # Errors
    /// A fault of the storage, or what `visit` returned.
    pub fn export(
        &self,
        visit: &mut dyn FnMut(Row<'_>) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        self.0.with_dependent(|tables, snapshot| {
            for table in Table::ALL {
                let mut options = read_options(Some(snapshot));
                options.fill_cache(false);
                options.set_readahead_size(2 << 20);
                let mut stopped = false;
                let family = tables.family(table.name());
                let range = (&[][..], None);
                let read = &mut |key: &[u8], value: &[u8]| {
                    let flow = visit(Row { table, key, value })?;
                    stopped = flow.is_break();
                    Ok(flow)
                };
                scan(tables, family, options, range, Direction::Forward, read)?;
                if stopped {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// One row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub table: Table,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl StateRead for Pinned {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.0.with_dependent(|tables, snapshot| tables.row(table, key, Some(snapshot)))
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Fault> {
        self.0.with_dependent(|tables, snapshot| tables.rows(table, keys, Some(snapshot)))
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        self.0.with_dependent(|tables, snapshot| {
            let family = tables.family(table.name());
            let options = read_options(Some(snapshot));
            scan(tables, family, options, (start, end), direction, visit)
        })
    }
}

pub(super) fn read_options(snapshot: Option<&Snapshot<'_>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    if let Some(snapshot) = snapshot {
        options.set_snapshot(snapshot);
    }
    options
}

pub(super) fn get(
    tables: &Tables,
    family: &ColumnFamily,
    options: ReadOptions,
    key: &[u8],
) -> Result<Option<Bytes>, Fault> {
    let row =
        tables.db.get_pinned_cf_opt(family, key, &options).map_err(|error| tables.failed(error))?;
    Ok(row.map(|row| Bytes::copy_from_slice(&row)))
}

/// A read of more rows than this does not fill the block cache: it would only push out what is
/// read again and again, and inserting costs more than the read.
const CACHED_ROWS_MAX: usize = 1024;

/// Reads in the order in which rows lie, so that each block is searched and unpacked once.
pub(super) fn get_many(
    tables: &Tables,
    family: &ColumnFamily,
    mut options: ReadOptions,
    keys: &[&[u8]],
) -> Result<Vec<Option<Bytes>>, Fault> {
    options.fill_cache(keys.len() <= CACHED_ROWS_MAX);
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by_key(|at| keys[*at]);
    let mut rows = vec![None; keys.len()];
    for batch in order.chunks(BATCH_ROWS) {
        let sorted = batch.iter().map(|at| keys[*at]);
        let found = tables.db.batched_multi_get_cf_opt(family, sorted, true, &options);
        for (at, row) in batch.iter().zip(found) {
            rows[*at] =
                row.map_err(|error| tables.failed(error))?.map(|row| Bytes::copy_from_slice(&row));
        }
    }
    Ok(rows)
}

/// Rows that RocksDB looks up together; it pins the blocks of all of them.
const BATCH_ROWS: usize = 256;

pub(super) fn scan(
    tables: &Tables,
    family: &ColumnFamily,
    mut options: ReadOptions,
    (start, end): (&[u8], Option<&[u8]>),
    direction: Direction,
    visit: &mut Visit<'_>,
) -> Result<(), Fault> {
    if end.is_some_and(|end| end <= start) {
        return Ok(());
    }
    // Bounds, so that deleted rows beyond them are never walked over.
    options.set_iterate_lower_bound(start);
    if let Some(end) = end {
        options.set_iterate_upper_bound(end);
    }
    let mut rows = tables.db.raw_iterator_cf_opt(family, options);
    match direction {
        Direction::Forward => rows.seek_to_first(),
        Direction::Backward => rows.seek_to_last(),
    }
    while let Some((key, value)) = rows.item() {
        if visit(key, value)?.is_break() {
            return Ok(());
        }
        match direction {
            Direction::Forward => rows.next(),
            Direction::Backward => rows.prev(),
        }
    }
    rows.status().map_err(|error| tables.failed(error))
}
