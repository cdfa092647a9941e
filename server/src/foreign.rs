//! Readers of bytes from outside, as the fuzzers call them: whatever they are given, they return.
//!
//! Each takes the way that real input takes. Where that begins with a checksum, the checksum is made
//! to fit, because a fuzzer would never get past it.

use std::path::PathBuf;

use crate::admin::backup::frame::{self, FrameKind, MAGIC, PAYLOAD_BYTES_MAX, take_varint};
use crate::admin::backup::reader::Reader;
use crate::config::checked::Config;
use crate::config::sources::{self, File};
use crate::coordinator::milvus_yaml;
use crate::edge::elements;
use crate::edge::limits::{CLIENT_ELEMENTS_MAX, COORDINATOR_ELEMENTS_MAX};

/// Whether a message of etcd's API is decoded at all.
pub fn is_decoded_of_client(message: &[u8]) -> bool {
    elements::check(message, CLIENT_ELEMENTS_MAX).is_ok()
}

/// Whether a message of Milvus is decoded at all.
pub fn is_decoded_of_milvus(message: &[u8]) -> bool {
    elements::check(message, COORDINATOR_ELEMENTS_MAX).is_ok()
}

/// A backup file, byte by byte as it is.
pub fn backup(bytes: &[u8]) {
    read_backup(bytes);
}

/// A backup file of frames whose checksums are right. The input is a list of (kind, length as a
/// varint, payload).
pub fn backup_frames(mut input: &[u8]) {
    let mut file = MAGIC.to_vec();
    while let Some((code, rest)) = input.split_first() {
        let Some((length, rest)) = take_varint(rest) else { break };
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        let (payload, rest) = rest.split_at(length.min(PAYLOAD_BYTES_MAX));
        if let Some(kind) = FrameKind::from_code(*code) {
            file.extend_from_slice(&frame::frame(kind, payload));
        }
        input = rest;
    }
    read_backup(&file);
}

fn read_backup(bytes: &[u8]) {
    let Ok(mut reader) = Reader::open(bytes) else { return };
    while let Ok(Some(_rows)) = reader.next_block() {}
}

/// A configuration file, up to the settings that a node starts with.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let file = File { path: PathBuf::from("quorate.toml"), text };
    let flags = [("name", "n1"), ("data-dir", "data"), ("initial-cluster", "n1=127.0.0.1:2380")];
    let flags = flags.map(|(name, text)| (name, text.to_owned())).into();
    if let Ok(raw) = sources::load(&flags, std::iter::empty(), Some(&file)) {
        let _config = Config::check(&raw);
    }
}

/// A milvus.yaml, up to the settings of the coordinator.
pub fn milvus_configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(values) = milvus_yaml::parse("milvus.yaml", &text) {
        let _settings = milvus_yaml::settings(&values);
    }
}
