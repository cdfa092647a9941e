//! Durability: consensus, log, state and snapshots on disk, and the peers.

pub mod convert;
pub mod types;
