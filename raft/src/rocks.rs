//! The state on disk: one RocksDB per generation, one column family per table.
//!
//! Its write-ahead log is off. Every batch carries the applied log id, flushes are atomic over all
//! families, and what a crash takes away is applied again from the Raft log.

mod image;
mod offline;
mod options;
mod recent;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use prost::Message;
use proto::quorate;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, DB, FlushOptions, Snapshot, WriteBatch, WriteOptions};
use statemachine::{Changes, Direction, Fault, StateRead, Table, Visit, versions};

use crate::convert::{
    log_id_from_proto, log_id_to_proto, stored_membership_from_proto, stored_membership_to_proto,
};
use crate::durable;
use crate::failure::{Area, OnFailure};
use crate::room::is_no_space;
use crate::types::{LogId, StoredMembership};

pub use image::{Pinned, Row};
pub use offline::{BuildError, StateBuilder};
pub use options::{RocksMemory, StateMemory};

use recent::RecentEvents;

/// The family that holds what belongs to consensus, not to the state.
const FAMILY_RAFT: &str = "raft";
const KEY_APPLIED: &str = "applied";
const KEY_MEMBERSHIP: &str = "membership";
const KEY_LOG_DURABLE: &str = "log_durable";
const KEY_SCHEMA: &str = "schema";

/// The tables of a generation cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StateOpenError {
    #[error("state {}: another process has it open: stop that one first", .0.display())]
    InUse(PathBuf),
    #[error(
        "state {}: {source}; if the state is damaged, the next start takes the state of another \
         member",
        path.display()
    )]
    Rocks { path: PathBuf, source: rocksdb::Error },
    #[error(
        "state {}: the disk is full: {source}; make room, this node's state is whole",
        path.display()
    )]
    Full { path: PathBuf, source: rocksdb::Error },
    #[error("state {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "state {} has layout version {found}, this binary reads {}: start the binary that wrote it, \
         or a newer one",
        path.display(),
        versions::STATE
    )]
    Schema { path: PathBuf, found: u32 },
    #[error(
        "state {} holds an unreadable {key} row ({reason}): the next start takes the state of \
         another member",
        path.display()
    )]
    Row { path: PathBuf, key: &'static str, reason: String },
    #[error("state {}: {source}", path.display())]
    State { path: PathBuf, source: Fault },
}

impl StateOpenError {
    /// What is on the disk is not what was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            StateOpenError::Rocks { source, .. } => source.kind() == rocksdb::ErrorKind::Corruption,
            StateOpenError::Row { .. } => true,
            StateOpenError::State { source: Fault::Corrupt { .. }, .. } => true,
            StateOpenError::State { source: Fault::Storage(text), .. } => {
                text.contains("Corruption: ")
            }
            StateOpenError::State { .. }
            | StateOpenError::InUse(_)
            | StateOpenError::Full { .. }
            | StateOpenError::Io { .. }
            | StateOpenError::Schema { .. } => false,
        }
    }
}

/// Up to where a generation is: what consensus asks of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
}

/// The durable end of a node's log, as the state saw it; always at or below what it had applied,
/// which no truncation can take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogMark {
    pub node: u64,
    pub durable_index: u64,
}

/// So few rows are looked up one by one.
const SHORT_READ_ROWS: usize = 4;

/// The tables of one generation.
pub struct Tables {
    // Closed first: fields drop in this order.
    db: DB,
    recent: RecentEvents,
    home: Home,
    /// Present once these are the tables of a node: a read that fails ends it then.
    on_failure: OnceLock<OnFailure>,
}

/// Where tables are. Removes the directory in the end if they were replaced.
struct Home {
    path: PathBuf,
    retired: AtomicBool,
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire)
            && let Err(error) = durable::remove_dir(&self.path)
        {
            // Deleted at the next start.
            tracing::warn!(%error, path = %self.path.display(), "an old generation stays");
        }
    }
}

