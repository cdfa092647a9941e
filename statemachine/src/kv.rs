//! etcd's operations on keys, to the letter.

use std::ops::ControlFlow;

use bytes::Bytes;
use proto::etcd;

use crate::keyspace::key_range::KeyRange;
use crate::response::{Rejection, Response};
use crate::state::draft::{Alone, Draft, Stop};

pub(crate) mod branch_writes;
pub mod check;
pub(crate) mod compare;
pub(crate) mod past;
pub(crate) mod past_image;
pub(crate) mod range;
pub(crate) mod read_txn;
pub(crate) mod txn;

/// What a put needs that only the state knows: its lease, and the pair whose value or lease stays.
pub(crate) fn check_put(
    draft: &Draft<'_, '_>,
    request: &etcd::PutRequest,
) -> Result<(), Rejection> {
    if request.lease != 0 && draft.chunk.lease_ttl_s(request.lease).is_none() {
        return Err(Rejection::LeaseNotFound { id: request.lease });
    }
    if (request.ignore_value || request.ignore_lease) && draft.get(&request.key).is_none() {
        return Err(Rejection::KeyNotFound);
    }
    Ok(())
}

/// Carries out a put that passed its checks.
pub(crate) fn put(
    draft: &mut Draft<'_, '_>,
    request: etcd::PutRequest,
    alone: Alone,
) -> Result<etcd::PutResponse, Stop> {
    let before = draft.get(&request.key);
    let prev_kv = match &before {
        Some(found) if request.prev_kv => Some(draft.pair(&request.key, found)?),
        Some(_) | None => None,
    };
    let value = match &before {
        Some(found) if request.ignore_value => found.value(draft.chunk.store)?,
        Some(_) | None => request.value,
    };
    let lease = match &before {
        Some(found) if request.ignore_lease => found.meta.lease,
        Some(_) | None => request.lease,
    };
    draft.put(request.key, value, lease, before.as_ref(), alone);
    Ok(etcd::PutResponse { header: Response::header(draft.next_revision()), prev_kv })
}

pub(crate) fn delete_range(
    draft: &mut Draft<'_, '_>,
    request: &etcd::DeleteRangeRequest,
    alone: Alone,
) -> Result<etcd::DeleteRangeResponse, Stop> {
    let range = KeyRange::of_request(&request.key, &request.range_end);
    let mut doomed = Vec::new();
    draft.visit(&range, &mut |key, found| {
        doomed.push((Bytes::copy_from_slice(key), found));
        ControlFlow::Continue(())
    });
    let mut prev_kvs = Vec::new();
    if request.prev_kv {
        prev_kvs.reserve(doomed.len());
        for (key, found) in &doomed {
            prev_kvs.push(draft.pair(key, found)?);
        }
    }
    let deleted = i64::try_from(doomed.len()).expect("keys in memory fit");
    for (key, found) in doomed {
        draft.delete(key, found.meta, alone);
    }
    Ok(etcd::DeleteRangeResponse { header: Response::header(draft.revision()), deleted, prev_kvs })
}

#[cfg(test)]
mod tests;
