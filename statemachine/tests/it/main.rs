//! Laws of the state machine, as a whole and from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod admission;
mod agreement;
mod captures;
mod commands;
mod coordinator;
mod golden;
mod laws;
mod model;
mod recorder;
mod runner;
mod summary;
