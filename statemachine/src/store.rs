//! The tables that hold the state, and how this crate reads and changes them.
//!
//! The truth is in the tables; `State` in memory holds only what can be rebuilt from them. `raft`
//! keeps them in RocksDB, `testkit` in ordered maps.

use std::ops::ControlFlow;

use bytes::Bytes;

/// A set of rows ordered by key. `raft` keeps each in a column family of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// (revision, sub) -> one change of one key, with its value.
    Event,
    /// (key, revision) -> where that version's event is, and what an index needs of it.
    Version,
    /// lease id -> granted time to live.
    Lease,
    /// Rows of typed domains that are not part of the keyspace (origins, settings, tasks…).
    Domain,
    /// Counters and digests of the whole state.
    Meta,
}

impl Table {
    pub const ALL: [Table; 5] =
        [Table::Event, Table::Version, Table::Lease, Table::Domain, Table::Meta];

    /// The name under which a store keeps the table. Never changes.
    pub fn name(self) -> &'static str {
        match self {
            Table::Event => "event",
            Table::Version => "version",
            Table::Lease => "lease",
            Table::Domain => "domain",
            Table::Meta => "meta",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// Called for each row of a scan; `Break` ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Fault> + 'a;

/// Reads of one consistent image of the tables.
pub trait StateRead {
    /// # Errors
    /// A fault of the storage; never a rejection.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Rows of many keys, in their order. A store that reads batches faster overrides it.
    ///
    /// # Errors
    /// A fault of the storage.
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Fault> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }

    /// Visits rows with `start <= key`, and `key < end` where an end is given, in key order or
    /// against it.
    ///
    /// # Errors
    /// A fault of the storage, or what `visit` returned.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault>;
}

/// The storage or an invariant failed: the node must stop. Never part of the replicated state.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("storage: {0}")]
    Storage(String),
    #[error("table {table} holds a row that cannot be read: {reason}")]
    Corrupt { table: &'static str, reason: String },
    #[error("invariant broken: {0}")]
    Invariant(String),
    #[error("entry {index} needs feature level {needed}, this binary knows {known}: upgrade it")]
    UnknownLevel { index: u64, needed: u32, known: u32 },
}

/// Row changes in order, ready to become one batch of the store.
///
/// Keys and values share one buffer, so that a put costs no allocation of its own.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    arena: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    rows: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    table: Table,
    key_end: usize,
    /// `None` deletes the row.
    value_end: Option<usize>,
}

impl Changes {
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.arena.extend_from_slice(key);
        let key_end = self.arena.len();
        self.arena.extend_from_slice(value);
        self.rows.push(Row { table, key_end, value_end: Some(self.arena.len()) });
    }

    /// Makes room for more rows and bytes.
    pub(crate) fn reserve(&mut self, n_rows: usize, n_bytes: usize) {
        self.rows.reserve(n_rows);
        self.arena.reserve(n_bytes);
    }

    /// A put whose key and value are written in place; returns the value.
    pub(crate) fn put_with(
        &mut self,
        table: Table,
        write_key: impl FnOnce(&mut Vec<u8>),
        write_value: impl FnOnce(&mut Vec<u8>),
    ) -> &[u8] {
        write_key(&mut self.arena);
        let key_end = self.arena.len();
        write_value(&mut self.arena);
        let value_end = self.arena.len();
        self.rows.push(Row { table, key_end, value_end: Some(value_end) });
        &self.arena[key_end..]
    }

    /// A place to look back to with [`Changes::since`].
    pub(crate) fn mark(&self) -> Mark {
        Mark { rows: self.rows.len(), bytes: self.arena.len() }
    }

    /// Number of changes since a mark, and their keys and values back to back.
    pub(crate) fn since(&self, mark: Mark) -> (usize, &[u8]) {
        (self.rows.len() - mark.rows, &self.arena[mark.bytes..])
    }

    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.arena.extend_from_slice(key);
        self.rows.push(Row { table, key_end: self.arena.len(), value_end: None });
    }

    /// Each change as table, key and new value (`None`: the row goes), in order.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.rows.iter().map(move |row| {
            let key = &self.arena[start..row.key_end];
            let value = row.value_end.map(|end| &self.arena[row.key_end..end]);
            start = row.value_end.unwrap_or(row.key_end);
            (row.table, key, value)
        })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn size_bytes(&self) -> usize {
        self.arena.len()
    }
}
