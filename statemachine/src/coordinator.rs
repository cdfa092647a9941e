//! The coordinator's part of the state machine: commands on Milvus's metadata.
//!
//! Each room (`segment`, `channel`, `index`, `compaction`) has its commands, decided here inside
//! apply, and the view that follows their records. A command reads and writes rows of the keyspace
//! through `Records`; a refusal drops all of it. `keys` has every key layout.

mod entry;
pub mod keys;
pub(crate) mod records;
mod refusal;

pub mod channel;
pub mod compaction;
pub mod garbage;
pub mod index;
pub mod segment;

pub(crate) use entry::{cost_bytes, touches_owned};
pub use refusal::Refusal;