impl Tables {
    /// Creates empty tables in `path`, which must not exist.
    ///
    /// # Errors
    /// The disk fails, or something is there.
    pub fn create(path: &Path, memory: &StateMemory) -> Result<Tables, StateOpenError> {
        std::fs::create_dir_all(path)
            .map_err(|source| StateOpenError::Io { path: path.to_owned(), source })?;
        let mut options = options::database(memory);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_error_if_exists(true);
        let tables = Tables::with_options(path, &options, memory)?;
        let mut batch = WriteBatch::default();
        batch.put_cf(tables.family(FAMILY_RAFT), KEY_SCHEMA, versions::STATE.newest.to_le_bytes());
        tables
            .write_batch(batch)
            .and_then(|()| tables.flush())
            .map_err(|source| StateOpenError::Rocks { path: path.to_owned(), source })?;
        Ok(tables)
    }

    /// Opens tables that exist.
    ///
    /// # Errors
    /// They are damaged or of another layout.
    pub fn open(path: &Path, memory: &StateMemory) -> Result<Tables, StateOpenError> {
        let tables = Tables::with_options(path, &options::database(memory), memory)?;
        tables.check_schema()?;
        Ok(tables)
    }

    /// Opens tables that nothing may change.
    ///
    /// # Errors
    /// They are damaged or of another layout.
    pub fn open_read_only(path: &Path, memory: &StateMemory) -> Result<Tables, StateOpenError> {
        Tables::open_read_only_with(path, &options::database(memory), memory)
    }

    /// As [`Tables::open_read_only`]; RocksDB's own messages go to `messages`, not among the files.
    pub(crate) fn open_untouched(
        path: &Path,
        memory: &StateMemory,
        messages: &Path,
    ) -> Result<Tables, StateOpenError> {
        let mut options = options::database(memory);
        options.set_db_log_dir(messages);
        Tables::open_read_only_with(path, &options, memory)
    }

    fn open_read_only_with(
        path: &Path,
        options: &rocksdb::Options,
        memory: &StateMemory,
    ) -> Result<Tables, StateOpenError> {
        let families = options::families(memory);
        let db = DB::open_cf_descriptors_read_only(options, path, families, false)
            .map_err(|source| StateOpenError::Rocks { path: path.to_owned(), source })?;
        let tables = Tables::new(path, db, memory);
        tables.check_schema()?;
        Ok(tables)
    }

    fn with_options(
        path: &Path,
        options: &rocksdb::Options,
        memory: &StateMemory,
    ) -> Result<Tables, StateOpenError> {
        let db = DB::open_cf_descriptors(options, path, options::families(memory)).map_err(
            |source| {
                if is_in_use(&source) {
                    return StateOpenError::InUse(path.to_owned());
                }
                if is_no_space(source.as_ref()) {
                    return StateOpenError::Full { path: path.to_owned(), source };
                }
                StateOpenError::Rocks { path: path.to_owned(), source }
            },
        )?;
        Ok(Tables::new(path, db, memory))
    }

    fn new(path: &Path, db: DB, memory: &StateMemory) -> Tables {
        let home = Home { path: path.to_owned(), retired: AtomicBool::new(false) };
        let recent = RecentEvents::new(memory.recent_bytes());
        Tables { db, recent, home, on_failure: OnceLock::new() }
    }

    /// From now on a read that fails is reported: what cannot be read cannot be served.
    pub(crate) fn report_failures(&self, on_failure: &OnFailure) {
        self.on_failure.get_or_init(|| on_failure.clone());
    }

    fn failed(&self, error: rocksdb::Error) -> Fault {
        let fault = storage(error);
        if let Some(on_failure) = self.on_failure.get() {
            on_failure.report(Area::Rows, fault.to_string());
        }
        fault
    }

    /// Takes back `retire`.
    pub(crate) fn keep(&self) {
        self.home.retired.store(false, Ordering::Release);
    }

    /// The directory goes when nobody holds the tables any more.
    pub(crate) fn retire(&self) {
        self.home.retired.store(true, Ordering::Release);
    }

