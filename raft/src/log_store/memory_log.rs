//! A disk in memory that can crash: what was not synced is gone.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::disk::{Fact, LogBatch, LogChange, LogDisk, VisitRow};

#[derive(Clone, Debug, Default)]
struct Image {
    rows: BTreeMap<u64, Vec<u8>>,
    facts: BTreeMap<Fact, Vec<u8>>,
}

impl Image {
    fn apply(&mut self, batch: &LogBatch) {
        for change in &batch.changes {
            match change {
                LogChange::Put { index, row } => {
                    self.rows.insert(*index, row.clone());
                }
                LogChange::Truncate { from, to } | LogChange::Purge { from, to } => {
                    self.rows.retain(|index, _| index < from || index >= to);
                }
                LogChange::Record { fact, value } => {
                    self.facts.insert(*fact, value.clone());
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    durable: Image,
    visible: Image,
    unsynced: Vec<LogBatch>,
    fail_next_sync: bool,
    hang_sync: Duration,
    syncs: u64,
}

/// Clones share one disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog(Arc<Mutex<Inner>>);

impl MemoryLog {
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }

    /// What a power loss leaves: everything synced, and the first `kept` batches after that.
    pub fn crash(&self, kept: usize) -> MemoryLog {
        let inner = self.0.lock();
        let mut image = inner.durable.clone();
        for batch in inner.unsynced.iter().take(kept) {
            image.apply(batch);
        }
        let recovered = Inner { durable: image.clone(), visible: image, ..Inner::default() };
        MemoryLog(Arc::new(Mutex::new(recovered)))
    }

    pub fn fail_next_sync(&self) {
        self.0.lock().fail_next_sync = true;
    }

    /// Every sync from now on takes at least this long.
    pub fn hang_syncs(&self, time: Duration) {
        self.0.lock().hang_sync = time;
    }

    /// Overwrites a row behind the back of the log.
    pub fn edit(&self, index: u64, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.lock();
        let mut row = inner.durable.rows.get(&index).cloned().unwrap_or_default();
        edit(&mut row);
        inner.durable.rows.insert(index, row.clone());
        inner.visible.rows.insert(index, row);
    }

    pub fn remove(&self, index: u64) {
        let mut inner = self.0.lock();
        inner.durable.rows.remove(&index);
        inner.visible.rows.remove(&index);
    }

    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }
}

impl LogDisk for MemoryLog {
    fn write(&self, batch: LogBatch, sync: bool) -> io::Result<()> {
        let hang = self.0.lock().hang_sync;
        if sync && !hang.is_zero() {
            std::thread::sleep(hang);
        }
        let mut inner = self.0.lock();
        inner.visible.apply(&batch);
        inner.unsynced.push(batch);
        if !sync {
            return Ok(());
        }
        if std::mem::take(&mut inner.fail_next_sync) {
            return Err(io::Error::other("injected failure of a sync"));
        }
        inner.syncs += 1;
        inner.durable = inner.visible.clone();
        inner.unsynced.clear();
        Ok(())
    }

    fn scan(&self, start: u64, end: u64, visit: &mut VisitRow<'_>) -> io::Result<()> {
        if start >= end {
            return Ok(());
        }
        let rows: Vec<(u64, Vec<u8>)> = {
            let inner = self.0.lock();
            inner.visible.rows.range(start..end).map(|(i, row)| (*i, row.clone())).collect()
        };
        for (index, row) in rows {
            if visit(index, &row).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        Ok(self.0.lock().visible.rows.last_key_value().map(|(index, _)| *index))
    }

    fn fact(&self, fact: Fact) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().visible.facts.get(&fact).cloned())
    }

    fn reclaim(&self, _below: u64) -> io::Result<()> {
        Ok(())
    }
}
