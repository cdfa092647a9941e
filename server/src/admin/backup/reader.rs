//! Reads a backup file and refuses it at the first byte that is not as it was written.

use std::io::{self, Read};

use bytes::Bytes;
use prost::Message;
use proto::admin::{BackupHeader, BackupTrailer};

use statemachine::versions::BACKUP;

use super::frame::{FRAME_HEAD_BYTES, FrameKind, MAGIC, PAYLOAD_BYTES_MAX, checksum, take_varint};
use super::seal::{SEAL_BYTES_MAX, is_seal};

/// A block decompresses to about 256 KiB, or to one row that may be as large as a request.
const BLOCK_RAW_BYTES_MAX: u64 = 96 << 20;

/// Why a file is no backup that may be used. `at` is the offset of the frame that shows it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("cannot read the backup at byte {at}: {error}")]
    Read { at: u64, error: io::Error },
    #[error("not a Quorate backup: it does not start with {}", MAGIC.escape_ascii())]
    NotABackup,
    #[error(
        "the backup has format {found}, this binary reads {BACKUP}: use version {version} of quorate \
         or a newer one"
    )]
    NewerFormat { found: u32, version: String },
    #[error("the backup is truncated: it ends at byte {at} in the middle of {part}")]
    Truncated { at: u64, part: &'static str },
    #[error("the backup is damaged at bytes {at} to {end} ({part}): {reason}")]
    Damaged { at: u64, end: u64, part: String, reason: String },
    #[error("the backup goes on after its end at byte {at}: something was appended to it")]
    Trailing { at: u64 },
}

/// One row of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Place in the header's `tables`.
    pub(crate) table: usize,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// Yields the rows in file order; the file is good only when `next_block` has returned `None`.
pub(crate) struct Reader<R> {
    input: R,
    at: u64,
    header: BackupHeader,
    trailer: Option<BackupTrailer>,
    rows: Vec<u64>,
    blocks: u64,
    raw_bytes: u64,
    digest: blake3::Hasher,
    /// Whether the whole file passes, so that its end can be held against what came before.
    whole: bool,
}

struct Frame {
    at: u64,
    kind: FrameKind,
    payload: Vec<u8>,
    /// Head and payload as they stand in the file, for the digest.
    head: [u8; FRAME_HEAD_BYTES],
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is not the start of a backup that this binary can read.
    pub(crate) fn open(mut input: R) -> Result<Reader<R>, BackupError> {
        let mut magic = [0; MAGIC.len()];
        let read = read_full(&mut input, &mut magic)
            .map_err(|error| BackupError::Read { at: 0, error })?;
        if read < magic.len() || magic != *MAGIC {
            return Err(BackupError::NotABackup);
        }
        let mut digest = blake3::Hasher::new();
        digest.update(&magic);
        let mut reader = Reader {
            input,
            at: magic.len() as u64,
            header: BackupHeader::default(),
            trailer: None,
            rows: Vec::new(),
            blocks: 0,
            raw_bytes: 0,
            digest,
            whole: true,
        };
        let frame = reader.next_frame("the header")?;
        if frame.kind != FrameKind::Header {
            return Err(reader.damaged(&frame, "a frame of another kind stands there"));
        }
        let header = BackupHeader::decode(frame.payload.as_slice())
            .map_err(|error| reader.damaged(&frame, error))?;
        if !BACKUP.contains(header.format) {
            return Err(BackupError::NewerFormat { found: header.format, version: header.version });
        }
        reader.count(&frame);
        reader.rows = vec![0; header.tables.len()];
        reader.header = header;
        Ok(reader)
    }

    /// Goes on at a block of a file whose bytes were all checked before.
    pub(crate) fn at_block(input: R, at: u64, header: &BackupHeader) -> Reader<R> {
        Reader {
            input,
            at,
            header: header.clone(),
            trailer: None,
            rows: vec![0; header.tables.len()],
            blocks: 0,
            raw_bytes: 0,
            digest: blake3::Hasher::new(),
            whole: false,
        }
    }

    pub(crate) fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// Known once `next_block` has returned `None`.
    pub(crate) fn trailer(&self) -> Option<&BackupTrailer> {
        self.trailer.as_ref()
    }

