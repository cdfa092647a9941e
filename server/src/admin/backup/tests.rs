//! The codec round trip, and that no edit goes unnoticed.

use bytes::Bytes;
use proptest::prelude::*;
use proto::admin::BackupHeader;

use statemachine::versions::BACKUP;

use super::reader::{BackupError, Reader, Row};
use super::writer::Writer;

fn header() -> BackupHeader {
    BackupHeader {
        format: BACKUP.newest,
        version: "0.1.0".to_owned(),
        cluster_id: 7,
        revision: 42,
        index: 99,
        content_digest: Bytes::from_static(&[1; 16]),
        tables: ["event", "version"].map(str::to_owned).to_vec(),
        ..BackupHeader::default()
    }
}

fn write(rows: &[Row]) -> Vec<u8> {
    let (mut writer, mut file) = Writer::start(&header());
    let mut all = file.to_vec();
    for row in rows {
        if let Some(more) = writer.row(row.table, &row.key, &row.value).expect("zstd works") {
            all.extend_from_slice(&more);
        }
    }
    file = writer.finish().expect("zstd works");
    all.extend_from_slice(&file);
    all
}

fn read(file: &[u8]) -> Result<Vec<Row>, BackupError> {
    let mut reader = Reader::open(file)?;
    let mut rows = Vec::new();
    while let Some(block) = reader.next_block()? {
        rows.extend(block);
    }
    Ok(rows)
}

fn some_rows(n_rows: usize, value_bytes: usize) -> Vec<Row> {
    (0..n_rows)
        .map(|number| Row {
            table: number % 2,
            key: Bytes::from(format!("key {number}")),
            value: Bytes::from(vec![u8::try_from(number % 251).expect("small"); value_bytes]),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(
        rows in prop::collection::vec(
            (0usize..2, prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..3000)),
            0..300,
        )
    ) {
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|(table, key, value)| Row { table, key: key.into(), value: value.into() })
            .collect();
        prop_assert_eq!(read(&write(&rows)).expect("nothing was changed"), rows);
    }

    #[test]
    fn a_file_of_several_blocks_with_one_byte_edited_is_refused(
        place in any::<prop::sample::Index>(),
        change in 1u8..=255,
    ) {
        let mut file = write(&incompressible(40, 30_000));
        let place = place.index(file.len());
        file[place] ^= change;
        prop_assert!(read(&file).is_err());
    }
}

/// Rows that zstd cannot shrink, so that the file has several real blocks.
fn incompressible(n_rows: usize, value_bytes: usize) -> Vec<Row> {
    let mut output = blake3::Hasher::new().finalize_xof();
    (0..n_rows)
        .map(|number| {
            let mut value = vec![0; value_bytes];
            output.fill(&mut value);
            Row { table: 0, key: Bytes::from(format!("key {number}")), value: value.into() }
        })
        .collect()
}

#[test]
fn every_single_byte_edit_of_a_small_file_is_refused() {
    let file = write(&some_rows(3, 20));
    for place in 0..file.len() {
        for bit in 0..8 {
            let mut edited = file.clone();
            edited[place] ^= 1 << bit;
            assert!(read(&edited).is_err(), "byte {place} of {}, bit {bit}", file.len());
        }
    }
}

#[test]
fn every_truncation_and_anything_appended_is_refused() {
    let file = write(&some_rows(3, 20));
    for length in 0..file.len() {
        assert!(read(&file[..length]).is_err(), "{length} of {} bytes", file.len());
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(matches!(read(&longer), Err(BackupError::Trailing { .. })));
}

#[test]
fn frames_cannot_be_dropped_or_exchanged() {
    let file = write(&incompressible(30, 30_000));
    let frames = frames(&file);
    assert!(frames.len() > 4, "several blocks, or the test shows nothing");
    let without = [&file[..frames[1].0], &file[frames[1].1..]].concat();
    assert!(read(&without).is_err());
    let exchanged = [
        &file[..frames[1].0],
        &file[frames[2].0..frames[2].1],
        &file[frames[1].0..frames[1].1],
        &file[frames[2].1..],
    ]
    .concat();
    assert!(read(&exchanged).is_err());
}

/// Start and end of every frame.
fn frames(file: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 8;
    while at < file.len() {
        let length = [file[at + 1], file[at + 2], file[at + 3], file[at + 4]];
        let end = at + 9 + usize::try_from(u32::from_le_bytes(length)).expect("small");
        found.push((at, end));
        at = end;
    }
    found
}

#[test]
fn refusals_say_where() {
    let mut file = write(&some_rows(3, 20));
    let last = frames(&file).len() - 1;
    let (start, end) = frames(&file)[1];
    file[start + 12] ^= 1;
    let message = read(&file).expect_err("a byte of block 1 was edited").to_string();
    assert_eq!(
        message,
        format!("the backup is damaged at bytes {start} to {end} (block 1): the checksum differs")
    );
    file[start + 12] ^= 1;
    let (start, _) = frames(&file)[last];
    let message = read(&file[..start + 3]).expect_err("cut in the trailer").to_string();
    assert_eq!(
        message,
        format!("the backup is truncated: it ends at byte {} in the middle of a block", start + 3)
    );
    let message = read(b"PK\x03\x04 something else").expect_err("no backup").to_string();
    assert_eq!(message, "not a Quorate backup: it does not start with QUORBKP1");
}

#[test]
fn a_newer_format_is_named() {
    let newer = BackupHeader { format: BACKUP.newest + 1, version: "9.9.9".to_owned(), ..header() };
    let (writer, start) = Writer::start(&newer);
    let file = [start, writer.finish().expect("zstd works")].concat();
    let message = read(&file).expect_err("from the future").to_string();
    assert!(message.contains("format 2") && message.contains("version 9.9.9"), "{message}");
}
