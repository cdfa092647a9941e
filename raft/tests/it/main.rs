//! Tests of the crate through its public face, on real directories.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test may stop where its premise fails"
)]

mod cluster;
mod consensus;
mod disk;
mod exactly_once;
mod followers;
mod identity;
mod leadership;
mod members;
mod net;
mod recovery;
mod snapshots;
mod state;
mod storage_faults;
mod storage_suite;
mod support;
mod time;
