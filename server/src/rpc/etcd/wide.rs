//! Writes over ranges of keys. Each may keep every node busy up to the bounds of one command, so
//! only so many of them are under way on behalf of this node's clients.

use proto::etcd;
use proto::etcd::request_op::Request;
use proto::quorate::command::Kind;
use tokio::sync::SemaphorePermit;
use tonic::Status;

use super::call::Deadline;
use super::{Etcd, EtcdError};

/// Whether a write names more than single keys.
pub(super) fn is_wide(kind: &Kind) -> bool {
    match kind {
        Kind::DeleteRange(request) => !request.range_end.is_empty(),
        Kind::Txn(request) => is_wide_txn(request),
        Kind::Put(_)
        | Kind::Compact(_)
        | Kind::LeaseGrant(_)
        | Kind::LeaseRevoke(_)
        | Kind::ExpireLeases(_)
        | Kind::Alarm(_)
        | Kind::RegisterOrigin(_)
        | Kind::ChangeSettings(_)
        | Kind::RaiseLevel(_)
        | Kind::CheckDigest(_)
        | Kind::SetTime(_)
        | Kind::Coordinator(_) => false,
    }
}

fn is_wide_txn(request: &etcd::TxnRequest) -> bool {
    let is_wide_op = |op: &etcd::RequestOp| match &op.request {
        Some(Request::RequestRange(range)) => !range.range_end.is_empty(),
        Some(Request::RequestDeleteRange(delete)) => !delete.range_end.is_empty(),
        Some(Request::RequestTxn(nested)) => is_wide_txn(nested),
        Some(Request::RequestPut(_)) | None => false,
    };
    request.compare.iter().any(|compare| !compare.range_end.is_empty())
        || request.success.iter().chain(&request.failure).any(is_wide_op)
}

impl Etcd {
    /// Waits until fewer are under way, at most until the deadline.
    ///
    /// # Errors
    /// Refused where as many were under way all the time.
    pub(super) async fn admit_wide(
        &self,
        deadline: &Deadline,
    ) -> Result<SemaphorePermit<'_>, Status> {
        match tokio::time::timeout_at(deadline.at, self.wide_writes.acquire()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_elapsed) => Err(EtcdError::TooManyRequests.with_detail(&format!(
                "{} writes over ranges of keys are under way on this node, which is the limit: \
                 send fewer at once",
                self.limits.wide_writes_max
            ))),
        }
    }
}
