//! Openraft's own tests of a storage, on ours.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use raft::apply::StateMachine;
use raft::log_store::LogStore;
use raft::types::TypeConfig;

use crate::support::Disk;

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Disk> for Stores {
    async fn build(&self) -> Result<(Disk, LogStore, StateMachine), StorageError<TypeConfig>> {
        let (disk, storage) = Disk::new();
        Ok((disk, storage.log, storage.machine))
    }
}

#[tokio::test]
async fn openrafts_storage_suite_passes() {
    Suite::test_all(Stores).await.unwrap();
}
