//! Range: what to pick of the index under the lock, and what to fetch off it.

use std::ops::ControlFlow;

use bytes::Bytes;
use proto::etcd;
use proto::etcd::range_request::{SortOrder, SortTarget};

use crate::history;
use crate::keyspace::key_index::KeyIndex;
use crate::keyspace::key_range::{End, KeyRange};
use crate::keyspace::meta::KeyMeta;
use crate::kv::past_image::PastImage;
use crate::kv::{check, past};
use crate::response::{Rejection, Response};
use crate::state::State;
use crate::state::chunk::{Found, key_value};
use crate::state::draft::{Draft, Stop};
use crate::store::{Fault, StateRead};

/// How the keys of a range become a response.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// 0: all.
    limit: usize,
    order: Order,
    /// The way of walking that may end after `limit` + 1 keys.
    bounded_walk: Option<Order>,
    filter: Filter,
    keys_only: bool,
    count_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Ascending by key, as the keys stand.
    Natural,
    /// Descending by key.
    Reverse,
    Sorted {
        by: SortTarget,
        descending: bool,
    },
}

/// Inclusive bounds; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Filter {
    mod_min: i64,
    mod_max: i64,
    create_min: i64,
    create_max: i64,
}

/// One key that is part of the response so far.
#[derive(Clone, Debug)]
struct Pick {
    /// Place in the text of all picks; empty where the stored row will tell the key.
    key: std::ops::Range<usize>,
    found: Found,
}

#[derive(Clone, Debug, Default)]
struct Picks {
    picks: Vec<Pick>,
    /// Keys back to back, so that picking costs no allocation a key.
    text: Vec<u8>,
}

/// Collects the keys of a range.
pub(crate) struct Picker<'r> {
    rules: &'r Rules,
    picked: Picks,
}

/// A range whose part of the index is copied; the rest needs no lock.
#[derive(Clone, Debug)]
pub struct RangePlan {
    rules: Rules,
    /// Of the state that is read.
    revision: i64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Newest { count: usize, picked: Picks },
    Past { key: Bytes, range_end: Bytes, revision: i64 },
}

impl Rules {
    /// Invariant: the request passed `check::range`.
    pub(crate) fn of(request: &etcd::RangeRequest) -> Rules {
        let order = match (request.sort_order(), request.sort_target()) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => Order::Natural,
            (SortOrder::Descend, SortTarget::Key) => Order::Reverse,
            (order, by) => Order::Sorted { by, descending: order == SortOrder::Descend },
        };
        let filter = Filter {
            mod_min: request.min_mod_revision,
            mod_max: request.max_mod_revision,
            create_min: request.min_create_revision,
            create_max: request.max_create_revision,
        };
        let bounded_walk = match (order, request.sort_order()) {
            (Order::Natural | Order::Reverse, _) => Some(order),
            // To the letter of etcd: a target without an order sorts only what the limit let in.
            (Order::Sorted { .. }, SortOrder::None) if filter == Filter::default() => {
                Some(Order::Natural)
            }
            (Order::Sorted { .. }, _) => None,
        };
        Rules {
            limit: usize::try_from(request.limit).unwrap_or(0),
            order,
            bounded_walk,
            filter,
            keys_only: request.keys_only,
            count_only: request.count_only,
        }
    }

    /// Keys to look at before the walk may end, in the given order of walking.
    fn picks_max(&self, walking: Order) -> usize {
        let is_bounded = self.limit != 0 && self.bounded_walk == Some(walking);
        if is_bounded { self.limit + 1 } else { usize::MAX }
    }
}

impl Filter {
    fn accepts(&self, meta: &KeyMeta) -> bool {
        let within = |revision: i64, min: i64, max: i64| {
            (min == 0 || revision >= min) && (max == 0 || revision <= max)
        };
        within(meta.mod_revision, self.mod_min, self.mod_max)
            && within(meta.create_revision, self.create_min, self.create_max)
    }
}

