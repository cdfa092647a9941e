//! Which keys the branches of a transaction write, and whether one write undoes another.
//!
//! The rule is etcd's. Of the operations of one list, nested transactions included:
//! - no key is put twice;
//! - no put is covered by a delete of the list itself, wherever that stands;
//! - no put of the list itself is covered by a delete inside of a nested transaction;
//! - no put of a nested transaction is covered by a delete of an *earlier* nested one. A later one
//!   may delete what an earlier one put.
//!
//! What one nested transaction does on its two branches never clashes: only one of them runs. So
//! within one command a key is written once, or put once and deleted after that.
//!
//! Costs n log² n: sets are merged smaller into larger, deletes are merged to disjoint ranges.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use proto::etcd;
use proto::etcd::request_op::Request;

use crate::keyspace::key_range::KeyRange;
use crate::response::Rejection;

#[derive(Default)]
struct BranchWrites<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Ranges<'a>,
}

/// Refuses a transaction that writes a key twice.
///
/// # Errors
/// The key that is put twice, or put and deleted.
pub(crate) fn check(request: &etcd::TxnRequest) -> Result<(), Rejection> {
    BranchWrites::of(&request.success)?;
    BranchWrites::of(&request.failure)?;
    Ok(())
}

impl<'a> BranchWrites<'a> {
    fn of(ops: &'a [etcd::RequestOp]) -> Result<BranchWrites<'a>, Rejection> {
        let mut writes = BranchWrites::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.add(&KeyRange::of_request(&delete.key, &delete.range_end));
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                let mut inner = BranchWrites::of(&nested.success)?;
                inner.unite(BranchWrites::of(&nested.failure)?);
                writes.follow_with(inner)?;
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request
                && (writes.deletes.cover(&put.key) || !writes.puts.insert(&put.key))
            {
                return Err(duplicate(&put.key));
            }
        }
        Ok(writes)
    }

    /// What the other branch of the same transaction writes.
    fn unite(&mut self, mut other: BranchWrites<'a>) {
        if other.puts.len() > self.puts.len() {
            std::mem::swap(&mut self.puts, &mut other.puts);
        }
        self.puts.extend(other.puts);
        self.deletes.unite(other.deletes);
    }

    /// What the next nested transaction writes.
    fn follow_with(&mut self, mut inner: BranchWrites<'a>) -> Result<(), Rejection> {
        if let Some(key) = self.deletes.first_covered(&inner.puts) {
            return Err(duplicate(key));
        }
        if inner.puts.len() > self.puts.len() {
            std::mem::swap(&mut self.puts, &mut inner.puts);
        }
        for key in inner.puts {
            if !self.puts.insert(key) {
                return Err(duplicate(key));
            }
        }
        self.deletes.unite(inner.deletes);
        Ok(())
    }
}

/// Keys from the first one on, up to the end. Invariant: disjoint.
#[derive(Default)]
struct Ranges<'a>(BTreeMap<&'a [u8], Bound<&'a [u8]>>);

impl<'a> Ranges<'a> {
    fn add(&mut self, range: &KeyRange<'a>) {
        if let Some((_, end)) = range.bounds() {
            self.add_up_to(range.start, end);
        }
    }

    fn add_up_to(&mut self, mut start: &'a [u8], mut end: Bound<&'a [u8]>) {
        if let Some((before, reach)) = self.0.range(..=start).next_back()
            && reaches(*reach, start)
        {
            (start, end) = (before, farther(*reach, end));
        }
        while let Some((next, reach)) = self.0.range(start..).next()
            && reaches(end, next)
        {
            let (next, reach) = (*next, *reach);
            end = farther(end, reach);
            self.0.remove(next);
        }
        self.0.insert(start, end);
    }

    fn unite(&mut self, mut other: Ranges<'a>) {
        if other.0.len() > self.0.len() {
            std::mem::swap(&mut self.0, &mut other.0);
        }
        for (start, end) in other.0 {
            self.add_up_to(start, end);
        }
    }

