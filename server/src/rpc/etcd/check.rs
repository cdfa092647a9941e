//! The shape of requests, checked before anything is proposed, in etcd's order.
//!
//! What depends on the state (leases, revisions, missing keys) is decided in apply.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::etcd;
use proto::etcd::request_op::Request as Op;

use super::error::EtcdError;

pub(crate) fn range(request: &etcd::RangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    let known_order = etcd::range_request::SortOrder::try_from(request.sort_order).is_ok();
    let known_target = etcd::range_request::SortTarget::try_from(request.sort_target).is_ok();
    if known_order && known_target { Ok(()) } else { Err(EtcdError::InvalidSortOption) }
}

pub(crate) fn put(request: &etcd::PutRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdError::LeaseProvided);
    }
    Ok(())
}

pub(crate) fn delete_range(request: &etcd::DeleteRangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() { Err(EtcdError::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction with at most `ops_max` operations; then its puts and deletes against each
/// other.
pub(crate) fn txn(request: &etcd::TxnRequest, ops_max: usize) -> Result<(), EtcdError> {
    txn_ops(request, ops_max)?;
    for branch in [&request.success, &request.failure] {
        touched(branch)?;
    }
    Ok(())
}

fn txn_ops(request: &etcd::TxnRequest, ops_max: usize) -> Result<(), EtcdError> {
    let n_ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if n_ops > ops_max {
        return Err(EtcdError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Op::RequestRange(request)) => range(request)?,
            Some(Op::RequestPut(request)) => put(request)?,
            Some(Op::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Op::RequestTxn(request)) => txn_ops(request, ops_max - n_ops)?,
            None => return Err(EtcdError::KeyNotFound),
        }
    }
    Ok(())
}

/// What one branch puts and deletes, nested transactions included.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a etcd::DeleteRangeRequest>,
}

/// A key may be put once in a branch, and not be both put and deleted. The two branches of a
/// nested transaction exclude each other, so they may put the same key.
fn touched(ops: &[etcd::RequestOp]) -> Result<Touched<'_>, EtcdError> {
    let mut all = Touched::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(request)) = &op.request {
            all.deletes.push(request);
        }
    }
    for op in ops {
        let Some(Op::RequestTxn(request)) = &op.request else { continue };
        let success = touched(&request.success)?;
        let failure = touched(&request.failure)?;
        for nested in [&success, &failure] {
            let hits_put = nested.puts.iter().any(|key| {
                all.puts.contains(*key) || all.deletes.iter().any(|delete| covers(delete, key))
            });
            let hits_delete =
                nested.deletes.iter().any(|delete| all.puts.iter().any(|key| covers(delete, key)));
            if hits_put || hits_delete {
                return Err(EtcdError::DuplicateKey);
            }
        }
        for nested in [success, failure] {
            all.puts.extend(nested.puts);
            all.deletes.extend(nested.deletes);
        }
    }
    for op in ops {
        let Some(Op::RequestPut(request)) = &op.request else { continue };
        let deleted = all.deletes.iter().any(|delete| covers(delete, &request.key));
        if deleted || !all.puts.insert(&request.key) {
            return Err(EtcdError::DuplicateKey);
        }
    }
    Ok(all)
}

fn covers(delete: &etcd::DeleteRangeRequest, key: &Bytes) -> bool {
    if delete.range_end.is_empty() {
        return delete.key == *key;
    }
    let open = delete.range_end.as_ref() == [0];
    delete.key <= *key && (open || *key < delete.range_end)
}

/// Whether a transaction can only read, whatever its compares say.
pub(crate) fn is_read_only(request: &etcd::TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(op.request, Some(Op::RequestRange(_))))
}

