//! A look at a log whose node does not run. Nothing is written, not even a mark of damage.

use std::path::Path;

use crate::types::{LogId, Vote};

use super::disk::{Fact, LogDisk};
use super::recover::{self, LogOpenError};
use super::{RocksLog, RocksLogError};

/// What a node has promised, as its log says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogFacts {
    pub(crate) vote: Option<Vote>,
    pub(crate) last: Option<LogId>,
}

/// Why a log could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeekError {
    #[error(transparent)]
    Rocks(#[from] RocksLogError),
    #[error(transparent)]
    Log(#[from] LogOpenError),
}

/// `messages` is where RocksDB may write what it would else write into the log's own directory.
pub(crate) fn peek(path: &Path, node: u64, messages: &Path) -> Result<LogFacts, PeekError> {
    let disk = RocksLog::open_read_only(path, messages)?;
    if disk.fact(Fact::Schema).map_err(LogOpenError::Io)?.is_none() {
        return Ok(LogFacts::default());
    }
    // The last entries are read and checked, the rest is not looked at.
    let found = recover::recover(&disk, node, 1)?;
    let last = found.newest.last().map(|entry| entry.log_id).max(found.purged);
    Ok(LogFacts { vote: found.vote, last })
}
