//! Durability: consensus, log, state and snapshots on disk, and the peers.

pub mod apply;
pub mod convert;
mod durable;
pub mod failure;
mod generation;
pub mod log_store;
mod retention;
pub mod rocks;
pub mod snapshot;
pub mod storage;
pub mod storage_metrics;
pub mod types;
mod view;

pub use generation::GenerationError;
pub use retention::RetentionPolicy;
pub use view::View;
