//! Range: what to pick of the index under the lock, and what to fetch off it.

use std::ops::ControlFlow;

use bytes::Bytes;
use proto::etcd;
use proto::etcd::range_request::{SortOrder, SortTarget};

use crate::keyspace::key_index::KeyIndex;
use crate::keyspace::key_range::{End, KeyRange};
use crate::keyspace::meta::KeyMeta;
use crate::kv::cost::{Cost, Reads};
use crate::kv::past_image::PastImage;
use crate::kv::picks::{Parts, Picks};
use crate::kv::{check, past};
use crate::limits;
use crate::response::{Rejection, Response};
use crate::state::State;
use crate::state::chunk::Found;
use crate::state::draft::{Draft, Stop, outcome_of};
use crate::store::{Fault, StateRead};

/// How the keys of a range become a response.
#[derive(Clone, Debug, PartialEq)]
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

/// Collects the keys of a range.
pub(crate) struct Picker<'r> {
    rules: &'r Rules,
    picked: Picks,
}

/// A range whose part of the index is copied; the rest needs no lock.
#[derive(Clone, Debug, PartialEq)]
pub struct RangePlan {
    rules: Rules,
    /// Of the state that is read.
    revision: i64,
    source: Source,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// Cut to the limit already, unless the values decide which ones stay.
    Newest {
        count: usize,
        more: bool,
        picked: Picks,
    },
    Past {
        key: Bytes,
        range_end: Bytes,
        revision: i64,
    },
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

    /// Keys that a walk over `count` keys may look at.
    fn walk_max(&self, count: usize) -> usize {
        match (self.count_only, self.bounded_walk) {
            (true, _) => 1,
            (false, Some(walking)) if self.filter == Filter::default() => {
                count.min(self.picks_max(walking))
            }
            (false, _) => count,
        }
    }

    fn is_by_value(&self) -> bool {
        matches!(self.order, Order::Sorted { by: SortTarget::Value, .. })
    }

    /// What has to be read of the picks.
    fn parts(&self) -> Parts {
        if self.keys_only && !self.is_by_value() { Parts::Keys } else { Parts::Pairs }
    }

    /// Keys to look at before the walk may end, in the given order of walking.
    fn picks_max(&self, walking: Order) -> usize {
        let is_bounded = self.limit != 0 && self.bounded_walk == Some(walking);
        if is_bounded { self.limit + 1 } else { usize::MAX }
    }
}

impl Source {
    fn past(request: &etcd::RangeRequest, revision: i64) -> Source {
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        Source::Past { key, range_end, revision }
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
            let parts = if self.rules.keys_only { Parts::Keys } else { Parts::Pairs };
            self.picked.push(key, found, parts);
        }
        if self.picked.len() < self.rules.picks_max(walking) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// The picks, walked by ascending key.
    fn into_plan(mut self, count: usize, revision: i64) -> RangePlan {
        if self.rules.order == Order::Reverse {
            self.picked.reverse();
        }
        RangePlan::of(self.rules, self.picked, count, revision)
    }
}

impl RangePlan {
    fn of(rules: &Rules, mut picked: Picks, count: usize, revision: i64) -> RangePlan {
        let more = rules.limit != 0 && picked.len() > rules.limit;
        if let Order::Sorted { by, descending } = rules.order
            && !rules.is_by_value()
        {
            picked.sort_by(|left, right| {
                directed(number(left, by).cmp(&number(right, by)), descending)
            });
        }
        if more && !rules.is_by_value() {
            picked.truncate(rules.limit);
        }
        let source = Source::Newest { count, more, picked };
        RangePlan { rules: rules.clone(), revision, source }
    }

    /// What the pairs take in the answer; 0 for a past revision, where only a scan tells.
    pub fn answer_bytes(&self) -> u64 {
        match &self.source {
            Source::Newest { picked, .. } => picked.answer_bytes(self.rules.parts()),
            Source::Past { .. } => 0,
        }
    }
}