    fn check_schema(&self) -> Result<(), StateOpenError> {
        let row = self.raft_row(KEY_SCHEMA)?.unwrap_or_default();
        let found = <[u8; 4]>::try_from(row.as_slice()).map_or(0, u32::from_le_bytes);
        if versions::STATE.contains(found) {
            return Ok(());
        }
        Err(StateOpenError::Schema { path: self.home.path.clone(), found })
    }

    pub fn path(&self) -> &Path {
        &self.home.path
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the families were named at open")
    }

    fn raft_row(&self, key: &'static str) -> Result<Option<Vec<u8>>, StateOpenError> {
        self.db
            .get_cf(self.family(FAMILY_RAFT), key)
            .map_err(|source| StateOpenError::Rocks { path: self.home.path.clone(), source })
    }

    fn unreadable(&self, key: &'static str, reason: impl ToString) -> StateOpenError {
        StateOpenError::Row { path: self.home.path.clone(), key, reason: reason.to_string() }
    }

    /// # Errors
    /// The rows cannot be read.
    pub fn position(&self) -> Result<Position, StateOpenError> {
        let mut position = Position::default();
        if let Some(row) = self.raft_row(KEY_APPLIED)? {
            let message = quorate::LogId::decode(row.as_slice())
                .map_err(|error| self.unreadable(KEY_APPLIED, error))?;
            position.applied = Some(log_id_from_proto(&message));
        }
        if let Some(row) = self.raft_row(KEY_MEMBERSHIP)? {
            let message = quorate::StoredMembership::decode(row.as_slice())
                .map_err(|error| self.unreadable(KEY_MEMBERSHIP, error))?;
            position.membership = stored_membership_from_proto(message)
                .map_err(|error| self.unreadable(KEY_MEMBERSHIP, error))?;
        }
        Ok(position)
    }

    /// # Errors
    /// The row cannot be read.
    pub fn log_mark(&self) -> Result<Option<LogMark>, StateOpenError> {
        let Some(row) = self.raft_row(KEY_LOG_DURABLE)? else {
            return Ok(None);
        };
        let (node, durable_index) = row
            .split_first_chunk::<8>()
            .and_then(|(node, rest)| Some((node, <[u8; 8]>::try_from(rest).ok()?)))
            .ok_or_else(|| self.unreadable(KEY_LOG_DURABLE, "it has the wrong length"))?;
        let node = u64::from_le_bytes(*node);
        Ok(Some(LogMark { node, durable_index: u64::from_le_bytes(durable_index) }))
    }

    /// Writes one chunk of applied entries: all of it or, after a crash, nothing.
    ///
    /// # Errors
    /// The storage failed; nothing may be written after that.
    pub(crate) fn write(
        &self,
        changes: &Changes,
        applied: &LogId,
        membership: Option<&StoredMembership>,
        mark: Option<LogMark>,
    ) -> Result<(), Fault> {
        let raft = self.family(FAMILY_RAFT);
        let mut batch = self.batch(changes);
        batch.put_cf(raft, KEY_APPLIED, log_id_to_proto(applied).encode_to_vec());
        if let Some(membership) = membership {
            let row = stored_membership_to_proto(membership).encode_to_vec();
            batch.put_cf(raft, KEY_MEMBERSHIP, row);
        }
        if let Some(mark) = mark {
            let mut row = mark.node.to_le_bytes().to_vec();
            row.extend_from_slice(&mark.durable_index.to_le_bytes());
            batch.put_cf(raft, KEY_LOG_DURABLE, row);
        }
        self.write_batch(batch).map_err(storage)
    }

    /// Writes what changes no answer, as physical compaction does.
    pub(crate) fn write_changes(&self, changes: &Changes) -> Result<(), Fault> {
        self.write_batch(self.batch(changes)).map_err(storage)
    }

