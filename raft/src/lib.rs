//! Durability: consensus, log, state and snapshots on disk, and the peers.

pub mod convert;
pub mod failure;
pub mod log_store;
pub mod storage_metrics;
pub mod types;
