//! What a committed entry means: the replicated state machine, pure and deterministic.
//!
//! Nothing here reads a clock, draws a random number, touches a file or a thread. See
//! `OVERVIEW.md` for the shape and for what is absent on purpose.

pub mod store;
