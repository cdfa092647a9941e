//! The frames that a backup file is made of.
//!
//! ```text
//! file   = magic frame(header) frame(block)* frame(trailer)
//! frame  = kind u8, payload length u32 LE, CRC-32C u32 LE of kind, length and payload, payload
//! block  = raw length varint, zstd( (table u8, key length varint, key, value length varint, value)* )
//! ```
//! Header and trailer are protobuf (`BackupHeader`, `BackupTrailer`). The trailer holds BLAKE3 of
//! everything before it, so frames cannot be dropped, repeated or exchanged either.

use bytes::Bytes;
use statemachine::versions::BACKUP_FRAMES;

/// First bytes of every backup file; the digit is the version of the framing.
pub(crate) const MAGIC: &[u8; 8] = b"QUORBKP1";
const _: () = assert!(MAGIC[7] as u32 == BACKUP_FRAMES.newest + b'0' as u32);

/// Bytes before a frame's payload.
pub(crate) const FRAME_HEAD_BYTES: usize = 9;

/// Rows are gathered up to about this size before they are compressed.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// No frame is larger: one row may be as large as the largest request, and zstd may grow it.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 80 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Header,
    Block,
    Trailer,
}

impl FrameKind {
    fn code(self) -> u8 {
        match self {
            FrameKind::Header => 1,
            FrameKind::Block => 2,
            FrameKind::Trailer => 3,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<FrameKind> {
        match code {
            1 => Some(FrameKind::Header),
            2 => Some(FrameKind::Block),
            3 => Some(FrameKind::Trailer),
            _ => None,
        }
    }
}

/// The frame of a payload, ready to be written.
///
/// # Panics
/// The payload is larger than a frame may be: the caller bounds its blocks.
pub(crate) fn frame(kind: FrameKind, payload: &[u8]) -> Bytes {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a backup frame of {} bytes", payload.len());
    let length = u32::try_from(payload.len()).expect("bounded above");
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len());
    bytes.push(kind.code());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(kind.code(), length, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    Bytes::from(bytes)
}

pub(crate) fn checksum(kind: u8, length: u32, payload: &[u8]) -> u32 {
    let head = [&[kind][..], &length.to_le_bytes()].concat();
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// The number at the start of `input` and what follows it.
pub(crate) fn take_varint(input: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (place, byte) in input.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = u32::try_from(place * 7).expect("at most 63");
        if bits.leading_zeros() < shift {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((value, &input[place + 1..]));
        }
    }
    None
}
