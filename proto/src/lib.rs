//! Wire types: ours, the etcd v3 API's and Milvus's. Nothing here knows any other crate of ours.
//!
//! The folders of `.proto` files are `etcd/` (the etcd v3 API), `milvus/` (the part of Milvus's
//! API and records that we speak) and `quorate/v1/` (our log, our peers, our administration).

#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    missing_docs,
    reason = "generated from our .proto files by prost and tonic"
)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

/// The etcd v3 API.
pub mod etcd {
    pub use crate::packages::authpb::*;
    pub use crate::packages::etcdserverpb::*;
    pub use crate::packages::mvccpb::*;
}

/// The part of Milvus's API and records that we speak, one module per Milvus package.
pub mod milvus {
    pub use crate::packages::milvus::proto::*;
}

/// Our own messages: log entries, records, peers, administration.
pub mod quorate {
    pub use crate::packages::quorate::v1::*;
}

/// Administration of a node, and the frames of a backup file.
pub mod admin {
    pub use crate::packages::quorate::admin::v1::*;
}

#[cfg(feature = "client")]
pub mod client;

/// Descriptors of all our services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
