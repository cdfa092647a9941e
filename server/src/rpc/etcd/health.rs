//! gRPC health: serving while the keyspace can be served.

use std::sync::Arc;

use raft::NodeState;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::Etcd;
use crate::tasks;

/// The service that stands for the whole server, and those that clients ask for by name.
const NAMES: [&str; 4] = ["", "etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease"];

pub(super) fn service(api: &Arc<Etcd>) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    let mut status = api.node.status();
    let stop = api.stop.clone();
    tasks::spawn("grpc-health", async move {
        let mut known = None;
        loop {
            let serves = status.borrow_and_update().state >= NodeState::Keyspace;
            if known != Some(serves) {
                known = Some(serves);
                let serving =
                    if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
                for name in NAMES {
                    reporter.set_service_status(name, serving).await;
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                // Cancel-safe: a change stays to be seen.
                changed = status.changed() => if changed.is_err() { break },
            }
        }
        for name in NAMES {
            reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    });
    service
}
