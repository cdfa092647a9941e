//! A keyspace as naive as it can be, written from etcd's documented semantics.
//!
//! It keeps every change ever made in one list and answers each question by walking that list from
//! its beginning. It shares nothing with the state machine but the wire types: a reference that
//! shares code shares bugs. Refusals are etcd's texts without their `etcdserver: `.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcd;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcd::range_request::{SortOrder, SortTarget};
use proto::etcd::request_op::Request;
use proto::etcd::response_op::Response;

pub(crate) type Answer<T> = Result<T, &'static str>;

const EMPTY_KEY: &str = "key is not provided";
const KEY_NOT_FOUND: &str = "key not found";
const VALUE_PROVIDED: &str = "value is provided";
const LEASE_PROVIDED: &str = "lease is provided";
const TOO_MANY_OPS: &str = "too many operations in txn request";
const DUPLICATE_KEY: &str = "duplicate key given in txn request";
const COMPACTED: &str = "mvcc: required revision has been compacted";
const FUTURE: &str = "mvcc: required revision is a future revision";
const LEASE_NOT_FOUND: &str = "requested lease not found";
const LEASE_EXISTS: &str = "lease already exists";
const LEASE_TTL_TOO_LARGE: &str = "too large lease TTL";

const TXN_OPS_MAX: usize = 128;
const LEASE_TTL_S_MAX: i64 = 9_000_000_000;

/// One change of one key, for ever.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: i64,
    pub(crate) key: Bytes,
    /// Value and lease; `None` is a delete.
    pub(crate) put: Option<(Bytes, i64)>,
}

