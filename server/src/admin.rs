//! Administration of a node: its own gRPC service, backups, recovery.

pub(crate) mod backup;
pub(crate) mod recover;
pub(crate) mod service;
