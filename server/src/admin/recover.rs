//! Recovery from a lost majority, offline, on one survivor's directory.

use std::path::Path;

pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) cluster_id: u64,
    pub(crate) last_index: u64,
}

pub(crate) fn inspect(data_dir: &Path) -> anyhow::Result<Facts> {
    anyhow::bail!("{} cannot be inspected yet", data_dir.display())
}

pub(crate) fn force(data_dir: &Path) -> anyhow::Result<u64> {
    anyhow::bail!("{} cannot be changed yet", data_dir.display())
}
