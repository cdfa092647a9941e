//! What is found when a log is opened, and when it is refused.

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use proto::quorate;
use statemachine::versions::LOG_STORE;

use crate::convert::{log_id_from_proto, vote_from_proto};
use crate::types::{Entry, LogId, Vote};

use super::disk::{Fact, LogBatch, LogChange, LogDisk};
use super::entry_codec::{self, EntryError};

/// Entries read at once while the end of the log is loaded.
const LOAD_STEP: u64 = 1024;

/// Why a log is not opened. Each says what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    #[error("reading the log: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the log has layout version {found}, this binary reads {LOG_STORE}: start the binary \
         that wrote it, or a newer one"
    )]
    Schema { found: u32 },
    #[error(
        "the log has entries but no layout version, so it is not one of ours or lost its \
         beginning: restore the directory or replace this node with `quorate member replace`"
    )]
    NoSchema,
    #[error(
        "the log belongs to node {found:x}, but this is node {expected:x}: the directory was \
         copied or mixed up; give each node its own"
    )]
    Node { found: u64, expected: u64 },
    #[error(
        "the log's {fact} record cannot be read ({reason}): replace this node with `quorate \
         member replace`"
    )]
    Fact { fact: &'static str, reason: String },
    #[error(
        "the log has no entry {expected} although {found} is there: it is damaged; replace this \
         node with `quorate member replace`"
    )]
    Hole { expected: u64, found: u64 },
    #[error("the log is damaged: {0}; replace this node with `quorate member replace`")]
    Entry(#[from] EntryError),
}

impl LogOpenError {
    /// The disk's own error, or else the damage.
    pub(super) fn into_io(self) -> Result<io::Error, LogOpenError> {
        if let LogOpenError::Io(error) = self { Ok(error) } else { Err(self) }
    }
}

/// A log as it was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// The end of the log, checked, as much as the tail cache holds.
    pub(super) newest: Vec<Entry>,
}

/// Reads and checks a log, or marks a new one as this node's.
pub(super) fn recover(
    disk: &dyn LogDisk,
    node: u64,
    newest_bytes_max: usize,
) -> Result<Recovered, LogOpenError> {
    let last_index = disk.last_index()?;
    match disk.fact(Fact::Schema)? {
        Some(value) => check_owner(disk, node, &value)?,
        None if last_index.is_some() || disk.fact(Fact::Vote)?.is_some() => {
            return Err(LogOpenError::NoSchema);
        }
        None => return create(disk, node),
    }
    let purged = log_id_fact(disk, Fact::Purged)?;
    let mut recovered = Recovered {
        vote: vote_fact(disk)?,
        purged,
        committed: log_id_fact(disk, Fact::Committed)?,
        newest: Vec::new(),
    };
    let first = purged.map_or(0, |log_id| log_id.index + 1);
    if let Some(last) = last_index.filter(|last| *last >= first) {
        check_front(disk, purged, last)?;
        recovered.newest = newest(disk, first, last, newest_bytes_max)?;
    }
    Ok(recovered)
}

fn create(disk: &dyn LogDisk, node: u64) -> Result<Recovered, LogOpenError> {
    let record = |fact, value: Vec<u8>| LogChange::Record { fact, value };
    let changes = vec![
        record(Fact::Schema, LOG_STORE.newest.to_le_bytes().to_vec()),
        record(Fact::Node, node.to_le_bytes().to_vec()),
    ];
    disk.write(LogBatch { changes }, true)?;
    Ok(Recovered::default())
}

fn check_owner(disk: &dyn LogDisk, node: u64, schema: &[u8]) -> Result<(), LogOpenError> {
    let unreadable = |fact: Fact| LogOpenError::Fact {
        fact: fact.key(),
        reason: "it has the wrong length".into(),
    };
    let schema = schema.try_into().map_err(|_length| unreadable(Fact::Schema))?;
    let found = u32::from_le_bytes(schema);
    if !LOG_STORE.contains(found) {
        return Err(LogOpenError::Schema { found });
    }
    let owner = disk.fact(Fact::Node)?.unwrap_or_default();
    let owner = owner.as_slice().try_into().map_err(|_length| unreadable(Fact::Node))?;
    let found = u64::from_le_bytes(owner);
    if found != node {
        return Err(LogOpenError::Node { found, expected: node });
    }
    Ok(())
}