    fn batch(&self, changes: &Changes) -> WriteBatch {
        let mut batch = WriteBatch::with_capacity_bytes(changes.size_bytes() + 32 * changes.len());
        let families = Table::ALL.map(|table| self.family(table.name()));
        for (table, key, value) in changes.iter() {
            let family = families[table as usize];
            match value {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
        batch
    }

    fn row(
        &self,
        table: Table,
        key: &[u8],
        snapshot: Option<&Snapshot<'_>>,
    ) -> Result<Option<Bytes>, Fault> {
        let is_event = table == Table::Event;
        if is_event && let Some(row) = self.recent.get(key) {
            return Ok(Some(row));
        }
        let family = self.family(table.name());
        let row = image::get(self, family, image::read_options(snapshot), key)?;
        if is_event && let Some(row) = &row {
            self.recent.keep(key, row);
        }
        Ok(row)
    }

    fn rows(
        &self,
        table: Table,
        keys: &[&[u8]],
        snapshot: Option<&Snapshot<'_>>,
    ) -> Result<Vec<Option<Bytes>>, Fault> {
        // A long read would only push out what is read again and again.
        if keys.len() <= SHORT_READ_ROWS {
            return keys.iter().map(|key| self.row(table, key, snapshot)).collect();
        }
        let family = self.family(table.name());
        image::get_many(self, family, image::read_options(snapshot), keys)
    }

    fn write_batch(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options)
    }

    /// Makes everything written so far durable, all families at one point.
    pub(crate) fn flush(&self) -> Result<(), rocksdb::Error> {
        let mut families = vec![self.family(FAMILY_RAFT)];
        families.extend(Table::ALL.iter().map(|table| self.family(table.name())));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options)
    }

    /// Flushes and compactions in the background that failed since the tables were opened.
    pub(crate) fn failed_jobs(&self) -> u64 {
        failed_jobs(&self.db)
    }

    /// Whether compactions wait from now on.
    pub(crate) fn pause_compactions(&self, pause: bool) {
        let mut families = vec![self.family(FAMILY_RAFT)];
        families.extend(Table::ALL.iter().map(|table| self.family(table.name())));
        pause_compactions(&self.db, &families, pause);
    }

    /// Hard-links an image of everything written so far into `path`, which must not exist.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<(), rocksdb::Error> {
        Checkpoint::new(&self.db)?.create_checkpoint(path)
    }

    /// Size of the live table files.
    pub fn disk_bytes(&self) -> u64 {
        self.sum_property("rocksdb.live-sst-files-size")
    }

    pub fn memtable_bytes(&self) -> u64 {
        self.sum_property("rocksdb.size-all-mem-tables")
    }

    fn sum_property(&self, name: &str) -> u64 {
        let of = |table: &Table| {
            self.db.property_int_value_cf(self.family(table.name()), name).ok().flatten()
        };
        Table::ALL.iter().filter_map(of).sum()
    }
}

pub(crate) fn failed_jobs(db: &DB) -> u64 {
    db.property_int_value("rocksdb.background-errors").ok().flatten().unwrap_or_default()
}

pub(crate) fn pause_compactions(db: &DB, families: &[&ColumnFamily], pause: bool) {
    let value = if pause { "true" } else { "false" };
    for family in families {
        if let Err(error) = db.set_options_cf(*family, &[("disable_auto_compactions", value)]) {
            tracing::warn!(%error, pause, "compactions are not paused or resumed");
        }
    }
}

/// RocksDB knows no other sign of it than its words.
pub(crate) fn is_in_use(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    text.contains("LOCK") && (text.contains("lock hold by") || text.contains("While lock file"))
}

pub(crate) fn storage(error: rocksdb::Error) -> Fault {
    Fault::Storage(error.to_string())
}

/// Reads of the newest rows. One read is consistent in itself, two are not with each other.
impl StateRead for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.row(table, key, None)
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Fault> {
        self.rows(table, keys, None)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let family = self.family(table.name());
        let options = image::read_options(None);
        image::scan(self, family, options, (start, end), direction, visit)
    }
}
