//! One log entry as bytes, the same on disk and on the wire.
//!
//! `version u8 | kind u8 | term u64 | node u64 | payload | crc32c u32`, little-endian. The checksum
//! covers the index too, so that a row under a foreign key does not pass.

use bytes::{Buf, Bytes};
use prost::Message;
use proto::quorate;
use statemachine::versions::LOG_ENTRY;

use crate::convert::{membership_from_proto, membership_to_proto};
use crate::membership::MEMBERSHIP_BYTES_MAX;
use crate::types::{Entry, EntryPayload, LeaderId, LogId, Payload};

/// Written as the first byte.
const VERSION: u8 = LOG_ENTRY.newest.to_le_bytes()[0];
const _: () = assert!(LOG_ENTRY.newest <= u8::MAX as u32, "the version takes one byte");
const HEADER_BYTES: usize = 1 + 1 + 8 + 8;
const CHECKSUM_BYTES: usize = 4;

/// What an encoded entry takes beside its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;

const KIND_BLANK: u8 = 0;
const KIND_BATCH: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// The bytes are not an entry that this binary wrote or can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("entry {index} is {size_bytes} bytes, shorter than its header")]
    Short { index: u64, size_bytes: usize },
    #[error("entry {index} has checksum {found:08x}, its bytes give {computed:08x}")]
    Checksum { index: u64, found: u32, computed: u32 },
    #[error("entry {index} has format version {found}, this binary reads {LOG_ENTRY}")]
    Version { index: u64, found: u8 },
    #[error("entry {index} is of unknown kind {found}")]
    Kind { index: u64, found: u8 },
    #[error("entry {index} holds an unreadable membership: {reason}")]
    Membership { index: u64, reason: String },
}

/// Size of what the entry carries; what all byte limits on the log count.
pub fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(payload) => payload.0.len(),
        // Rare; near enough without encoding it.
        EntryPayload::Membership(membership) => 128 * membership.nodes().count(),
    }
}

/// Appends the encoded entry to `out`.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(VERSION);
    out.push(match &entry.payload {
        EntryPayload::Blank => KIND_BLANK,
        EntryPayload::Normal(_) => KIND_BATCH,
        EntryPayload::Membership(_) => KIND_MEMBERSHIP,
    });
    out.extend_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    out.extend_from_slice(&entry.log_id.leader_id.node_id.to_le_bytes());
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(payload) => out.extend_from_slice(&payload.0),
        EntryPayload::Membership(membership) => {
            out.extend_from_slice(&membership_to_proto(membership).encode_to_vec());
        }
    }
    let checksum = checksum(entry.log_id.index, &out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// The entry at `index`; a batch shares the memory of `bytes`.
///
/// # Errors
/// The bytes are not what was written for this index, or a newer binary wrote them.
pub fn decode(index: u64, mut bytes: Bytes) -> Result<Entry, EntryError> {
    if bytes.len() < OVERHEAD_BYTES {
        return Err(EntryError::Short { index, size_bytes: bytes.len() });
    }
    let found = bytes.split_off(bytes.len() - CHECKSUM_BYTES).get_u32_le();
    let computed = checksum(index, &bytes);
    if found != computed {
        return Err(EntryError::Checksum { index, found, computed });
    }
    let version = bytes.get_u8();
    if !LOG_ENTRY.contains(u32::from(version)) {
        return Err(EntryError::Version { index, found: version });
    }
    let kind = bytes.get_u8();
    let term = bytes.get_u64_le();
    let node_id = bytes.get_u64_le();
    let payload = match kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_BATCH => EntryPayload::Normal(Payload(bytes)),
        KIND_MEMBERSHIP => {
            let invalid = |reason: String| EntryError::Membership { index, reason };
            if bytes.len() > MEMBERSHIP_BYTES_MAX {
                let size_bytes = bytes.len();
                return Err(invalid(format!(
                    "it has {size_bytes} bytes, the limit is {MEMBERSHIP_BYTES_MAX}"
                )));
            }
            let message =
                quorate::Membership::decode(bytes).map_err(|error| invalid(error.to_string()))?;
            let membership =
                membership_from_proto(message).map_err(|error| invalid(error.to_string()))?;
            EntryPayload::Membership(membership)
        }
        found => return Err(EntryError::Kind { index, found }),
    };
    Ok(Entry { log_id: LogId::new(LeaderId { term, node_id }, index), payload })
}

fn checksum(index: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::types::{Membership, NodeMeta};

    fn entry(index: u64, payload: EntryPayload) -> Entry {
        Entry { log_id: LogId::new(LeaderId { term: 7, node_id: 3 }, index), payload }
    }

    fn encoded(entry: &Entry) -> Bytes {
        let mut out = Vec::new();
        encode(entry, &mut out);
        Bytes::from(out)
    }

    #[test]
    fn every_kind_comes_back() {
        let node = NodeMeta { name: "n1".into(), ..NodeMeta::default() };
        let membership =
            Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap();
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(Bytes::from_static(b"batch"))),
            EntryPayload::Membership(membership),
        ] {
            let entry = entry(42, payload);
            let decoded = decode(42, encoded(&entry)).unwrap();
            assert_eq!(decoded.log_id, entry.log_id);
            assert!(decoded.payload == entry.payload);
        }
    }

    #[test]
    fn a_membership_of_many_empty_members_is_refused_before_it_takes_memory() {
        // Two bytes each; in memory, a hundred and four.
        let members = [0x12, 0x00].repeat(MEMBERSHIP_BYTES_MAX / 2 + 1);
        let mut bytes = encoded(&entry(42, EntryPayload::Normal(Payload(members.into())))).to_vec();
        bytes[1] = KIND_MEMBERSHIP;
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        let checksum = checksum(42, &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let error = decode(42, Bytes::from(bytes)).unwrap_err();
        let expected =
            "entry 42 holds an unreadable membership: it has 32770 bytes, the limit is 32768";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn each_edited_bit_and_a_foreign_index_are_found() {
        let bytes = encoded(&entry(42, EntryPayload::Normal(Payload(Bytes::from_static(b"abc")))));
        for bit in 0..bytes.len() * 8 {
            let mut edited = bytes.to_vec();
            edited[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(42, Bytes::from(edited)).is_err(), "bit {bit}");
        }
        assert!(matches!(decode(43, bytes.clone()), Err(EntryError::Checksum { .. })));
        assert!(matches!(decode(42, bytes.slice(..10)), Err(EntryError::Short { .. })));
    }
}
