//! What clients and peers can call: one module a protocol.

pub(crate) mod datacoord;
pub mod etcd;
pub mod leader;
pub mod peer;
