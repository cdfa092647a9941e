//! Table `version`: escaped key, revision -> where that version's event is, and what the index
//! needs to know of it.
//!
//! A key's zero bytes become `00 ff` and its end is `00 00`, so rows stand in the order of (key,
//! revision) whatever bytes the keys hold. The revision follows, 8 bytes, big endian.

use std::ops::ControlFlow;

use crate::keyspace::key_range::{End, KeyRange};
use crate::keyspace::meta::{KeyMeta, RecordHash};
use crate::store::{Direction, Fault, StateRead, Table};

const TERMINATOR: [u8; 2] = [0, 0];
const REVISION_BYTES: usize = 8;
const TOMBSTONE: u8 = 1;
const ROW_BYTES: usize = 49;

/// One version of a key; a tombstone ends a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) meta: KeyMeta,
    pub(crate) tombstone: bool,
}

/// Appends the part of a row's key that all versions of `key` share.
pub(crate) fn encode_prefix(key: &[u8], out: &mut Vec<u8>) {
    out.reserve(key.len() + TERMINATOR.len() + REVISION_BYTES);
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&[0, 0xff]);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&TERMINATOR);
}

pub(crate) fn encode_key(key: &[u8], revision: i64, out: &mut Vec<u8>) {
    encode_prefix(key, out);
    out.extend_from_slice(&revision.to_be_bytes());
}

/// Splits a row's key into the shared part and the revision.
pub(crate) fn split_key(row_key: &[u8]) -> Result<(&[u8], i64), Fault> {
    let corrupt = || corrupt("key is shorter than a terminator and a revision");
    let (prefix, revision) = row_key.split_last_chunk::<REVISION_BYTES>().ok_or_else(corrupt)?;
    if !prefix.ends_with(&TERMINATOR) {
        return Err(corrupt());
    }
    Ok((prefix, i64::from_be_bytes(*revision)))
}

/// Replaces `out` by the user key of a row's shared part.
pub(crate) fn decode_prefix(prefix: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    out.clear();
    let mut rest = &prefix[..prefix.len() - TERMINATOR.len()];
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        if rest.get(zero + 1) != Some(&0xff) {
            return Err(corrupt("zero byte in a key is not escaped"));
        }
        out.extend_from_slice(&rest[..=zero]);
        rest = &rest[zero + 2..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// First row key and exclusive end of all versions of the keys in a range.
pub(crate) fn scan_bounds(range: &KeyRange<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut start = Vec::new();
    encode_prefix(range.start, &mut start);
    let end = match range.end {
        End::Unbounded => None,
        End::Before(end) => {
            let mut bound = Vec::new();
            encode_prefix(end, &mut bound);
            Some(bound)
        }
        End::Single => {
            let mut bound = start.clone();
            let last = bound.last_mut().expect("a terminator was just written");
            *last += 1;
            Some(bound)
        }
    };
    (start, end)
}

impl Version {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.tombstone { TOMBSTONE } else { 0 });
        out.extend_from_slice(&self.meta.sub.to_be_bytes());
        out.extend_from_slice(&self.meta.create_revision.to_be_bytes());
        out.extend_from_slice(&self.meta.version.to_be_bytes());
        out.extend_from_slice(&self.meta.lease.to_be_bytes());
        out.extend_from_slice(&self.meta.value_bytes.to_be_bytes());
        out.extend_from_slice(&self.meta.hash.to_bytes());
    }

    /// `revision` stands in the row's key.
    pub(crate) fn decode(revision: i64, row: &[u8]) -> Result<Version, Fault> {
        let row: &[u8; ROW_BYTES] =
            row.try_into().map_err(|_length| corrupt("row has a wrong length"))?;
        let word = |at: usize| {
            i64::from_be_bytes(row[at..at + 8].try_into().expect("eight bytes of a fixed row"))
        };
        let half = |at: usize| {
            u32::from_be_bytes(row[at..at + 4].try_into().expect("four bytes of a fixed row"))
        };
        Ok(Version {
            tombstone: row[0] & TOMBSTONE != 0,
            meta: KeyMeta {
                mod_revision: revision,
                sub: half(1),
                create_revision: word(5),
                version: word(13),
                lease: word(21),
                value_bytes: half(29),
                hash: RecordHash::from_bytes(
                    row[33..].try_into().expect("sixteen bytes of a fixed row"),
                ),
            },
        })
    }
}

fn corrupt(reason: &str) -> Fault {
    Fault::Corrupt { table: Table::Version.name(), reason: reason.to_owned() }
}

pub(crate) type VisitNewest<'a> = dyn FnMut(&[u8], &KeyMeta) -> Result<(), Fault> + 'a;

/// Visits the newest version of each key that is live, in key order.
pub(crate) fn scan_newest(store: &dyn StateRead, visit: &mut VisitNewest<'_>) -> Result<(), Fault> {
    let mut prefix_before: Vec<u8> = Vec::new();
    let mut newest: Option<Version> = None;
    let mut key = Vec::new();
    let mut emit = |prefix: &[u8], newest: Option<Version>| match newest {
        Some(version) if !version.tombstone => {
            decode_prefix(prefix, &mut key)?;
            visit(&key, &version.meta)
        }
        Some(_) | None => Ok(()),
    };
    store.scan(Table::Version, &[], None, Direction::Forward, &mut |row_key, row| {
        let (prefix, revision) = split_key(row_key)?;
        if prefix != prefix_before {
            emit(&prefix_before, newest.take())?;
            prefix_before.clear();
            prefix_before.extend_from_slice(prefix);
        }
        newest = Some(Version::decode(revision, row)?);
        Ok(ControlFlow::Continue(()))
    })?;
    emit(&prefix_before, newest)
}

#[cfg(test)]
mod tests;
