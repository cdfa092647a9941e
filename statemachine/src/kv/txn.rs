//! Transactions that may write.

use std::ops::ControlFlow;

use proto::etcd;
use proto::etcd::request_op::Request;

use crate::keyspace::key_range::KeyRange;
use crate::kv::answer::{OpAnswer, TxnAnswer};
use crate::kv::compare::Comparison;
use crate::kv::cost::Cost;
use crate::kv::{check_put, delete_range, put, range};
use crate::response::{Rejection, Response};
use crate::state::chunk::Found;
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
    cost: &mut Cost,
) -> Result<TxnAnswer, Stop> {
    let path = path(draft, &request, cost)?;
    check_puts(draft, &request, &path)?;
    check_ranges(draft, &request, &path)?;
    let mut answer = run(draft, request, &path, cost)?;
    answer.header = Response::header(draft.revision());
    Ok(answer)
}

fn path(draft: &Draft<'_, '_>, request: &etcd::TxnRequest, cost: &mut Cost) -> Result<Path, Stop> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(draft, compare, cost)? {
            succeeded = false;
            break;
        }
    }
    let mut nested = Vec::new();
    for op in branch(request, succeeded) {
        if let Some(Request::RequestTxn(inner)) = &op.request {
            nested.push(path(draft, inner, cost)?);
        }
    }
    Ok(Path { succeeded, nested })
}

/// Decided before anything runs, so the draft is empty.
fn holds(draft: &Draft<'_, '_>, compare: &etcd::Compare, cost: &mut Cost) -> Result<bool, Stop> {
    let comparison = Comparison::of(compare);
    let range = KeyRange::of_request(&compare.key, &compare.range_end);
    let mut is_empty = true;
    let mut holds = Ok(true);
    draft.visit(&range, &mut |_key, found| {
        is_empty = false;
        holds = holds_for(draft, &comparison, &found, cost);
        if matches!(holds, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if is_empty { Ok(comparison.holds_for_none()) } else { holds }
}

fn holds_for(
    draft: &Draft<'_, '_>,
    comparison: &Comparison,
    found: &Found,
    cost: &mut Cost,
) -> Result<bool, Stop> {
    cost.read_keys(1)?;
    if let Some(holds) = comparison.holds_for(&found.meta) {
        return Ok(holds);
    }
    cost.compare_value(&found.meta)?;
    Ok(comparison.holds_for_value(&found.value(draft.chunk.store)?))
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
    cost: &mut Cost,
) -> Result<TxnAnswer, Stop> {
    let requests = if path.succeeded { request.success } else { request.failure };
    let mut nested = path.nested.iter();
    let mut ops = Vec::with_capacity(requests.len());
    for op in requests {
        ops.push(match op.request {
            Some(Request::RequestRange(request)) => {
                OpAnswer::Range(range::range(draft, &request, cost)?)
            }
            Some(Request::RequestPut(request)) => {
                OpAnswer::Put(put(draft, request, Alone::No, cost)?)
            }
            Some(Request::RequestDeleteRange(request)) => {
                OpAnswer::DeleteRange(delete_range(draft, &request, Alone::No, cost)?)
            }
            Some(Request::RequestTxn(inner)) => {
                let path = nested.next().expect("one path for each nested transaction");
                OpAnswer::Txn(run(draft, inner, path, cost)?)
            }
            None => return Err(Rejection::EmptyOperation.into()),
        });
    }
    let header = Some(etcd::ResponseHeader::default());
    Ok(TxnAnswer { header, succeeded: path.succeeded, ops })
}
