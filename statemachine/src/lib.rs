//! What a committed entry means: the replicated state machine, pure and deterministic.
//!
//! Nothing here reads a clock, draws a random number, touches a file or a thread. See
//! `OVERVIEW.md` for the shape and for what is absent on purpose.

#![deny(clippy::iter_over_hash_type, clippy::float_arithmetic)]

pub mod admission;
mod alarm;
pub mod catalog;
pub mod channel;
pub mod compaction;
pub mod coordinator;
pub mod digest;
mod event;
pub mod history;
mod ids;
mod keyspace;
mod kv;
mod lease;
pub mod limits;
mod origin;
mod response;
pub mod session;
mod settings;
mod state;
pub mod store;
mod table;
pub mod testkit;
pub mod transplant;
pub mod versions;
pub mod view;

pub use alarm::{Alarm, AlarmKind};
pub use digest::{DigestCheck, Digests, HashKv};
pub use event::{Event, EventKind};
pub use ids::{EntryMeta, EventId, RequestId};
pub use keyspace::key_range::{End, KeyRange};
pub use keyspace::meta::{KeyMeta, RecordHash};
pub use kv::answer::Deferred;
pub use kv::check;
pub use kv::cost::CostBound;
pub use kv::past_image::{IndexCopy, PastImage};
pub use kv::range::RangePlan;
pub use kv::read_txn::TxnPlan;
pub use lease::{Lease, LeaseChange};
pub use response::{Outcome, Rejection, Response, outcome_from_wire, outcome_to_wire};
pub use settings::Settings;
pub use state::State;
pub use state::chunk::{LogEntry, Readers};
pub use state::command::grows;
pub use state::commit::{Applied, Prepared, RefusedRun, Touched};
pub use state::load::{Loading, Pairs};
pub use store::{Changes, Direction, Fault, StateRead, Table, Visit};
pub use view::Views;
