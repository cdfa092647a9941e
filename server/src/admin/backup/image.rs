//! A backup file as an image of the state: the tables can be read out of it without loading them.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use proto::admin::{BackupHeader, BackupTrailer};
use statemachine::{Direction, Fault, StateRead, Table, Visit};

use super::reader::{BackupError, Reader, Row};

const READ_AHEAD_BYTES: usize = 1 << 20;

/// Takes a row of a table: key and value.
pub(crate) type Put<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<(), Fault> + 'a;

/// A file of which every byte was checked.
pub(crate) struct BackupImage {
    path: PathBuf,
    pub(crate) header: BackupHeader,
    pub(crate) trailer: BackupTrailer,
    pub(crate) file_bytes: u64,
    /// Where the blocks of each table begin; `None` for a table without rows.
    starts: Vec<(Table, Option<u64>)>,
}

impl BackupImage {
    /// Reads the whole file once. `progress` hears the position.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or holds tables that this binary does not know.
    pub(crate) fn open(path: &Path, progress: &dyn Fn(u64)) -> anyhow::Result<BackupImage> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let file_bytes = file.metadata()?.len();
        let mut reader = Reader::open(BufReader::with_capacity(READ_AHEAD_BYTES, file))?;
        let mut starts = tables(reader.header())?;
        loop {
            let at = reader.position();
            let Some(rows) = reader.next_block()? else { break };
            progress(reader.position());
            let place = rows.first().map_or(0, |row| row.table);
            anyhow::ensure!(
                rows.iter().all(|row| row.table == place),
                "the block at byte {at} holds rows of several tables: it was not written by quorate"
            );
            if !rows.is_empty() {
                starts[place].1.get_or_insert(at);
            }
        }
        let trailer = reader.trailer().context("a backup ends with its trailer")?.clone();
        let header = reader.header().clone();
        Ok(BackupImage { path: path.to_owned(), header, trailer, file_bytes, starts })
    }

    /// Visits all rows in file order. `progress` hears how many were visited.
    ///
    /// # Errors
    /// The file changed since it was opened, or what `visit` returned.
    pub(crate) fn rows(&self, visit: &mut Put<'_>, progress: &dyn Fn(u64)) -> Result<(), Fault> {
        let mut rows = 0;
        for table in self.starts.iter().map(|(table, _)| *table) {
            self.scan(table, &[], None, Direction::Forward, &mut |key, value| {
                visit(table, key, value)?;
                rows += 1;
                progress(rows);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    fn read(
        &self,
        table: Table,
        take: &mut dyn FnMut(Row) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let place = self.starts.iter().position(|(known, _)| *known == table);
        let Some((place, start)) = place.and_then(|place| Some((place, self.starts[place].1?)))
        else {
            return Ok(());
        };
        let io = |error: std::io::Error| self.fault(&error);
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let file = BufReader::with_capacity(READ_AHEAD_BYTES, file);
        let mut reader = Reader::at_block(file, start, &self.header);
        let damaged = |error: BackupError| self.fault(&error);
        while let Some(rows) = reader.next_block().map_err(damaged)? {
            for row in rows {
                if row.table != place || !take(row)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn fault(&self, error: &dyn std::error::Error) -> Fault {
        Fault::Storage(format!("{}: {error}", self.path.display()))
    }
}

fn tables(header: &BackupHeader) -> anyhow::Result<Vec<(Table, Option<u64>)>> {
    let table = |name: &String| {
        let known = Table::ALL.into_iter().find(|table| table.name() == name);
        known.map(|table| (table, None)).with_context(|| {
            format!(
                "the backup holds the table `{name}`, which this binary does not know: use \
                 version {} of quorate or a newer one",
                header.version
            )
        })
    };
    header.tables.iter().map(table).collect()
}

impl StateRead for BackupImage {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let mut found = None;
        self.read(table, &mut |row| {
            if row.key == key {
                found = Some(row.value);
                return Ok(false);
            }
            Ok(row.key.as_ref() < key)
        })?;
        Ok(found)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        match direction {
            Direction::Forward => self.read(table, &mut |row| {
                if end.is_some_and(|end| row.key.as_ref() >= end) {
                    return Ok(false);
                }
                match inside(&row.key) {
                    true => Ok(visit(&row.key, &row.value)?.is_continue()),
                    false => Ok(true),
                }
            }),
            // The file runs forward only. Nobody scans much of it backward.
            Direction::Backward => {
                let mut rows = Vec::new();
                self.read(table, &mut |row| {
                    if inside(&row.key) {
                        rows.push(row);
                    }
                    Ok(true)
                })?;
                for row in rows.into_iter().rev() {
                    if visit(&row.key, &row.value)?.is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }
}
