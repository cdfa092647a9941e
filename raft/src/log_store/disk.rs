//! The seam between the log and what keeps it: the few operations that the log needs of a disk.
//!
//! [`super::RocksLog`] is the real one; [`super::MemoryLog`] forgets what was not synced, which is
//! what a crash does.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Small facts beside the entries. Each is one row that is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// Version of the layout; written first of all.
    Schema,
    /// The node that this log belongs to.
    Node,
    Vote,
    /// Last entry that was purged.
    Purged,
    /// A committed entry; late by design, never ahead of the durable log.
    Committed,
}

impl Fact {
    /// The key under which it is kept. Never changes.
    pub fn key(self) -> &'static str {
        match self {
            Fact::Schema => "schema",
            Fact::Node => "node",
            Fact::Vote => "vote",
            Fact::Purged => "purged",
            Fact::Committed => "committed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChange {
    Put {
        index: u64,
        row: Vec<u8>,
    },
    /// Removes `from..to` at the end of the log.
    Truncate {
        from: u64,
        to: u64,
    },
    /// Removes `from..to` at the front of the log.
    Purge {
        from: u64,
        to: u64,
    },
    Record {
        fact: Fact,
        value: Vec<u8>,
    },
}

/// Changes that become visible, and durable, all or none.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    pub changes: Vec<LogChange>,
}

/// Called for each row of a scan with its index; `Break` ends it.
pub type VisitRow<'a> = dyn FnMut(u64, &[u8]) -> ControlFlow<()> + 'a;

pub trait LogDisk: Send + Sync + 'static {
    /// Makes the changes, in order. With `sync` they, and all before them, are durable when it
    /// returns.
    ///
    /// # Errors
    /// Nothing may be written after one: what is on the disk is unknown.
    fn write(&self, batch: LogBatch, sync: bool) -> io::Result<()>;

    /// Visits the rows of `start..end` in order, as of one moment.
    ///
    /// # Errors
    /// A row that cannot be read.
    fn scan(&self, start: u64, end: u64, visit: &mut VisitRow<'_>) -> io::Result<()>;

    /// Index of the last row.
    ///
    /// # Errors
    /// As [`LogDisk::scan`].
    fn last_index(&self) -> io::Result<Option<u64>>;

    /// # Errors
    /// As [`LogDisk::scan`].
    fn fact(&self, fact: Fact) -> io::Result<Option<Vec<u8>>>;

    /// May free the space of rows below `index`, at once and for good: called only after their
    /// purge is durable.
    ///
    /// # Errors
    /// As [`LogDisk::write`].
    fn reclaim(&self, below: u64) -> io::Result<()>;
}

type WrapDisk = dyn Fn(Arc<dyn LogDisk>) -> Arc<dyn LogDisk> + Send + Sync;

/// Puts another disk in front of the real one: where tests make it slow, or fail.
#[derive(Clone)]
pub struct DiskSeam(Arc<WrapDisk>);

impl DiskSeam {
    pub fn none() -> DiskSeam {
        DiskSeam::wrap(|disk| disk)
    }

    pub fn wrap(
        wrap: impl Fn(Arc<dyn LogDisk>) -> Arc<dyn LogDisk> + Send + Sync + 'static,
    ) -> DiskSeam {
        DiskSeam(Arc::new(wrap))
    }

    pub(crate) fn around(&self, disk: Arc<dyn LogDisk>) -> Arc<dyn LogDisk> {
        (self.0)(disk)
    }
}

impl fmt::Debug for DiskSeam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskSeam")
    }
}