/// What was picked, with its values.
fn respond(
    rules: &Rules,
    picked: Picks,
    (count, more): (usize, bool),
    revision: i64,
    store: &dyn StateRead,
) -> Result<etcd::RangeResponse, Fault> {
    let mut kvs = picked.read(rules.parts(), store)?;
    if let Order::Sorted { by: SortTarget::Value, descending } = rules.order {
        kvs.sort_by(|left, right| directed(left.value.cmp(&right.value), descending));
        if more {
            kvs.truncate(rules.limit);
        }
        if rules.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
    }
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

/// What the index knows of a key to sort by.
fn number(meta: &KeyMeta, by: SortTarget) -> i64 {
    match by {
        SortTarget::Version => meta.version,
        SortTarget::Create => meta.create_revision,
        SortTarget::Mod => meta.mod_revision,
        SortTarget::Key | SortTarget::Value => 0,
    }
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
    /// sorted or filtered, and nothing where it would be too much: fetching then scans the tables.
    /// Short; runs under the read lock.
    ///
    /// # Errors
    /// A request that is wrong, or a revision that is compacted or in the future.
    pub fn plan_range(&self, request: &etcd::RangeRequest) -> Result<RangePlan, Rejection> {
        self.plan_range_within(request, &mut { limits::LOCKED_RANGE_KEYS_MAX })
    }

    /// `keys_left` may still be copied under this lock.
    pub(crate) fn plan_range_within(
        &self,
        request: &etcd::RangeRequest,
        keys_left: &mut usize,
    ) -> Result<RangePlan, Rejection> {
        check::range(request)?;
        let rules = Rules::of(request);
        let revision = self.revision();
        let at = check_revision(request.revision, revision, self.compacted_revision())?;
        let range = KeyRange::of_request(&request.key, &request.range_end);
        if let Some(at) = at.filter(|at| *at < revision && !self.is_unchanged_since(&range, *at)) {
            return Ok(RangePlan { rules, revision, source: Source::past(request, at) });
        }
        let Some(left) = keys_left.checked_sub(rules.walk_max(self.index.count(&range))) else {
            return Ok(RangePlan { rules, revision, source: Source::past(request, revision) });
        };
        *keys_left = left;
        Ok(plan_on(&self.index, &range, &rules, revision))
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
        Ok(plan_on(self.index(), &range, &Rules::of(request), revision))
    }
}

/// Picks from an index.
fn plan_on(index: &KeyIndex, range: &KeyRange<'_>, rules: &Rules, revision: i64) -> RangePlan {
    let mut picker = Picker::new(rules);
    if rules.order == Order::Reverse {
        index.visit_backward(range, &mut |key, meta| {
            picker.pick_walking(key, Found::stored(*meta), Order::Reverse)
        });
    } else {
        index.visit(range, &mut |key, meta| picker.pick(key, Found::stored(*meta)));
    }
    RangePlan::of(rules, picker.picked, index.count(range), revision)
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
            Source::Newest { picked, .. } => Some(picked.len()),
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

    /// As [`RangePlan::fetch`], for a client: an answer that is too large is refused.
    ///
    /// # Errors
    /// A fault of the storage. A refusal is part of the outcome.
    pub fn fetch_bounded(
        self,
        store: &dyn StateRead,
    ) -> Result<Result<etcd::RangeResponse, Rejection>, Fault> {
        outcome_of(self.fetch_within(store, &mut Reads::of_range()))
    }

    /// Reads the values off the lock, from the store image that belongs to the plan's state.
    ///
    /// # Errors
    /// A fault of the storage.
    pub fn fetch(self, store: &dyn StateRead) -> Result<etcd::RangeResponse, Fault> {
        let read = outcome_of(self.fetch_within(store, &mut { Reads::UNBOUNDED }))?;
        Ok(read.expect("a read without bounds is not refused"))
    }

    pub(crate) fn fetch_within(
        self,
        store: &dyn StateRead,
        reads: &mut Reads,
    ) -> Result<etcd::RangeResponse, Stop> {
        reads.answer(self.answer_bytes())?;
        match self.source {
            Source::Newest { count, more, picked } => {
                Ok(respond(&self.rules, picked, (count, more), self.revision, store)?)
            }
            Source::Past { key, range_end, revision } => {
                let range = KeyRange::of_request(&key, &range_end);
                let plan = past_plan(store, &range, revision, &self.rules, reads)?;
                Ok(RangePlan { revision: self.revision, ..plan }.fetch(store)?)
            }
        }
    }
}

/// Picks by a scan of the tables. The answer is charged as it grows.
fn past_plan(
    store: &dyn StateRead,
    range: &KeyRange<'_>,
    at: i64,
    rules: &Rules,
    reads: &mut Reads,
) -> Result<RangePlan, Stop> {
    let mut picker = Picker::new(rules);
    let (mut count, mut is_full) = (0, false);
    let mut charged = Ok(());
    past::visit(store, range, at, &mut |key, meta| {
        count += 1;
        // The walk goes on for the count.
        let n_picked = picker.picked.len();
        is_full = is_full || picker.pick(key, Found::stored(*meta)).is_break();
        let bytes = picker.picked.answer_bytes_from(n_picked, rules.parts());
        charged = reads.visit().and_then(|()| reads.answer(bytes));
        Ok(if charged.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    charged?;
    Ok(picker.into_plan(count, at))
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
///
/// How the log was cut into chunks must not show, so it counts that a revision is named and not
/// whether it is in the tables yet: one key is looked up, more are scanned for after the commit.
pub(crate) fn range(
    draft: &Draft<'_, '_>,
    request: &etcd::RangeRequest,
    cost: &mut Cost,
) -> Result<RangePlan, Stop> {
    let counters = &draft.chunk.counters;
    let rules = Rules::of(request);
    let range = KeyRange::of_request(&request.key, &request.range_end);
    let at = check_revision(request.revision, counters.revision, counters.compacted_revision)?;
    let revision = draft.revision();
    let plan = match at {
        None => {
            cost.read_keys(draft.n_written(&range))?;
            let count = draft.count(&range);
            cost.read_keys(rules.walk_max(count))?;
            let mut picker = Picker::new(&rules);
            draft.visit(&range, &mut |key, found| picker.pick(key, found));
            picker.into_plan(count, revision)
        }
        Some(at) if range.end == End::Single => {
            let mut picker = Picker::new(&rules);
            let found = draft.chunk.get_at(range.start, at)?;
            let count = usize::from(found.is_some());
            if let Some(found) = found {
                // One key is all there is to walk.
                let _flow = picker.pick(range.start, found);
            }
            picker.into_plan(count, revision)
        }
        Some(at) => {
            cost.answer_past_range();
            RangePlan { rules, revision, source: Source::past(request, at) }
        }
    };
    cost.answer(plan.answer_bytes())?;
    Ok(plan)
}
