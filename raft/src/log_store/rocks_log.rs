//! The log's disk: a RocksDB of its own, whose write-ahead log is the only thing that is synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::rocks;
use crate::room::{Room, is_no_space};

use super::disk::{Fact, LogBatch, LogChange, LogDisk, VisitRow};
use super::wal_tail::{self, Tail};

const FAMILY_LOG: &str = "log";
const FAMILY_FACTS: &str = "meta";

/// Most entries are purged before they are ever flushed to a table.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
const WRITE_BUFFERS: i32 = 2;
/// Bounds what a restart replays.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// Old entries are read once, in order: caching their blocks only costs memory.
const BLOCK_CACHE_BYTES: usize = 2 << 20;
const SST_SYNC_STEP_BYTES: u64 = 1 << 20;

/// The log of this node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RocksLogError {
    #[error("log {}: another process has it open: stop that one first", .0.display())]
    InUse(PathBuf),
    #[error(
        "log {}: the disk is full: {source}; make room, this node's log is whole",
        path.display()
    )]
    Full { path: PathBuf, source: rocksdb::Error },
    #[error(
        "log {}: {source}; if the disk is sound, this node's log is lost: replace it with \
         `quorate member replace`",
        path.display()
    )]
    Rocks { path: PathBuf, source: rocksdb::Error },
    #[error(
        "log {}: the record at byte {at} of {} is damaged, and a valid one follows at byte \
         {next_at} of {}: what had been made durable is lost; replace this node with `quorate \
         member replace`",
        path.display(), file.display(), next.display()
    )]
    Damaged { path: PathBuf, file: PathBuf, at: u64, next: PathBuf, next_at: u64 },
    #[error("log {}: reading its write-ahead log: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

pub struct RocksLog {
    db: DB,
    /// Asked before each write, where there is one.
    room: Option<Arc<Room>>,
}

impl RocksLog {
    /// Opens or creates the log in `path`.
    ///
    /// # Errors
    /// Another process holds it, or what is there is damaged. A write that a crash tore is not
    /// damage; a damaged one that had been synced is.
    pub fn open(path: &Path) -> Result<RocksLog, RocksLogError> {
        let source = match RocksLog::open_as_it_is(path) {
            Err(RocksLogError::Rocks { source, .. })
                if source.kind() == rocksdb::ErrorKind::Corruption =>
            {
                source
            }
            opened => return opened,
        };
        // Only now: RocksDB has found that nobody else has it open.
        let mended = wal_tail::mend(path)
            .map_err(|source| RocksLogError::Io { path: path.to_owned(), source })?;
        match mended {
            Tail::Sound => Err(RocksLogError::Rocks { path: path.to_owned(), source }),
            Tail::Damaged { file, at, next, next_at } => {
                Err(RocksLogError::Damaged { path: path.to_owned(), file, at, next, next_at })
            }
            Tail::Cut { file, at, cut_bytes } => {
                tracing::warn!(
                    file = %file.display(),
                    at,
                    cut_bytes,
                    "the last write to the log was torn and never acknowledged: it is cut off"
                );
                RocksLog::open_as_it_is(path)
            }
        }
    }

    fn open_as_it_is(path: &Path) -> Result<RocksLog, RocksLogError> {
        let db =
            DB::open_cf_descriptors(&database_options(), path, families()).map_err(|source| {
                if rocks::is_in_use(&source) {
                    return RocksLogError::InUse(path.to_owned());
                }
                if is_no_space(source.as_ref()) {
                    return RocksLogError::Full { path: path.to_owned(), source };
                }
                RocksLogError::Rocks { path: path.to_owned(), source }
            })?;
        Ok(RocksLog { db, room: None })
    }

    /// Gives ballast up before a write that would not fit.
    pub(crate) fn with_room(self, room: Arc<Room>) -> RocksLog {
        RocksLog { room: Some(room), ..self }
    }

    /// Flushes and compactions in the background that failed since the log was opened.
    pub(crate) fn failed_jobs(&self) -> u64 {
        rocks::failed_jobs(&self.db)
    }

    /// Whether compactions wait from now on.
    pub(crate) fn pause_compactions(&self, pause: bool) {
        rocks::pause_compactions(&self.db, &[self.family(FAMILY_LOG)], pause);
    }

