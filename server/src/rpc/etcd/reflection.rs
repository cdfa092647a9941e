//! gRPC reflection, for tools that learn an API from its server.

use tonic_reflection::server::Builder;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

/// What this port serves; the descriptors know more.
const NAMES: [&str; 6] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
];

pub(super) fn service() -> ServerReflectionServer<impl ServerReflection> {
    NAMES
        .into_iter()
        .fold(Builder::configure(), Builder::with_service_name)
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are those that the services were generated from")
}
