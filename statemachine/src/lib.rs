//! What a committed entry means: the replicated state machine, pure and deterministic.
//!
//! Nothing here reads a clock, draws a random number, touches a file or a thread. See
//! `OVERVIEW.md` for the shape and for what is absent on purpose.

pub mod catalog;
pub mod channel;
pub mod session;
pub mod store;
pub mod view;
