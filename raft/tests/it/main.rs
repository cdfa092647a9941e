//! Tests of the crate through its public face, on real directories.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop where its premise fails"
)]

mod disk;
mod snapshots;
mod storage_suite;
mod support;
