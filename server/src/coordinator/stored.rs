//! Single values of the store, read at the moment of a view: planned under its lock, fetched off it.

use bytes::Bytes;
use proto::etcd;
use raft::Pinned;
use statemachine::{RangePlan, Rejection, State};

use super::Failure;

/// Where the value of a key is.
pub(crate) struct ValuePlan(RangePlan);

/// # Errors
/// Rejected as a read of that key would be.
pub(crate) fn plan(state: &State, key: &str) -> Result<ValuePlan, Rejection> {
    let request = etcd::RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..etcd::RangeRequest::default()
    };
    state.plan_range(&request).map(ValuePlan)
}

impl ValuePlan {
    /// The value; `None` where the key is not there.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn fetch(self, store: &Pinned) -> Result<Option<Bytes>, Failure> {
        let answer =
            self.0.fetch(store).map_err(|fault| Failure::Unavailable(fault.to_string()))?;
        Ok(answer.kvs.into_iter().next().map(|kv| kv.value))
    }
}