    fn cover(&self, key: &[u8]) -> bool {
        let before = self.0.range::<&[u8], _>(..=key).next_back();
        before.is_some_and(|(_, end)| reaches(*end, key))
    }

    /// The least key of `keys` that is covered.
    fn first_covered(&self, keys: &BTreeSet<&'a [u8]>) -> Option<&'a [u8]> {
        if keys.len() <= self.0.len() {
            return keys.iter().find(|key| self.cover(key)).copied();
        }
        self.0.iter().find_map(|(start, end)| {
            keys.range::<[u8], _>((Bound::Included(*start), *end)).next().copied()
        })
    }
}

/// Whether a range that ends there holds a key that is not below its start.
fn reaches(end: Bound<&[u8]>, key: &[u8]) -> bool {
    match end {
        Bound::Included(last) => key <= last,
        Bound::Excluded(end) => key < end,
        Bound::Unbounded => true,
    }
}

fn farther<'a>(one: Bound<&'a [u8]>, other: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
    let (Bound::Included(one_key) | Bound::Excluded(one_key)) = one else { return one };
    let (Bound::Included(other_key) | Bound::Excluded(other_key)) = other else { return other };
    match one_key.cmp(other_key) {
        std::cmp::Ordering::Less => other,
        std::cmp::Ordering::Greater => one,
        std::cmp::Ordering::Equal if matches!(one, Bound::Included(_)) => one,
        std::cmp::Ordering::Equal => other,
    }
}

fn duplicate(key: &[u8]) -> Rejection {
    Rejection::DuplicateKey { key: String::from_utf8_lossy(key).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: String) -> etcd::RequestOp {
        let put = etcd::PutRequest { key: key.into(), ..Default::default() };
        etcd::RequestOp { request: Some(Request::RequestPut(put)) }
    }

    fn delete(key: String, range_end: String) -> etcd::RequestOp {
        let delete = etcd::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        etcd::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
    }

    fn nested(success: Vec<etcd::RequestOp>) -> etcd::RequestOp {
        let nested = etcd::TxnRequest { success, ..Default::default() };
        etcd::RequestOp { request: Some(Request::RequestTxn(nested)) }
    }

    /// The check once cost deletes x puts at each level: here 30 levels of 2,000 x 2,000 on top of
    /// 60,000 x 60,000, which is minutes.
    #[test]
    fn many_writes_deep_inside_are_checked_in_near_linear_time() {
        const N: usize = 60_000;
        let mut ops: Vec<_> = (0..N).map(|n| put(format!("p{n:06}"))).collect();
        ops.extend((0..N).map(|n| delete(format!("d{n:06}"), format!("d{n:06}\0"))));
        for level in 0..30 {
            let mut outer: Vec<_> = (0..2_000).map(|n| put(format!("q{level}/{n}"))).collect();
            outer.extend((0..2_000).map(|n| delete(format!("e{level}/{n}"), String::new())));
            outer.push(nested(ops));
            ops = outer;
        }
        let mut request = etcd::TxnRequest { success: ops, ..Default::default() };
        assert_eq!(check(&request), Ok(()));
        request.success.push(nested(vec![put("p000007".into())]));
        let key = "p000007".to_owned();
        assert_eq!(check(&request), Err(Rejection::DuplicateKey { key }));
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let mut ranges = Ranges::default();
        for (key, end) in [("b", ""), ("d", "f"), ("a", "c"), ("e", "h"), ("x", "w"), ("k", "\0")] {
            ranges.add(&KeyRange::of_request(key.as_bytes(), end.as_bytes()));
        }
        let starts: Vec<_> = ranges.0.keys().copied().collect();
        assert_eq!(starts, [b"a".as_slice(), b"d", b"k"]);
        let covered: Vec<_> = ["a", "b", "b\0", "c", "cc", "d", "g", "h", "j", "k", "z"]
            .map(|key| ranges.cover(key.as_bytes()))
            .into();
        let wanted = [true, true, true, false, false, true, true, false, false, true, true];
        assert_eq!(covered, wanted);
    }
}
