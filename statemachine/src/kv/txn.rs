//! Transactions that may write.

use std::ops::ControlFlow;

use proto::etcd;
use proto::etcd::request_op::Request;
use proto::etcd::response_op;

use crate::keyspace::key_range::KeyRange;
use crate::kv::compare::Comparison;
use crate::kv::{check_put, delete_range, put, range};
use crate::response::Response;
use crate::state::draft::{Alone, Draft, Stop};

/// Which branch of a transaction runs, and of those nested in it. Decided before anything runs.
struct Path {
    succeeded: bool,
    /// Of the nested transactions of the branch, in order.
    nested: Vec<Path>,
}

/// Carries out a transaction that passed the static checks.
pub(crate) fn txn(
    draft: &mut Draft<'_, '_>,
    request: etcd::TxnRequest,
) -> Result<etcd::TxnResponse, Stop> {
    let path = path(draft, &request)?;
    check_puts(draft, &request, &path)?;
    check_ranges(draft, &request, &path)?;
    let mut response = run(draft, request, &path)?;
    response.header = Response::header(draft.revision());
    Ok(response)
}

fn path(draft: &Draft<'_, '_>, request: &etcd::TxnRequest) -> Result<Path, Stop> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(draft, compare)? {
            succeeded = false;
            break;
        }
    }
    let mut nested = Vec::new();
    for op in branch(request, succeeded) {
        if let Some(Request::RequestTxn(inner)) = &op.request {
            nested.push(path(draft, inner)?);
        }
    }
    Ok(Path { succeeded, nested })
}

fn holds(draft: &Draft<'_, '_>, compare: &etcd::Compare) -> Result<bool, Stop> {
    let comparison = Comparison::of(compare);
    let range = KeyRange::of_request(&compare.key, &compare.range_end);
    let mut is_empty = true;
    let mut holds = Ok(true);
    draft.visit(&range, &mut |_key, found| {
        is_empty = false;
        holds = if comparison.needs_value() {
            found.value(draft.chunk.store).map(|value| comparison.holds_for_value(&value))
        } else {
            Ok(comparison.holds_for(&found.meta))
        };
        if matches!(holds, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    Ok(if is_empty { comparison.holds_for_none() } else { holds? })
}

pub(crate) fn branch(request: &etcd::TxnRequest, succeeded: bool) -> &[etcd::RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn check_puts(draft: &Draft<'_, '_>, request: &etcd::TxnRequest, path: &Path) -> Result<(), Stop> {
    let mut nested = path.nested.iter();
    for op in branch(request, path.succeeded) {
        match &op.request {
            Some(Request::RequestPut(request)) => check_put(draft, request)?,
            Some(Request::RequestTxn(inner)) => {
                let path = nested.next().expect("one path for each nested transaction");
                check_puts(draft, inner, path)?;
            }
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn check_ranges(
    draft: &Draft<'_, '_>,
    request: &etcd::TxnRequest,
    path: &Path,
) -> Result<(), Stop> {
    let mut nested = path.nested.iter();
    for op in branch(request, path.succeeded) {
        match &op.request {
            Some(Request::RequestRange(request)) => range::check_range(draft, request)?,
            Some(Request::RequestTxn(inner)) => {
                let path = nested.next().expect("one path for each nested transaction");
                check_ranges(draft, inner, path)?;
            }
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// As in etcd, the header of a nested transaction stays empty.
fn run(
    draft: &mut Draft<'_, '_>,
    request: etcd::TxnRequest,
    path: &Path,
) -> Result<etcd::TxnResponse, Stop> {
    let ops = if path.succeeded { request.success } else { request.failure };
    let mut nested = path.nested.iter();
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = match op.request {
            Some(Request::RequestRange(request)) => {
                response_op::Response::ResponseRange(range::range(draft, &request)?)
            }
            Some(Request::RequestPut(request)) => {
                response_op::Response::ResponsePut(put(draft, request, Alone::No)?)
            }
            Some(Request::RequestDeleteRange(request)) => {
                let response = delete_range(draft, &request, Alone::No)?;
                response_op::Response::ResponseDeleteRange(response)
            }
            Some(Request::RequestTxn(inner)) => {
                let path = nested.next().expect("one path for each nested transaction");
                response_op::Response::ResponseTxn(run(draft, inner, path)?)
            }
            None => return Err(crate::response::Rejection::EmptyOperation.into()),
        };
        responses.push(etcd::ResponseOp { response: Some(response) });
    }
    Ok(etcd::TxnResponse {
        header: Some(etcd::ResponseHeader::default()),
        succeeded: path.succeeded,
        responses,
    })
}