/// Whether every read of a read-only transaction is content with what this member has.
pub(crate) fn is_serializable(request: &etcd::TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(&op.request, Some(Op::RequestRange(range)) if range.serializable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Bytes {
        Bytes::copy_from_slice(name.as_bytes())
    }

    fn op(request: Op) -> etcd::RequestOp {
        etcd::RequestOp { request: Some(request) }
    }

    fn put_op(name: &str) -> etcd::RequestOp {
        op(Op::RequestPut(etcd::PutRequest { key: key(name), ..Default::default() }))
    }

    fn delete_op(name: &str, end: &str) -> etcd::RequestOp {
        op(Op::RequestDeleteRange(etcd::DeleteRangeRequest {
            key: key(name),
            range_end: key(end),
            prev_kv: false,
        }))
    }

    fn txn_of(success: Vec<etcd::RequestOp>, failure: Vec<etcd::RequestOp>) -> etcd::TxnRequest {
        etcd::TxnRequest { compare: Vec::new(), success, failure }
    }

    fn nested(success: Vec<etcd::RequestOp>, failure: Vec<etcd::RequestOp>) -> etcd::RequestOp {
        op(Op::RequestTxn(txn_of(success, failure)))
    }

    #[test]
    fn put_shapes() {
        let mut request = etcd::PutRequest::default();
        assert_eq!(put(&request), Err(EtcdError::EmptyKey));
        request.key = key("k");
        assert_eq!(put(&request), Ok(()));
        request.ignore_value = true;
        request.value = key("v");
        assert_eq!(put(&request), Err(EtcdError::ValueProvided));
        request = etcd::PutRequest { key: key("k"), lease: 7, ..Default::default() };
        request.ignore_lease = true;
        assert_eq!(put(&request), Err(EtcdError::LeaseProvided));
    }

    #[test]
    fn nested_transactions_share_the_budget_of_operations() {
        let puts = |n: usize| (0..n).map(|i| put_op(&format!("k{i}"))).collect::<Vec<_>>();
        assert_eq!(txn(&txn_of(puts(128), puts(128)), 128), Ok(()));
        assert_eq!(txn(&txn_of(puts(129), vec![]), 128), Err(EtcdError::TooManyOps));
        let inner = |n| vec![nested(puts(n), vec![])];
        assert_eq!(txn(&txn_of(inner(127), vec![]), 128), Ok(()));
        assert_eq!(txn(&txn_of(inner(128), vec![]), 128), Err(EtcdError::TooManyOps));
    }

    #[test]
    fn a_branch_puts_a_key_once_and_does_not_delete_it() {
        let duplicate = Err(EtcdError::DuplicateKey);
        assert_eq!(txn(&txn_of(vec![put_op("a"), put_op("a")], vec![]), 128), duplicate);
        assert_eq!(txn(&txn_of(vec![put_op("a")], vec![put_op("a")]), 128), Ok(()));
        let deletes = vec![delete_op("a", "c"), delete_op("b", "")];
        assert_eq!(txn(&txn_of(deletes, vec![]), 128), Ok(()));
        let covered = vec![put_op("b"), delete_op("a", "c")];
        assert_eq!(txn(&txn_of(covered, vec![]), 128), duplicate);
        let open = vec![put_op("z"), delete_op("a", "\0")];
        assert_eq!(txn(&txn_of(open, vec![]), 128), duplicate);
        let either = vec![nested(vec![put_op("a")], vec![put_op("a")])];
        assert_eq!(txn(&txn_of(either, vec![]), 128), Ok(()));
        let both = vec![put_op("a"), nested(vec![], vec![put_op("a")])];
        assert_eq!(txn(&txn_of(both, vec![]), 128), duplicate);
        let below = vec![put_op("a"), nested(vec![delete_op("a", "")], vec![])];
        assert_eq!(txn(&txn_of(below, vec![]), 128), duplicate);
    }

    #[test]
    fn an_empty_operation_is_refused_and_an_empty_transaction_only_reads() {
        let hollow = txn_of(vec![etcd::RequestOp { request: None }], vec![]);
        assert_eq!(txn(&hollow, 128), Err(EtcdError::KeyNotFound));
        assert!(is_read_only(&txn_of(vec![], vec![])));
        assert!(!is_read_only(&txn_of(vec![nested(vec![], vec![])], vec![])));
    }
}