/// Live keys at some moment.
type Image = BTreeMap<Bytes, etcd::KeyValue>;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) history: Vec<Change>,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<i64, i64>,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model { history: Vec::new(), revision: 1, compacted: 0, leases: BTreeMap::new() }
    }

    /// What was alive at a revision, found out by living through it all again.
    fn image(&self, draft: &[Change], revision: i64) -> Image {
        let mut image = Image::new();
        for change in self.history.iter().chain(draft) {
            if change.revision > revision {
                break;
            }
            let Some((value, lease)) = &change.put else {
                image.remove(&change.key);
                continue;
            };
            let pair = image.entry(change.key.clone()).or_insert_with(|| etcd::KeyValue {
                key: change.key.clone(),
                create_revision: change.revision,
                ..Default::default()
            });
            pair.mod_revision = change.revision;
            pair.version += 1;
            pair.value = value.clone();
            pair.lease = *lease;
        }
        image
    }

    pub(crate) fn live(&self) -> Image {
        self.image(&[], self.revision)
    }

    pub(crate) fn range(&self, request: &etcd::RangeRequest) -> Answer<etcd::RangeResponse> {
        check_range(request)?;
        self.range_in(&[], request)
    }

    /// Within a transaction, `draft` is what it has changed so far.
    fn range_in(
        &self,
        draft: &[Change],
        request: &etcd::RangeRequest,
    ) -> Answer<etcd::RangeResponse> {
        let current = self.revision + i64::from(!draft.is_empty());
        let revision = match request.revision {
            given if given > current => return Err(FUTURE),
            given if given <= 0 => current,
            given if given < self.compacted => return Err(COMPACTED),
            given => given,
        };
        let image = self.image(draft, revision);
        let mut pairs: Vec<etcd::KeyValue> = image
            .into_values()
            .filter(|pair| covers(&request.key, &request.range_end, &pair.key))
            .collect();
        let count = i64::try_from(pairs.len()).unwrap();
        let header = header(current);
        if request.count_only {
            return Ok(etcd::RangeResponse { header, count, ..Default::default() });
        }
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let order = SortOrder::try_from(request.sort_order).unwrap();
        let target = SortTarget::try_from(request.sort_target).unwrap();
        let limit = usize::try_from(request.limit).unwrap_or(0);
        // etcd fetches one more than the limit, unless it must see everything to sort or filter.
        if order == SortOrder::None && bounds == [0; 4] && limit > 0 {
            pairs.truncate(limit + 1);
        }
        let within = |value: i64, min: i64, max: i64| {
            (min == 0 || value >= min) && (max == 0 || value <= max)
        };
        pairs.retain(|pair| {
            within(pair.mod_revision, bounds[0], bounds[1])
                && within(pair.create_revision, bounds[2], bounds[3])
        });
        // etcd leaves the order of equals open; ours is that of the keys.
        pairs.sort_by(|one, other| {
            let ordering = match target {
                SortTarget::Key => one.key.cmp(&other.key),
                SortTarget::Version => one.version.cmp(&other.version),
                SortTarget::Create => one.create_revision.cmp(&other.create_revision),
                SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
                SortTarget::Value => one.value.cmp(&other.value),
            };
            if order == SortOrder::Descend { ordering.reverse() } else { ordering }
        });
        let more = limit > 0 && pairs.len() > limit;
        if more {
            pairs.truncate(limit);
        }
        if request.keys_only {
            pairs.iter_mut().for_each(|pair| pair.value.clear());
        }
        Ok(etcd::RangeResponse { header, kvs: pairs, more, count })
    }

    pub(crate) fn put(&mut self, request: &etcd::PutRequest) -> Answer<etcd::PutResponse> {
        check_put(request)?;
        self.check_put_now(request)?;
        let mut draft = Vec::new();
        let response = self.put_in(&mut draft, request);
        self.commit(draft);
        Ok(response)
    }

    /// What can only be said against the state as it was before the command.
    fn check_put_now(&self, request: &etcd::PutRequest) -> Answer<()> {
        if request.lease != 0 && !self.leases.contains_key(&request.lease) {
            return Err(LEASE_NOT_FOUND);
        }
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && !self.live().contains_key(&request.key) {
            return Err(KEY_NOT_FOUND);
        }
        Ok(())
    }

    fn put_in(&self, draft: &mut Vec<Change>, request: &etcd::PutRequest) -> etcd::PutResponse {
        let previous = self.image(draft, i64::MAX).remove(&request.key);
        let old = previous.clone().unwrap_or_default();
        let value = if request.ignore_value { old.value } else { request.value.clone() };
        let lease = if request.ignore_lease { old.lease } else { request.lease };
        let revision = self.revision + 1;
        draft.push(Change { revision, key: request.key.clone(), put: Some((value, lease)) });
        let prev_kv = previous.filter(|_| request.prev_kv);
        etcd::PutResponse { header: header(revision), prev_kv }
    }

    pub(crate) fn delete_range(
        &mut self,
        request: &etcd::DeleteRangeRequest,
    ) -> Answer<etcd::DeleteRangeResponse> {
        check_delete(request)?;
        let mut draft = Vec::new();
        let response = self.delete_in(&mut draft, request);
        self.commit(draft);
        Ok(response)
    }

    fn delete_in(
        &self,
        draft: &mut Vec<Change>,
        request: &etcd::DeleteRangeRequest,
    ) -> etcd::DeleteRangeResponse {
        let image = self.image(draft, i64::MAX);
        let gone: Vec<etcd::KeyValue> = image
            .into_values()
            .filter(|pair| covers(&request.key, &request.range_end, &pair.key))
            .collect();
        let revision = self.revision + 1;
        for pair in &gone {
            draft.push(Change { revision, key: pair.key.clone(), put: None });
        }
        etcd::DeleteRangeResponse {
            header: header(self.revision + i64::from(!draft.is_empty())),
            deleted: i64::try_from(gone.len()).unwrap(),
            prev_kvs: if request.prev_kv { gone } else { Vec::new() },
        }
    }

    pub(crate) fn txn(&mut self, request: &etcd::TxnRequest) -> Answer<etcd::TxnResponse> {
        check_txn(request, TXN_OPS_MAX)?;
        check_intervals(&request.success)?;
        check_intervals(&request.failure)?;
        let path = self.choose(request);
        self.check_puts(&path)?;
        self.check_ranges(&path)?;
        let mut draft = Vec::new();
        let mut response = self.run(&mut draft, &path);
        response.header = header(self.revision + i64::from(!draft.is_empty()));
        self.commit(draft);
        Ok(response)
    }

    /// Decides every comparison, nested ones too, before anything is done.
    fn choose<'a>(&self, request: &'a etcd::TxnRequest) -> Path<'a> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let operations = if succeeded { &request.success } else { &request.failure };
        let steps = operations
            .iter()
            .map(|operation| match operation.request.as_ref().unwrap() {
                Request::RequestRange(range) => Step::Range(range),
                Request::RequestPut(put) => Step::Put(put),
                Request::RequestDeleteRange(delete) => Step::Delete(delete),
                Request::RequestTxn(txn) => Step::Txn(self.choose(txn)),
            })
            .collect();
        Path { succeeded, steps }
    }

    fn holds(&self, compare: &etcd::Compare) -> bool {
        let image = self.live();
        let pairs: Vec<&etcd::KeyValue> = image
            .values()
            .filter(|pair| covers(&compare.key, &compare.range_end, &pair.key))
            .collect();
        if pairs.is_empty() {
            // What does not exist has no value at all, and 0 for everything else.
            return compare.target != CompareTarget::Value as i32
                && matches(compare, &etcd::KeyValue::default());
        }
        pairs.iter().all(|pair| matches(compare, pair))
    }

    fn check_puts(&self, path: &Path<'_>) -> Answer<()> {
        path.steps.iter().try_for_each(|step| match step {
            Step::Put(put) => self.check_put_now(put),
            Step::Txn(nested) => self.check_puts(nested),
            Step::Range(_) | Step::Delete(_) => Ok(()),
        })
    }

    fn check_ranges(&self, path: &Path<'_>) -> Answer<()> {
        path.steps.iter().try_for_each(|step| match step {
            Step::Range(range) if range.revision > self.revision => Err(FUTURE),
            Step::Range(range) if range.revision > 0 && range.revision < self.compacted => {
                Err(COMPACTED)
            }
            Step::Txn(nested) => self.check_ranges(nested),
            Step::Range(_) | Step::Put(_) | Step::Delete(_) => Ok(()),
        })
    }

    fn run(&self, draft: &mut Vec<Change>, path: &Path<'_>) -> etcd::TxnResponse {
        let responses = path
            .steps
            .iter()
            .map(|step| {
                let response = match step {
                    Step::Range(range) => {
                        Response::ResponseRange(self.range_in(draft, range).unwrap())
                    }
                    Step::Put(put) => Response::ResponsePut(self.put_in(draft, put)),
                    Step::Delete(delete) => {
                        Response::ResponseDeleteRange(self.delete_in(draft, delete))
                    }
                    Step::Txn(nested) => Response::ResponseTxn(self.run(draft, nested)),
                };
                etcd::ResponseOp { response: Some(response) }
            })
            .collect();
        etcd::TxnResponse { header: None, succeeded: path.succeeded, responses }
    }

    pub(crate) fn compact(
        &mut self,
        request: &etcd::CompactionRequest,
    ) -> Answer<etcd::CompactionResponse> {
        if request.revision <= self.compacted {
            return Err(COMPACTED);
        }
        if request.revision > self.revision {
            return Err(FUTURE);
        }
        self.compacted = request.revision;
        Ok(etcd::CompactionResponse { header: header(self.revision) })
    }

    pub(crate) fn grant(
        &mut self,
        request: &etcd::LeaseGrantRequest,
    ) -> Answer<etcd::LeaseGrantResponse> {
        if request.ttl > LEASE_TTL_S_MAX {
            return Err(LEASE_TTL_TOO_LARGE);
        }
        if self.leases.contains_key(&request.id) {
            return Err(LEASE_EXISTS);
        }
        self.leases.insert(request.id, request.ttl);
        Ok(etcd::LeaseGrantResponse {
            header: header(self.revision),
            id: request.id,
            ttl: request.ttl,
            error: String::new(),
        })
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Answer<etcd::LeaseRevokeResponse> {
        if self.leases.remove(&id).is_none() {
            return Err(LEASE_NOT_FOUND);
        }
        let revision = self.revision + 1;
        let attached = self.live().into_values().filter(|pair| pair.lease == id);
        let draft = attached.map(|pair| Change { revision, key: pair.key, put: None }).collect();
        self.commit(draft);
        Ok(etcd::LeaseRevokeResponse { header: header(self.revision) })
    }

    fn commit(&mut self, draft: Vec<Change>) {
        if !draft.is_empty() {
            self.revision += 1;
        }
        self.history.extend(draft);
    }

    /// Keys that hang on a lease.
    pub(crate) fn attached(&self, id: i64) -> BTreeSet<Bytes> {
        self.live().into_values().filter(|pair| pair.lease == id).map(|pair| pair.key).collect()
    }
}

