//! Checks that need no state: servers make them before proposing, apply makes them again.

use proto::etcd::request_op::Request;
use proto::{etcd, quorate};

use crate::alarm::AlarmOrder;
use crate::kv::branch_writes;
use crate::limits;
use crate::response::Rejection;
use crate::settings::Settings;
use crate::versions;

/// Refuses a command whose request is wrong whatever the state holds.
///
/// # Errors
/// The first check that fails, in etcd's order.
pub fn request(command: &quorate::Command, settings: &Settings) -> Result<(), Rejection> {
    use quorate::command::Kind;
    let Some(kind) = &command.kind else { return Ok(()) };
    match kind {
        Kind::Put(request) => put(request),
        Kind::DeleteRange(request) => delete_range(request),
        Kind::Txn(request) => txn(request, settings.txn_ops_max),
        Kind::LeaseGrant(request) => lease_grant(request),
        Kind::ChangeSettings(change) => settings.changed(change).map(|_settings| ()),
        Kind::Alarm(request) => AlarmOrder::parse(request, versions::KNOWN_LEVEL).map(|_| ()),
        Kind::Compact(_)
        | Kind::LeaseRevoke(_)
        | Kind::ExpireLeases(_)
        | Kind::RegisterOrigin(_)
        | Kind::RaiseLevel(_)
        | Kind::CheckDigest(_)
        | Kind::SetTime(_)
        | Kind::Coordinator(_) => Ok(()),
    }
}

/// # Errors
/// An empty key, or an unknown sort option.
pub fn range(request: &etcd::RangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    for (value, is_known) in [
        (request.sort_order, etcd::range_request::SortOrder::try_from(request.sort_order).is_ok()),
        (
            request.sort_target,
            etcd::range_request::SortTarget::try_from(request.sort_target).is_ok(),
        ),
    ] {
        if !is_known {
            return Err(Rejection::UnknownOption { value: i64::from(value) });
        }
    }
    Ok(())
}

/// # Errors
/// An empty key, or a value or lease beside the wish to keep the old one.
pub fn put(request: &etcd::PutRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Rejection::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Rejection::LeaseProvided { lease: request.lease });
    }
    Ok(())
}

/// # Errors
/// An empty key.
pub fn delete_range(request: &etcd::DeleteRangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() { Err(Rejection::EmptyKey) } else { Ok(()) }
}

/// # Errors
/// A missing id, or a time to live beyond the bound.
pub fn lease_grant(request: &etcd::LeaseGrantRequest) -> Result<(), Rejection> {
    if request.id == 0 {
        return Err(Rejection::LeaseIdMissing);
    }
    if request.ttl > limits::LEASE_TTL_S_MAX {
        return Err(Rejection::LeaseTtlTooLarge {
            ttl_s: request.ttl,
            limit_s: limits::LEASE_TTL_S_MAX,
        });
    }
    Ok(())
}

/// # Errors
/// Too many operations, an operation that is wrong by itself, or two that write one key.
pub fn txn(request: &etcd::TxnRequest, ops_max: u32) -> Result<(), Rejection> {
    txn_shape(request, &Budget { ops: ops_max.into(), ops_max: ops_max.into(), depth: 1 })?;
    let given = n_operations(request);
    let limit = limits::txn_ops_in_all_max(ops_max);
    if given > limit {
        return Err(Rejection::TooManyOperations { given, limit });
    }
    branch_writes::check(request)
}

/// Comparisons and operations on all branches, those of nested transactions included.
fn n_operations(request: &etcd::TxnRequest) -> u64 {
    let ops = || request.success.iter().chain(&request.failure);
    let nested = ops().map(|op| match &op.request {
        Some(Request::RequestTxn(nested)) => n_operations(nested),
        Some(
            Request::RequestRange(_) | Request::RequestPut(_) | Request::RequestDeleteRange(_),
        )
        | None => 0,
    });
    request.compare.len() as u64 + ops().count() as u64 + nested.sum::<u64>()
}

/// Nothing in it can write, on either branch.
pub fn is_read_only(request: &etcd::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(nested)) => is_read_only(nested),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

/// What a transaction may hold where it stands.
struct Budget {
    ops: u64,
    ops_max: u64,
    depth: u32,
}

fn txn_shape(request: &etcd::TxnRequest, budget: &Budget) -> Result<(), Rejection> {
    if budget.depth > limits::TXN_DEPTH_MAX {
        let (given, limit) = (budget.depth.into(), limits::TXN_DEPTH_MAX.into());
        return Err(Rejection::TooManyOperations { given, limit });
    }
    let n_ops = request.compare.len().max(request.success.len()).max(request.failure.len()) as u64;
    let Some(left) = budget.ops.checked_sub(n_ops) else {
        let given = budget.ops_max - budget.ops + n_ops;
        return Err(Rejection::TooManyOperations { given, limit: budget.ops_max });
    };
    let nested = Budget { ops: left, ops_max: budget.ops_max, depth: budget.depth + 1 };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Rejection::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            None => return Err(Rejection::EmptyOperation),
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(inner)) => txn_shape(inner, &nested)?,
        }
    }
    Ok(())
}
