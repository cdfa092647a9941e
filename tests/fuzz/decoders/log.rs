//! Entries of the Raft log, from the disk or from a peer.

use bytes::Bytes;
use raft::log_store::entry_codec::{self, OVERHEAD_BYTES};

/// Every entry here has it; the checksum covers it.
const INDEX: u64 = 7;
const CHECKSUM_BYTES: usize = 4;

/// An entry as it is.
pub(super) fn entry(bytes: &[u8]) {
    let _decoded = entry_codec::decode(INDEX, Bytes::copy_from_slice(bytes));
}

/// An entry behind whose bytes the right checksum stands: what a peer can make.
pub(super) fn sealed_entry(bytes: &[u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&INDEX.to_le_bytes()), bytes);
    entry(&[bytes, &checksum.to_le_bytes()].concat());
}

pub(super) fn unsealed_entries() -> Vec<Vec<u8>> {
    // Version, kind (blank, batch, membership), term, node.
    let head = |kind: u8| {
        let mut bytes = vec![1, kind];
        bytes.extend_from_slice(&3_u64.to_le_bytes());
        bytes.extend_from_slice(&5_u64.to_le_bytes());
        assert_eq!(bytes.len() + CHECKSUM_BYTES, OVERHEAD_BYTES);
        bytes
    };
    let membership = [0x0a, 0x02, 0x08, 0x01, 0x12, 0x04, 0x08, 0x01, 0x12, 0x00];
    vec![head(0), [head(1), b"batch".to_vec()].concat(), [head(2), membership.to_vec()].concat()]
}

pub(super) fn entries() -> Vec<Vec<u8>> {
    let sealed = |bytes: Vec<u8>| {
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&INDEX.to_le_bytes()), &bytes);
        [bytes, checksum.to_le_bytes().to_vec()].concat()
    };
    unsealed_entries().into_iter().map(sealed).collect()
}
