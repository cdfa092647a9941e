//! Replicated settings: what apply may depend on beside the keyspace. Config never reaches apply.

use prost::Message;
use proto::quorate;

use crate::limits;
use crate::response::Rejection;
use crate::store::{Fault, StateRead, Table};
use crate::table;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Prefix of everything that Milvus stores; no slash at either end.
    pub root_path: String,
    /// Bound on the logical size; 0 means none.
    pub quota_bytes: u64,
    pub retention_revisions: u64,
    pub retention_ms: u64,
    pub txn_ops_max: u32,
    /// The coordinator's role is on: its prefixes are written by its commands.
    pub coordinator: bool,
    /// Raw writes to those prefixes are let through all the same.
    pub raw_writes: bool,
    /// No garbage is collected until an operator resumes it. Set by a restore: files that were
    /// written after the backup are named by no record of it.
    pub garbage_held: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            root_path: limits::ROOT_PATH_DEFAULT.to_owned(),
            quota_bytes: limits::QUOTA_BYTES_DEFAULT,
            retention_revisions: limits::RETENTION_REVISIONS_DEFAULT,
            retention_ms: limits::RETENTION_MS_DEFAULT,
            txn_ops_max: limits::TXN_OPS_DEFAULT,
            coordinator: false,
            raw_writes: false,
            garbage_held: false,
        }
    }
}

impl Settings {
    pub(crate) fn load(store: &dyn StateRead) -> Result<Settings, Fault> {
        let Some(row) = store.get(Table::Domain, table::domain::SETTINGS)? else {
            return Ok(Settings::default());
        };
        let row = quorate::Settings::decode(row)
            .map_err(|error| table::domain::corrupt(&error.to_string()))?;
        Ok(Settings {
            root_path: row.root_path,
            quota_bytes: row.quota_bytes,
            retention_revisions: row.retention_revisions,
            retention_ms: row.retention_ms,
            txn_ops_max: row.txn_ops_max,
            coordinator: row.coordinator,
            raw_writes: row.raw_writes,
            garbage_held: row.garbage_held,
        })
    }

    pub fn to_wire(&self) -> quorate::Settings {
        quorate::Settings {
            root_path: self.root_path.clone(),
            quota_bytes: self.quota_bytes,
            retention_revisions: self.retention_revisions,
            retention_ms: self.retention_ms,
            txn_ops_max: self.txn_ops_max,
            coordinator: self.coordinator,
            raw_writes: self.raw_writes,
            garbage_held: self.garbage_held,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// The settings after a change; absent fields stay.
    ///
    /// # Errors
    /// A value out of its bounds.
    pub fn changed(&self, change: &quorate::ChangeSettings) -> Result<Settings, Rejection> {
        let mut settings = self.clone();
        if let Some(root_path) = &change.root_path {
            let fits = (1..=limits::ROOT_PATH_BYTES_MAX).contains(&root_path.len());
            if !fits || root_path.starts_with('/') || root_path.ends_with('/') {
                return Err(invalid("root_path", root_path));
            }
            settings.root_path.clone_from(root_path);
        }
        if let Some(txn_ops_max) = change.txn_ops_max {
            if !(1..=limits::TXN_OPS_CEILING).contains(&txn_ops_max) {
                return Err(invalid("txn_ops_max", &txn_ops_max.to_string()));
            }
            settings.txn_ops_max = txn_ops_max;
        }
        settings.quota_bytes = change.quota_bytes.unwrap_or(settings.quota_bytes);
        settings.retention_revisions =
            change.retention_revisions.unwrap_or(settings.retention_revisions);
        settings.retention_ms = change.retention_ms.unwrap_or(settings.retention_ms);
        Ok(settings)
    }
}

fn invalid(name: &str, value: &str) -> Rejection {
    Rejection::InvalidSetting { name: name.to_owned(), value: value.to_owned() }
}
