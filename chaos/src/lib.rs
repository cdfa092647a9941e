//! Drives real server processes from the outside: starts them, breaks them, loads them, records
//! what clients saw and checks it.
//!
//! It knows the binary's flags and the wire, nothing else: a reference that shares code with the
//! server shares its bugs. The same code drives etcd, so the checkers are tried on a peer too.

pub mod assertions;
pub mod backup;
pub mod bench;
pub mod bit_rot;
pub mod ceiling;
pub mod checker;
pub mod client;
pub mod cluster;
pub mod coordinator;
pub mod demo;
pub mod disk;
pub mod disk_full;
pub mod failover;
pub mod history;
pub mod hostile;
pub mod load;
pub mod million;
pub mod nemesis;
pub mod numbers;
pub mod pairs;
pub mod past;
pub mod power_cut;
pub mod report;
pub mod snapshot;
pub mod synced_writes;
pub mod torture;
pub mod workload;