    /// Bytes of the file that were read and found good.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The rows of the next block; `None` after the last, when the whole file was found good.
    ///
    /// # Errors
    /// The file is damaged; nothing that was read before may be used.
    pub(crate) fn next_block(&mut self) -> Result<Option<Vec<Row>>, BackupError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let frame = self.next_frame("a block")?;
        match frame.kind {
            FrameKind::Header => Err(self.damaged(&frame, "a second header")),
            FrameKind::Block => self.block(&frame).map(Some),
            FrameKind::Trailer => {
                if self.whole {
                    self.end(&frame)?;
                }
                Ok(None)
            }
        }
    }

    fn block(&mut self, frame: &Frame) -> Result<Vec<Row>, BackupError> {
        let (raw_bytes, compressed) = take_varint(&frame.payload)
            .filter(|(raw_bytes, _)| *raw_bytes <= BLOCK_RAW_BYTES_MAX)
            .ok_or_else(|| self.damaged(frame, "its length makes no sense"))?;
        let capacity = usize::try_from(raw_bytes).expect("bounded just now");
        let raw = zstd::bulk::decompress(compressed, capacity)
            .map_err(|error| self.damaged(frame, error))?;
        let raw = Bytes::from(raw);
        let mut rest: &[u8] = &raw;
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let (row, after) = take_row(&raw, rest)
                .filter(|(row, _)| row.table < self.rows.len())
                .ok_or_else(|| self.damaged(frame, "a row that cannot be read"))?;
            self.rows[row.table] += 1;
            rows.push(row);
            rest = after;
        }
        self.blocks += 1;
        self.raw_bytes += raw.len() as u64;
        self.count(frame);
        Ok(rows)
    }

    fn end(&mut self, frame: &Frame) -> Result<(), BackupError> {
        let trailer = BackupTrailer::decode(frame.payload.as_slice())
            .map_err(|error| self.damaged(frame, error))?;
        let counted = (&self.rows, self.blocks, self.raw_bytes);
        if counted != (&trailer.rows, trailer.blocks, trailer.raw_bytes) {
            return Err(self.damaged(frame, "it counts other rows than the blocks hold"));
        }
        if trailer.blake3 != self.digest.finalize().as_bytes().as_slice() {
            return Err(self.damaged(frame, "the digest of all bytes before it differs"));
        }
        self.count(frame);
        let mut rest = Vec::new();
        self.input
            .by_ref()
            .take(SEAL_BYTES_MAX as u64 + 1)
            .read_to_end(&mut rest)
            .map_err(|error| BackupError::Read { at: self.at, error })?;
        if !rest.is_empty() && !is_seal(self.digest.clone(), &rest) {
            return Err(BackupError::Trailing { at: self.at });
        }
        self.at += rest.len() as u64;
        self.trailer = Some(trailer);
        Ok(())
    }

    fn next_frame(&mut self, part: &'static str) -> Result<Frame, BackupError> {
        let at = self.at;
        let mut head = [0; FRAME_HEAD_BYTES];
        self.fill(&mut head, part)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let crc = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
        let kind = FrameKind::from_code(head[0]);
        let payload_bytes = length as usize;
        let (Some(kind), true) = (kind, payload_bytes <= PAYLOAD_BYTES_MAX) else {
            return Err(BackupError::Damaged {
                at,
                end: self.at,
                part: part.to_owned(),
                reason: "the head of the frame makes no sense".to_owned(),
            });
        };
        let mut payload = Vec::new();
        self.fill_vec(&mut payload, payload_bytes, part)?;
        let frame = Frame { at, kind, payload, head };
        if checksum(head[0], length, &frame.payload) != crc {
            return Err(self.damaged(&frame, "the checksum differs"));
        }
        Ok(frame)
    }

    fn fill(&mut self, buffer: &mut [u8], part: &'static str) -> Result<(), BackupError> {
        let read = read_full(&mut self.input, buffer)
            .map_err(|error| BackupError::Read { at: self.at, error })?;
        self.at += read as u64;
        match read == buffer.len() {
            true => Ok(()),
            false => Err(BackupError::Truncated { at: self.at, part }),
        }
    }

    /// Grows with what is really there: a damaged length must not allocate.
    fn fill_vec(
        &mut self,
        buffer: &mut Vec<u8>,
        length: usize,
        part: &'static str,
    ) -> Result<(), BackupError> {
        let read = self
            .input
            .by_ref()
            .take(length as u64)
            .read_to_end(buffer)
            .map_err(|error| BackupError::Read { at: self.at, error })?;
        self.at += read as u64;
        match read == length {
            true => Ok(()),
            false => Err(BackupError::Truncated { at: self.at, part }),
        }
    }

    fn count(&mut self, frame: &Frame) {
        self.digest.update(&frame.head);
        self.digest.update(&frame.payload);
    }

    fn damaged(&self, frame: &Frame, reason: impl ToString) -> BackupError {
        let part = match frame.kind {
            FrameKind::Header => "header".to_owned(),
            FrameKind::Block => format!("block {}", self.blocks + 1),
            FrameKind::Trailer => "trailer".to_owned(),
        };
        BackupError::Damaged { at: frame.at, end: self.at, part, reason: reason.to_string() }
    }
}

/// The row at the start of `rest`, which lies in `raw`, and what follows it.
fn take_row<'a>(raw: &Bytes, rest: &'a [u8]) -> Option<(Row, &'a [u8])> {
    let (table, rest) = rest.split_first()?;
    let (key, rest) = take_slice(rest)?;
    let (value, rest) = take_slice(rest)?;
    let row =
        Row { table: usize::from(*table), key: raw.slice_ref(key), value: raw.slice_ref(value) };
    Some((row, rest))
}

fn take_slice(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_varint(input)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// Reads until the buffer is full or the input ends.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