    /// Opens a log that nothing may change; RocksDB's own messages go to `messages`.
    ///
    /// # Errors
    /// There is none, or what is there is damaged.
    pub(crate) fn open_read_only(path: &Path, messages: &Path) -> Result<RocksLog, RocksLogError> {
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        // A torn end is not cut off here, and damage is reported when the log is opened to go on
        // with it.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_db_log_dir(messages);
        let db = DB::open_cf_descriptors_read_only(&options, path, families(), false)
            .map_err(|source| RocksLogError::Rocks { path: path.to_owned(), source })?;
        Ok(RocksLog { db, room: None })
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the families were named at open")
    }

    fn add(&self, batch: &mut WriteBatch, change: LogChange) {
        let log = self.family(FAMILY_LOG);
        match change {
            LogChange::Put { index, row } => batch.put_cf(log, index.to_be_bytes(), row),
            // One tombstone each: a range tombstone over the hot end would slow down every read.
            LogChange::Truncate { from, to } => {
                for index in from..to {
                    batch.delete_cf(log, index.to_be_bytes());
                }
            }
            LogChange::Purge { from, to } => {
                batch.delete_range_cf(log, from.to_be_bytes(), to.to_be_bytes());
            }
            LogChange::Record { fact, value } => {
                batch.put_cf(self.family(FAMILY_FACTS), fact.key(), value);
            }
        }
    }
}

fn families() -> [ColumnFamilyDescriptor; 3] {
    [
        ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, facts_options()),
        ColumnFamilyDescriptor::new(FAMILY_LOG, log_options()),
        ColumnFamilyDescriptor::new(FAMILY_FACTS, facts_options()),
    ]
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // Anything that does not check would, in the default mode, silently end the log there,
    // although it had been promised. A last record with a hole is looked at by `wal_tail`.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_bytes_per_sync(SST_SYNC_STEP_BYTES);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options
}

fn log_options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_block_size(32 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_compression_per_level(&[
        DBCompressionType::None,
        DBCompressionType::None,
        DBCompressionType::Lz4,
    ]);
    options
}

fn facts_options() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(1 << 20);
    options.set_compression_type(DBCompressionType::None);
    options
}

fn index_of(key: &[u8]) -> io::Result<u64> {
    let bytes = key.try_into().map_err(|_length| {
        io::Error::new(io::ErrorKind::InvalidData, format!("log key of {} bytes", key.len()))
    })?;
    Ok(u64::from_be_bytes(bytes))
}

impl LogDisk for RocksLog {
    fn write(&self, changes: LogBatch, sync: bool) -> io::Result<()> {
        let is_vote =
            |change: &LogChange| matches!(change, LogChange::Record { fact: Fact::Vote, .. });
        let has_vote = changes.changes.iter().any(is_vote);
        let mut batch = WriteBatch::default();
        for change in changes.changes {
            self.add(&mut batch, change);
        }
        if let Some(room) = &self.room {
            room.before_write(batch.size_in_bytes() as u64);
            if has_vote {
                room.before_vote();
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(io::Error::other)
    }

    fn scan(&self, start: u64, end: u64, visit: &mut VisitRow<'_>) -> io::Result<()> {
        // Never from the beginning of the family: the range tombstones of purges lie there.
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start.to_be_bytes());
        options.set_iterate_upper_bound(end.to_be_bytes());
        let mut rows = self.db.raw_iterator_cf_opt(self.family(FAMILY_LOG), options);
        rows.seek(start.to_be_bytes());
        while let Some((key, row)) = rows.item() {
            if visit(index_of(key)?, row).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(io::Error::other)
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        let mut rows = self.db.raw_iterator_cf(self.family(FAMILY_LOG));
        rows.seek_to_last();
        match rows.key() {
            Some(key) => Ok(Some(index_of(key)?)),
            None => rows.status().map(|()| None).map_err(io::Error::other),
        }
    }

    fn fact(&self, fact: Fact) -> io::Result<Option<Vec<u8>>> {
        self.db.get_cf(self.family(FAMILY_FACTS), fact.key()).map_err(io::Error::other)
    }

    fn reclaim(&self, below: u64) -> io::Result<()> {
        // Drops whole tables only; a row of `below` or above is never in a table that goes.
        let Some(last) = below.checked_sub(1) else {
            return Ok(());
        };
        self.db
            .delete_file_in_range_cf(
                self.family(FAMILY_LOG),
                0_u64.to_be_bytes(),
                last.to_be_bytes(),
            )
            .map_err(io::Error::other)
    }
}
