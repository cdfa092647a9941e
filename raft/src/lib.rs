//! Durability: consensus, log, state and snapshots on disk, and the peers.
//!
//! See `OVERVIEW.md` for the shape and for what is absent on purpose.

pub mod apply;
mod bootstrap;
mod clock;
mod config;
mod connect;
pub mod convert;
mod durable;
mod engine;
mod error;
pub mod failure;
mod generation;
mod identity;
mod inbound;
mod leadership;
pub mod log_store;
mod membership;
mod metrics;
mod network;
mod node;
mod observe;
mod peer_service;
mod peers;
mod propose;
mod pump;
mod read;
mod retention;
pub mod rocks;
pub mod snapshot;
mod snapshot_transfer;
mod status;
pub mod storage;
pub mod storage_metrics;
mod tasks;
mod tenure;
pub mod types;
mod view;
mod wire;

pub use apply::{AppliedEvent, RecvError, Subscription};
pub use clock::{Clock, SystemClock};
pub use config::{Limits, NodeOptions, Timers};
pub use connect::{Acceptor, Dialer, PeerStream, TcpAcceptor, TcpDialer};
pub use error::{AskError, LeaderHint, MembershipError, ProposeError, ReadError, StartError};
pub use generation::GenerationError;
pub use identity::StoredIdentity;
pub use metrics::Metrics;
pub use node::{Consistency, Node, PeerHandler};
pub use propose::Committed;
pub use retention::RetentionPolicy;
pub use rocks::Pinned;
pub use status::{LogIdView, Member, NodeState, PeerProgress, Role, Status};
pub use tenure::Tenure;
pub use types::{Endpoints, NodeMeta};
pub use view::View;
