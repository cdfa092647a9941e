//! Table `event`: revision (8 bytes), sub (4) -> one change of one key, all big endian.
//!
//! Row: bytes superseded up to and including this change (8), then the record: flags (1), create
//! revision (8), version (8), lease (8), key length (4), key, value. The record is also what the
//! content digest hashes, so its layout never changes. The version of a delete is 0, or 1 and the sub
//! of the put of the same revision that it undoes.

use bytes::Bytes;
use proto::etcd;

use crate::digest;
use crate::ids::EventId;
use crate::keyspace::meta::RecordHash;
use crate::store::{Fault, Table};

pub(crate) const KEY_BYTES: usize = 12;
const TOMBSTONE: u8 = 1;
const RECORD_AT: usize = 8;
const KEY_LENGTH_AT: usize = RECORD_AT + 25;
const HEADER_BYTES: usize = KEY_LENGTH_AT + 4;

pub(crate) fn encode_key(id: EventId) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&id.revision.to_be_bytes());
    key[8..].copy_from_slice(&id.sub.to_be_bytes());
    key
}

pub(crate) fn decode_key(row_key: &[u8]) -> Result<EventId, Fault> {
    let (revision, rest) =
        row_key.split_first_chunk::<8>().ok_or_else(|| corrupt("key is too short"))?;
    let sub: [u8; 4] = rest.try_into().map_err(|_length| corrupt("key has a wrong length"))?;
    Ok(EventId { revision: i64::from_be_bytes(*revision), sub: u32::from_be_bytes(sub) })
}

/// What a row is made from.
pub(crate) struct NewEvent<'a> {
    pub(crate) superseded_bytes: u64,
    pub(crate) tombstone: bool,
    pub(crate) create_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl NewEvent<'_> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let key_bytes =
            u32::try_from(self.key.len()).expect("requests are bounded far below 4 GiB");
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&self.superseded_bytes.to_be_bytes());
        header[8] = if self.tombstone { TOMBSTONE } else { 0 };
        header[9..17].copy_from_slice(&self.create_revision.to_be_bytes());
        header[17..25].copy_from_slice(&self.version.to_be_bytes());
        header[25..33].copy_from_slice(&self.lease.to_be_bytes());
        header[33..].copy_from_slice(&key_bytes.to_be_bytes());
        out.reserve(HEADER_BYTES + self.key.len() + self.value.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }
}

/// What stands as the version of a delete that undoes the put with that sub of its revision.
pub(crate) fn shadow_of(sub: u32) -> i64 {
    i64::from(sub) + 1
}

/// A row as it is read: its parts are looked up where they stand.
#[derive(Clone, Copy)]
pub(crate) struct EventRow<'a> {
    row: &'a [u8],
    key_end: usize,
}

impl<'a> EventRow<'a> {
    pub(crate) fn parse(row: &'a [u8]) -> Result<EventRow<'a>, Fault> {
        if row.len() < HEADER_BYTES {
            return Err(corrupt("row is shorter than its header"));
        }
        let key_bytes = u32::from_be_bytes(
            row[KEY_LENGTH_AT..HEADER_BYTES].try_into().expect("four bytes of a checked row"),
        );
        let key_end = HEADER_BYTES + key_bytes as usize;
        if row.len() < key_end {
            return Err(corrupt("row is shorter than its key"));
        }
        Ok(EventRow { row, key_end })
    }

    fn word(&self, at: usize) -> [u8; 8] {
        self.row[at..at + 8].try_into().expect("eight bytes of a checked row")
    }

    pub(crate) fn superseded_bytes(&self) -> u64 {
        u64::from_be_bytes(self.word(0))
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.row[RECORD_AT] & TOMBSTONE != 0
    }

    /// Whether this change, made at `mod_revision`, brought the key to life.
    pub(crate) fn is_create(&self, mod_revision: i64) -> bool {
        !self.is_tombstone() && self.word(RECORD_AT + 1) == mod_revision.to_be_bytes()
    }

    /// The sub of the put of the same revision that this delete undoes.
    pub(crate) fn shadowed_sub(&self) -> Option<u32> {
        let version = i64::from_be_bytes(self.word(RECORD_AT + 9));
        if self.is_tombstone() { u32::try_from(version.checked_sub(1)?).ok() } else { None }
    }

    pub(crate) fn key(&self) -> &'a [u8] {
        &self.row[HEADER_BYTES..self.key_end]
    }

    pub(crate) fn value(&self) -> &'a [u8] {
        &self.row[self.key_end..]
    }

    pub(crate) fn hash(&self, mod_revision: i64) -> RecordHash {
        record_hash(self.row, mod_revision)
    }

    /// The pair with key and value as slices of `shared`, which holds this very row.
    pub(crate) fn key_value(&self, mod_revision: i64, shared: &Bytes) -> etcd::KeyValue {
        self.pair(
            mod_revision,
            shared.slice(HEADER_BYTES..self.key_end),
            shared.slice(self.key_end..),
        )
    }

    pub(crate) fn key_value_copied(&self, mod_revision: i64) -> etcd::KeyValue {
        self.key_value(mod_revision, &Bytes::copy_from_slice(self.row))
    }

    fn pair(&self, mod_revision: i64, key: Bytes, value: Bytes) -> etcd::KeyValue {
        if self.is_tombstone() {
            return etcd::KeyValue { key, mod_revision, ..Default::default() };
        }
        etcd::KeyValue {
            key,
            value,
            mod_revision,
            create_revision: i64::from_be_bytes(self.word(RECORD_AT + 1)),
            version: i64::from_be_bytes(self.word(RECORD_AT + 9)),
            lease: i64::from_be_bytes(self.word(RECORD_AT + 17)),
        }
    }
}

/// Hash of the record in an encoded row.
pub(crate) fn record_hash(row: &[u8], mod_revision: i64) -> RecordHash {
    digest::record_hash(&row[RECORD_AT..], mod_revision)
}

pub(crate) fn corrupt(reason: &str) -> Fault {
    Fault::Corrupt { table: Table::Event.name(), reason: reason.to_owned() }
}