impl<'r> Picker<'r> {
    pub(crate) fn new(rules: &'r Rules) -> Picker<'r> {
        Picker { rules, picked: Picks::default() }
    }

    /// Walks by ascending key; `Break` when there is enough.
    pub(crate) fn pick(&mut self, key: &[u8], found: Found) -> ControlFlow<()> {
        self.pick_walking(key, found, Order::Natural)
    }

    fn pick_walking(&mut self, key: &[u8], found: Found, walking: Order) -> ControlFlow<()> {
        if self.rules.count_only {
            return ControlFlow::Break(());
        }
        if self.rules.filter.accepts(&found.meta) {
            let start = self.picked.text.len();
            if self.rules.keys_only || found.value.is_some() {
                self.picked.text.extend_from_slice(key);
            }
            self.picked.picks.push(Pick { key: start..self.picked.text.len(), found });
        }
        if self.picked.picks.len() < self.rules.picks_max(walking) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// The picks, walked by ascending key, as a response.
    pub(crate) fn into_response(
        self,
        count: usize,
        revision: i64,
        store: &dyn StateRead,
    ) -> Result<etcd::RangeResponse, Fault> {
        let mut picked = self.picked;
        if self.rules.order == Order::Reverse {
            picked.picks.reverse();
        }
        respond(self.rules, picked, count, revision, store)
    }
}

fn respond(
    rules: &Rules,
    picked: Picks,
    count: usize,
    revision: i64,
    store: &dyn StateRead,
) -> Result<etcd::RangeResponse, Fault> {
    let Picks { mut picks, text } = picked;
    let text = Bytes::from(text);
    let more = rules.limit != 0 && picks.len() > rules.limit;
    let limit = if rules.limit == 0 { usize::MAX } else { rules.limit };
    let kvs = if let Order::Sorted { by: SortTarget::Value, descending } = rules.order {
        let mut kvs = fetch(&picks, &text, false, store)?;
        kvs.sort_by(|left, right| directed(left.value.cmp(&right.value), descending));
        kvs.truncate(limit);
        if rules.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        kvs
    } else {
        if let Order::Sorted { by, descending } = rules.order {
            sort(&mut picks, by, descending);
        }
        picks.truncate(limit);
        fetch(&picks, &text, rules.keys_only, store)?
    };
    Ok(etcd::RangeResponse {
        header: Response::header(revision),
        kvs,
        more,
        count: i64::try_from(count).expect("keys in memory fit"),
    })
}

fn directed(order: std::cmp::Ordering, descending: bool) -> std::cmp::Ordering {
    if descending { order.reverse() } else { order }
}

/// By what the index knows; equal ones stay in key order.
fn sort(picks: &mut [Pick], by: SortTarget, descending: bool) {
    let number = |pick: &Pick| match by {
        SortTarget::Version => pick.found.meta.version,
        SortTarget::Create => pick.found.meta.create_revision,
        SortTarget::Mod => pick.found.meta.mod_revision,
        SortTarget::Key | SortTarget::Value => 0,
    };
    picks.sort_by(|left, right| directed(number(left).cmp(&number(right)), descending));
}

fn fetch(
    picks: &[Pick],
    text: &Bytes,
    keys_only: bool,
    store: &dyn StateRead,
) -> Result<Vec<etcd::KeyValue>, Fault> {
    let pair =
        |pick: &Pick, value| key_value(text.slice(pick.key.clone()), &pick.found.meta, value);
    if keys_only {
        return Ok(picks.iter().map(|pick| pair(pick, Bytes::new())).collect());
    }
    let stored = picks.iter().filter(|pick| pick.found.value.is_none());
    let stored: Vec<_> = stored.map(|pick| pick.found.meta.event_id()).collect();
    let mut stored = history::pairs(store, &stored)?.into_iter();
    let fetched = picks.iter().map(|pick| match &pick.found.value {
        Some(value) => pair(pick, value.clone()),
        None => stored.next().expect("one pair for each that was asked"),
    });
    Ok(fetched.collect())
}

/// The revision to read, `None` for the newest.
pub(crate) fn check_revision(
    requested: i64,
    current: i64,
    compacted: i64,
) -> Result<Option<i64>, Rejection> {
    match requested {
        ..=0 => Ok(None),
        _ if requested > current => Err(Rejection::FutureRevision { requested, current }),
        _ if requested < compacted => Err(Rejection::Compacted { requested, compacted }),
        _ => Ok(Some(requested)),
    }
}

impl State {
    /// Copies what a range needs of the index: at most `limit` + 1 entries where nothing has to be
    /// sorted or filtered. Short; runs under the read lock.
    ///
    /// # Errors
    /// A request that is wrong, or a revision that is compacted or in the future.
    pub fn plan_range(&self, request: &etcd::RangeRequest) -> Result<RangePlan, Rejection> {
        check::range(request)?;
        let rules = Rules::of(request);
        let revision = self.revision();
        let at = check_revision(request.revision, revision, self.compacted_revision())?;
        let range = KeyRange::of_request(&request.key, &request.range_end);
        if let Some(at) = at.filter(|at| *at < revision && !self.is_unchanged_since(&range, *at)) {
            let source = Source::Past {
                key: request.key.clone(),
                range_end: request.range_end.clone(),
                revision: at,
            };
            return Ok(RangePlan { rules, revision, source });
        }
        Ok(plan_on(&self.index, &range, rules, revision))
    }

    /// One key that has not changed since a revision is as the index has it.
    fn is_unchanged_since(&self, range: &KeyRange<'_>, revision: i64) -> bool {
        let meta = || self.index.get(range.start);
        range.end == End::Single && meta().is_some_and(|meta| meta.mod_revision <= revision)
    }
}

impl PastImage {
    /// Copies what a range at the image's revision needs, as [`State::plan_range`] does for the
    /// newest: the cost is that of what is returned. `revision` is that of the state that is read.
    ///
    /// # Errors
    /// A request that is wrong.
    pub fn plan_range(
        &self,
        request: &etcd::RangeRequest,
        revision: i64,
    ) -> Result<RangePlan, Rejection> {
        check::range(request)?;
        let range = KeyRange::of_request(&request.key, &request.range_end);
        Ok(plan_on(self.index(), &range, Rules::of(request), revision))
    }
}

/// Picks from an index.
fn plan_on(index: &KeyIndex, range: &KeyRange<'_>, rules: Rules, revision: i64) -> RangePlan {
    let mut picker = Picker::new(&rules);
    if rules.order == Order::Reverse {
        index.visit_backward(range, &mut |key, meta| {
            picker.pick_walking(key, Found::stored(*meta), Order::Reverse)
        });
    } else {
        index.visit(range, &mut |key, meta| picker.pick(key, Found::stored(*meta)));
    }
    let source = Source::Newest { count: index.count(range), picked: picker.picked };
    RangePlan { rules, revision, source }
}

impl RangePlan {
    /// Of the state that the plan was made from.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Rows that fetching will read; `None` for a past revision, where it has to scan.
    pub fn n_rows(&self) -> Option<usize> {
        match &self.source {
            Source::Newest { .. } if self.rules.keys_only => Some(0),
            Source::Newest { picked, .. } => Some(picked.picks.len()),
            Source::Past { .. } => None,
        }
    }

    /// The past revision that has to be scanned for.
    pub fn past_revision(&self) -> Option<i64> {
        match &self.source {
            Source::Newest { .. } => None,
            Source::Past { revision, .. } => Some(*revision),
        }
    }

    /// Whether fetching has to scan more rows than `rows_max`; then an image of the past revision
    /// is worth its making.
    ///
    /// # Errors
    /// A fault of the storage.
    pub fn scans_more_than(&self, rows_max: usize, store: &dyn StateRead) -> Result<bool, Fault> {
        match &self.source {
            Source::Newest { .. } => Ok(false),
            Source::Past { key, range_end, .. } => {
                past::has_more_rows(store, &KeyRange::of_request(key, range_end), rows_max)
            }
        }
    }

    /// Reads the values off the lock, from the store image that belongs to the plan's state.
    ///
    /// # Errors
    /// A fault of the storage.
    pub fn fetch(self, store: &dyn StateRead) -> Result<etcd::RangeResponse, Fault> {
        match self.source {
            Source::Newest { count, picked } => {
                respond(&self.rules, picked, count, self.revision, store)
            }
            Source::Past { key, range_end, revision } => {
                let range = KeyRange::of_request(&key, &range_end);
                past_range(store, &range, revision, &self.rules, self.revision)
            }
        }
    }
}

fn past_range(
    store: &dyn StateRead,
    range: &KeyRange<'_>,
    at: i64,
    rules: &Rules,
    revision: i64,
) -> Result<etcd::RangeResponse, Fault> {
    let mut picker = Picker::new(rules);
    let (mut count, mut is_full) = (0, false);
    past::visit(store, range, at, &mut |key, meta| {
        count += 1;
        // The walk goes on for the count.
        is_full = is_full || picker.pick(key, Found::stored(*meta)).is_break();
        Ok(ControlFlow::Continue(()))
    })?;
    picker.into_response(count, revision, store)
}

/// Whether a range of a transaction may be read, before any of it runs.
pub(crate) fn check_range(
    draft: &Draft<'_, '_>,
    request: &etcd::RangeRequest,
) -> Result<(), Rejection> {
    let counters = &draft.chunk.counters;
    check_revision(request.revision, counters.revision, counters.compacted_revision).map(|_at| ())
}

/// A range inside a transaction: it sees what the transaction wrote, unless it names a revision.
pub(crate) fn range(
    draft: &Draft<'_, '_>,
    request: &etcd::RangeRequest,
) -> Result<etcd::RangeResponse, Stop> {
    let chunk = draft.chunk;
    let rules = Rules::of(request);
    let range = KeyRange::of_request(&request.key, &request.range_end);
    let at = check_revision(
        request.revision,
        chunk.counters.revision,
        chunk.counters.compacted_revision,
    )?;
    let revision = draft.revision();
    let Some(at) = at else {
        let mut picker = Picker::new(&rules);
        draft.visit(&range, &mut |key, found| picker.pick(key, found));
        return Ok(picker.into_response(draft.count(&range), revision, chunk.store)?);
    };
    if at < chunk.base.revision() {
        return Ok(past_range(chunk.store, &range, at, &rules, revision)?);
    }
    let mut picker = Picker::new(&rules);
    let (mut count, mut is_full) = (0, false);
    chunk.visit(&range, at, &mut |key, found| {
        count += 1;
        is_full = is_full || picker.pick(key, found).is_break();
        ControlFlow::Continue(())
    });
    Ok(picker.into_response(count, revision, chunk.store)?)
}
