//! Refuses what grows while the disks of a majority are full, before it takes room in the log.
//!
//! Apply refuses it too, once the alarm is committed; until then, and for the log, this does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::quorate::command::Kind;
use raft::Node;
use statemachine::grows;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::error::EtcdError;
use crate::{duty, tasks};

/// How often the alarm is looked at: a look for each write would cost more.
const PERIOD: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct RoomGate {
    is_closed: AtomicBool,
}

impl RoomGate {
    pub(super) fn start(node: Node, stop: CancellationToken) -> Arc<RoomGate> {
        let gate = Arc::new(RoomGate::default());
        let watched = Arc::clone(&gate);
        tasks::spawn("room-gate", async move {
            let mut period = tokio::time::interval(PERIOD);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = period.tick() => {}
                }
                let is_closed = node.is_tight() || node.local_view().read(duty::is_full);
                watched.is_closed.store(is_closed, Ordering::Relaxed);
            }
        });
        gate
    }

    /// # Errors
    /// The command grows the keyspace, and the disks of a majority are full.
    pub(super) fn admit(&self, kind: &Kind) -> Result<(), Status> {
        if !self.is_closed.load(Ordering::Relaxed) || !grows(kind) {
            return Ok(());
        }
        Err(EtcdError::NoSpace.with_detail(
            "the disks of a majority of the members are below their low marks: free space there, \
             or delete keys and compact; see quorate status",
        ))
    }
}

#[cfg(test)]
mod tests {
    use proto::etcd;
    use proto::etcd::request_op::Request;

    use super::*;

    #[test]
    fn what_frees_space_passes_a_closed_gate() {
        let gate = RoomGate::default();
        let put = Kind::Put(etcd::PutRequest::default());
        gate.admit(&put).unwrap();
        gate.is_closed.store(true, Ordering::Relaxed);
        let refused = gate.admit(&put).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
        gate.admit(&Kind::DeleteRange(etcd::DeleteRangeRequest::default())).unwrap();
        gate.admit(&Kind::Compact(etcd::CompactionRequest::default())).unwrap();
        let put = Some(Request::RequestPut(etcd::PutRequest::default()));
        let inner = etcd::TxnRequest {
            failure: vec![etcd::RequestOp { request: put }],
            ..Default::default()
        };
        let nested = etcd::RequestOp { request: Some(Request::RequestTxn(inner)) };
        let outer = etcd::TxnRequest { success: vec![nested], ..Default::default() };
        assert!(gate.admit(&Kind::Txn(outer)).is_err());
        gate.admit(&Kind::Txn(etcd::TxnRequest::default())).unwrap();
    }
}
