//! Builds the bytes of a backup file, piece by piece, so that they can be streamed.

use bytes::Bytes;
use prost::Message;
use proto::admin::{BackupHeader, BackupTrailer};

use super::frame::{BLOCK_BYTES, FrameKind, MAGIC, frame, put_varint};

/// Fast, and about as small as the slower levels make metadata.
const ZSTD_LEVEL: i32 = 3;

/// Turns rows into frames. The order of calls is `start`, `row`…, `finish`.
pub(crate) struct Writer {
    block: Vec<u8>,
    rows: Vec<u64>,
    blocks: u64,
    raw_bytes: u64,
    digest: blake3::Hasher,
}

impl Writer {
    /// The writer, and the first bytes of the file.
    pub(crate) fn start(header: &BackupHeader) -> (Writer, Bytes) {
        let mut writer = Writer {
            block: Vec::with_capacity(BLOCK_BYTES * 2),
            rows: vec![0; header.tables.len()],
            blocks: 0,
            raw_bytes: 0,
            digest: blake3::Hasher::new(),
        };
        let head = frame(FrameKind::Header, &header.encode_to_vec());
        let bytes = Bytes::from([MAGIC.as_slice(), &head].concat());
        writer.digest.update(&bytes);
        (writer, bytes)
    }

    /// Takes a row of the table at that place of the header's `tables`; returns a frame whenever
    /// a block is full.
    ///
    /// # Errors
    /// The compressor failed.
    pub(crate) fn row(
        &mut self,
        table: usize,
        key: &[u8],
        value: &[u8],
    ) -> std::io::Result<Option<Bytes>> {
        self.rows[table] += 1;
        self.block.push(u8::try_from(table).expect("a handful of tables"));
        put_varint(&mut self.block, key.len() as u64);
        self.block.extend_from_slice(key);
        put_varint(&mut self.block, value.len() as u64);
        self.block.extend_from_slice(value);
        match self.block.len() >= BLOCK_BYTES {
            true => self.flush().map(Some),
            false => Ok(None),
        }
    }

    /// Ends the block, whatever its size; nothing where it is empty.
    ///
    /// # Errors
    /// The compressor failed.
    pub(crate) fn end_table(&mut self) -> std::io::Result<Bytes> {
        match self.block.is_empty() {
            true => Ok(Bytes::new()),
            false => self.flush(),
        }
    }

    pub(crate) fn rows_written(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// The last bytes of the file.
    ///
    /// # Errors
    /// The compressor failed.
    pub(crate) fn finish(mut self) -> std::io::Result<Bytes> {
        let last = self.end_table()?;
        let trailer = BackupTrailer {
            rows: self.rows,
            blocks: self.blocks,
            raw_bytes: self.raw_bytes,
            blake3: Bytes::copy_from_slice(self.digest.finalize().as_bytes()),
        };
        let end = frame(FrameKind::Trailer, &trailer.encode_to_vec());
        Ok(Bytes::from([last, end].concat()))
    }

    fn flush(&mut self) -> std::io::Result<Bytes> {
        let mut payload = Vec::new();
        put_varint(&mut payload, self.block.len() as u64);
        payload.extend_from_slice(&zstd::bulk::compress(&self.block, ZSTD_LEVEL)?);
        let bytes = frame(FrameKind::Block, &payload);
        self.raw_bytes += self.block.len() as u64;
        self.blocks += 1;
        self.block.clear();
        self.digest.update(&bytes);
        Ok(bytes)
    }
}
