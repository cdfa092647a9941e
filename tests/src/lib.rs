//! What the end-to-end tests share: three real nodes, and clients that other people wrote.
//!
//! Every test runs on Quorate, and with `QUORATE_TEST_KIND=etcd` on stock etcd: that is how a
//! harness is tried, and how an expected text is made (`UPDATE_EXPECT=1`).

pub mod clients;
pub mod fixture;
pub mod transcript;
