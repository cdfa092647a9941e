//! Builds the tables of a generation from rows, while no node runs: restore and recovery.

use std::path::{Path, PathBuf};

use statemachine::{Changes, Fault, Table};

use crate::generation::{self, GenerationError};
use crate::types::{LogId, StoredMembership};

use super::{RocksMemory, StateMemory, StateOpenError, Tables};

/// Rows are written in batches of about this size.
const BATCH_BYTES: usize = 4 << 20;

/// The state directory could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{} already holds a state: choose another data directory", .0.display())]
    Exists(PathBuf),
    #[error(transparent)]
    Open(#[from] StateOpenError),
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error("writing the state: {0}")]
    Write(#[from] Fault),
    #[error("making the state durable: {0}")]
    Flush(String),
}

/// Takes the rows of a new state, in any order; `finish` makes them the current generation.
pub struct StateBuilder {
    sm_dir: PathBuf,
    node: u64,
    tables: Tables,
    pending: Changes,
}

impl StateBuilder {
    /// Starts in an empty `data_dir`.
    ///
    /// # Errors
    /// A state is there, or the disk fails.
    pub fn new(data_dir: &Path, node: u64) -> Result<StateBuilder, BuildError> {
        let sm_dir = generation::state_dir(data_dir);
        if sm_dir.exists() {
            return Err(BuildError::Exists(sm_dir));
        }
        let memory = StateMemory::new(&RocksMemory::default());
        let tables = Tables::create(&generation::path_of(&sm_dir, 1), &memory)?;
        Ok(StateBuilder { sm_dir, node, tables, pending: Changes::default() })
    }

    /// # Errors
    /// The disk fails.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), BuildError> {
        self.pending.put(table, key, value);
        if self.pending.size_bytes() >= BATCH_BYTES {
            self.tables.write_changes(&std::mem::take(&mut self.pending))?;
        }
        Ok(())
    }

    /// What was put so far, for checks before `finish`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tables(&mut self) -> Result<&Tables, BuildError> {
        self.tables.write_changes(&std::mem::take(&mut self.pending))?;
        Ok(&self.tables)
    }

    /// Changes what was put so far, by what it says.
    ///
    /// # Errors
    /// The disk fails, or what `change` returned.
    pub fn change(
        &mut self,
        change: impl FnOnce(&Tables) -> Result<Changes, Fault>,
    ) -> Result<(), BuildError> {
        let changes = change(self.tables()?)?;
        self.tables.write_changes(&changes)?;
        Ok(())
    }

    /// Everything durable, then the current generation of `data_dir`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn finish(self, applied: &LogId, membership: &StoredMembership) -> Result<(), BuildError> {
        self.tables.write(&self.pending, applied, Some(membership), None)?;
        self.tables.flush().map_err(|error| BuildError::Flush(error.to_string()))?;
        drop(self.tables);
        generation::set_current(&self.sm_dir, 1, self.node)?;
        Ok(())
    }
}