/// A transaction whose branches are chosen.
struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(&'a etcd::RangeRequest),
    Put(&'a etcd::PutRequest),
    Delete(&'a etcd::DeleteRangeRequest),
    Txn(Path<'a>),
}

fn header(revision: i64) -> Option<etcd::ResponseHeader> {
    Some(etcd::ResponseHeader { revision, ..Default::default() })
}

/// No end: the key itself. A zero byte: everything from the key on. Else up to the end.
fn covers(key: &[u8], end: &[u8], candidate: &[u8]) -> bool {
    match end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

fn matches(compare: &etcd::Compare, pair: &etcd::KeyValue) -> bool {
    let number = match &compare.target_union {
        None | Some(TargetUnion::Value(_)) => 0,
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => *number,
    };
    let value = match &compare.target_union {
        Some(TargetUnion::Value(value)) => value.clone(),
        _ => Bytes::new(),
    };
    // Numbers that mean nothing to etcd: any target is equal, any relation holds.
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => pair.version.cmp(&number),
        Ok(CompareTarget::Create) => pair.create_revision.cmp(&number),
        Ok(CompareTarget::Mod) => pair.mod_revision.cmp(&number),
        Ok(CompareTarget::Lease) => pair.lease.cmp(&number),
        Ok(CompareTarget::Value) => pair.value.cmp(&value),
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

fn check_range(request: &etcd::RangeRequest) -> Answer<()> {
    if request.key.is_empty() { Err(EMPTY_KEY) } else { Ok(()) }
}

fn check_delete(request: &etcd::DeleteRangeRequest) -> Answer<()> {
    if request.key.is_empty() { Err(EMPTY_KEY) } else { Ok(()) }
}

fn check_put(request: &etcd::PutRequest) -> Answer<()> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(LEASE_PROVIDED);
    }
    Ok(())
}

fn check_txn(request: &etcd::TxnRequest, budget: usize) -> Answer<()> {
    let size = request.compare.len().max(request.success.len()).max(request.failure.len());
    if size > budget {
        return Err(TOO_MANY_OPS);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EMPTY_KEY);
    }
    let operations = request.success.iter().chain(&request.failure);
    for operation in operations {
        match &operation.request {
            None => return Err(KEY_NOT_FOUND),
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(txn)) => check_txn(txn, budget - size)?,
        }
    }
    Ok(())
}

type Deletes = Vec<(Bytes, Bytes)>;

/// etcd's rule: in one list no key is put twice. No put is covered by a delete of the list itself, no
/// put of the list itself by a delete of a nested transaction, and no put of a nested one by a delete of
/// an earlier nested one. Of the two branches of a nested transaction only one runs, so they may write
/// the same key. Ours alone: a delete without an end covers keys too.
fn check_intervals(operations: &[etcd::RequestOp]) -> Answer<(Vec<Bytes>, Deletes)> {
    let requests = || operations.iter().filter_map(|operation| operation.request.as_ref());
    let mut puts: Vec<Bytes> = Vec::new();
    let mut deletes = Deletes::new();
    for request in requests() {
        if let Request::RequestDeleteRange(delete) = request {
            deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    let clashes = |puts: &[Bytes], deletes: &Deletes, key: &Bytes| {
        puts.contains(key) || deletes.iter().any(|(start, end)| covers(start, end, key))
    };
    for request in requests() {
        if let Request::RequestTxn(txn) = request {
            let (then_puts, then_deletes) = check_intervals(&txn.success)?;
            let (else_puts, else_deletes) = check_intervals(&txn.failure)?;
            if then_puts.iter().chain(&else_puts).any(|key| clashes(&puts, &deletes, key)) {
                return Err(DUPLICATE_KEY);
            }
            puts.extend(then_puts.into_iter().chain(else_puts));
            deletes.extend(then_deletes.into_iter().chain(else_deletes));
        }
    }
    for request in requests() {
        if let Request::RequestPut(put) = request {
            if clashes(&puts, &deletes, &put.key) {
                return Err(DUPLICATE_KEY);
            }
            puts.push(put.key.clone());
        }
    }
    Ok((puts, deletes))
}