fn log_id_fact(disk: &dyn LogDisk, fact: Fact) -> Result<Option<LogId>, LogOpenError> {
    let Some(value) = disk.fact(fact)? else {
        return Ok(None);
    };
    let message = quorate::LogId::decode(value.as_slice())
        .map_err(|error| LogOpenError::Fact { fact: fact.key(), reason: error.to_string() })?;
    Ok(Some(log_id_from_proto(&message)))
}

fn vote_fact(disk: &dyn LogDisk) -> Result<Option<Vote>, LogOpenError> {
    let Some(value) = disk.fact(Fact::Vote)? else {
        return Ok(None);
    };
    let fact = Fact::Vote.key();
    let message = quorate::Vote::decode(value.as_slice())
        .map_err(|error| LogOpenError::Fact { fact, reason: error.to_string() })?;
    Ok(Some(vote_from_proto(&message)))
}

/// The first entry must follow the last purged one.
fn check_front(disk: &dyn LogDisk, purged: Option<LogId>, last: u64) -> Result<(), LogOpenError> {
    let Some(purged) = purged else {
        return Ok(());
    };
    let mut found = None;
    disk.scan(purged.index + 1, last + 1, &mut |index, _| {
        found = Some(index);
        ControlFlow::Break(())
    })?;
    match found {
        Some(found) if found != purged.index + 1 => {
            Err(LogOpenError::Hole { expected: purged.index + 1, found })
        }
        Some(_) | None => Ok(()),
    }
}

/// Loads the end of the log backwards, step by step, until the budget is used.
fn newest(
    disk: &dyn LogDisk,
    first: u64,
    last: u64,
    bytes_max: usize,
) -> Result<Vec<Entry>, LogOpenError> {
    let mut steps: Vec<Vec<Entry>> = Vec::new();
    let mut size_bytes = 0_usize;
    let mut end = last + 1;
    while end > first && size_bytes < bytes_max {
        let start = end.saturating_sub(LOAD_STEP).max(first);
        let entries = read_rows(disk, start, end)?;
        let lowest = entries.first().map(|entry| entry.log_id.index);
        let highest = entries.last().map(|entry| entry.log_id.index);
        if highest != Some(end - 1) {
            return Err(LogOpenError::Hole { expected: end - 1, found: end });
        }
        size_bytes += entries.iter().map(entry_codec::payload_bytes).sum::<usize>();
        steps.push(entries);
        end = lowest.unwrap_or(start);
        if end != start {
            // A log that was never purged may begin anywhere; every other one was checked.
            break;
        }
    }
    Ok(steps.into_iter().rev().flatten().collect())
}

/// The entries of `start..end`, checked, without a hole; the range may begin before the log does.
pub(super) fn read_rows(
    disk: &dyn LogDisk,
    start: u64,
    end: u64,
) -> Result<Vec<Entry>, LogOpenError> {
    read_rows_limited(disk, start, end, usize::MAX)
}

/// As [`read_rows`], ending early once the payloads exceed `bytes_max`; one entry always fits.
pub(super) fn read_rows_limited(
    disk: &dyn LogDisk,
    start: u64,
    end: u64,
    bytes_max: usize,
) -> Result<Vec<Entry>, LogOpenError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut size_bytes = 0_usize;
    let mut damage = None;
    disk.scan(start, end, &mut |index, row| {
        size_bytes = size_bytes.saturating_add(row.len());
        if size_bytes > bytes_max && !entries.is_empty() {
            return ControlFlow::Break(());
        }
        let expected = entries.last().map_or(index, |entry| entry.log_id.index + 1);
        if index != expected {
            damage = Some(LogOpenError::Hole { expected, found: index });
            return ControlFlow::Break(());
        }
        match entry_codec::decode(index, Bytes::copy_from_slice(row)) {
            Ok(entry) => entries.push(entry),
            Err(error) => damage = Some(error.into()),
        }
        if damage.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    damage.map_or(Ok(entries), Err)
}
