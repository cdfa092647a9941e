//! etcd's operations on keys, to the letter.

use std::ops::ControlFlow;

use bytes::Bytes;
use proto::etcd;

use crate::keyspace::key_range::KeyRange;
use crate::kv::answer::{DeleteAnswer, PutAnswer};
use crate::kv::cost::Cost;
use crate::kv::picks::{Parts, Picks};
use crate::response::{Rejection, Response};
use crate::state::draft::{Alone, Draft, Stop};

pub(crate) mod answer;
pub(crate) mod branch_writes;
pub mod check;
pub(crate) mod compare;
pub(crate) mod cost;
pub(crate) mod past;
pub(crate) mod past_image;
pub(crate) mod picks;
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
    cost: &mut Cost,
) -> Result<PutAnswer, Stop> {
    let before = draft.get(&request.key);
    let mut previous = Picks::default();
    if request.prev_kv
        && let Some(found) = &before
    {
        previous.push(&request.key, found.clone(), Parts::Pairs);
        cost.answer(previous.answer_bytes(Parts::Pairs))?;
    }
    let value = match &before {
        Some(found) if request.ignore_value => {
            cost.keep_value(&found.meta)?;
            found.value(draft.chunk.store)?
        }
        Some(_) | None => request.value,
    };
    let lease = match &before {
        Some(found) if request.ignore_lease => found.meta.lease,
        Some(_) | None => request.lease,
    };
    draft.put(request.key, value, lease, before.as_ref(), alone);
    Ok(PutAnswer { header: Response::header(draft.next_revision()), previous })
}

pub(crate) fn delete_range(
    draft: &mut Draft<'_, '_>,
    request: &etcd::DeleteRangeRequest,
    alone: Alone,
    cost: &mut Cost,
) -> Result<DeleteAnswer, Stop> {
    let range = KeyRange::of_request(&request.key, &request.range_end);
    cost.read_keys(draft.n_written(&range))?;
    let count = draft.count(&range);
    cost.delete_keys(count)?;
    // Keys stand back to back: a million of them would be a million allocations.
    let (mut text, mut doomed) = (Vec::new(), Vec::with_capacity(count));
    let mut previous = Picks::default();
    let mut charged = Ok(());
    draft.visit(&range, &mut |key, found| {
        text.extend_from_slice(key);
        doomed.push((key.len(), found.meta));
        if request.prev_kv {
            previous.push(key, found, Parts::Pairs);
            charged = cost.answer(previous.answer_bytes_from(doomed.len() - 1, Parts::Pairs));
        }
        if charged.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    charged?;
    let deleted = i64::try_from(count).expect("keys in memory fit");
    let mut text = Bytes::from(text);
    draft.reserve(count);
    for (key_bytes, meta) in doomed {
        draft.delete(text.split_to(key_bytes), meta, alone);
    }
    Ok(DeleteAnswer { header: Response::header(draft.revision()), deleted, previous })
}

#[cfg(test)]
mod tests;
