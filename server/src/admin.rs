//! Administration of a node: its own gRPC service, and backups.

pub(crate) mod backup;
pub(crate) mod scans;
pub(crate) mod service;
