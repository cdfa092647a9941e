//! Open windows of one channel and partition, in the leader's memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use proto::milvus::common::SegmentState;
use statemachine::coordinator::segment::view::{Growth, Segment};
use statemachine::view::SegmentId;

use super::{LotKey, Slice};
use crate::coordinator::lead::Lead;
use crate::coordinator::tso;

/// Slices that expire within so many milliseconds of each other are remembered as one.
const SAME_EXPIRY_MS: u64 = 100;
/// A slice that would expire sooner is not worth handing out, milliseconds.
const SLICE_MS_MIN: u64 = 1500;
/// Rows of a first window, where the request is not larger.
const WINDOW_ROWS_MIN: i64 = 4096;

#[derive(Default)]
pub(super) struct Lot {
    open: Mutex<Open>,
    /// One proposal at a time: a second one would open a second segment for nothing.
    pub(super) renewing: tokio::sync::Mutex<()>,
    pub(super) is_renewing: AtomicBool,
}

#[derive(Default)]
struct Open {
    segments: Vec<OpenSegment>,
    /// Being sealed: nothing is handed out of them until it is certain that the seal did not happen.
    closing: BTreeMap<SegmentId, Closing>,
    /// Rows handed out since the last window: the next one is sized by it.
    rows_since_window: i64,
}

/// A growing segment of this tenure.
#[derive(Clone, Debug)]
pub(crate) struct OpenSegment {
    id: SegmentId,
    rows_max: i64,
    /// Written, as far as reported.
    rows: i64,
    /// Handed out and not known to be consumed: expiry and rows.
    slices: VecDeque<(u64, i64)>,
    window_rows_left: i64,
    window_expire_ts: u64,
    /// Of an earlier tenure's window: what it handed out is not known.
    inherited_expire_ts: u64,
    /// Highest expiry that was handed out in this tenure.
    handed_expire_ts: u64,
    /// Ever, and when the newest window was proposed.
    handed_rows: i64,
    handed_rows_at_proposal: i64,
}

/// A segment whose seal was begun.
struct Closing {
    segment: OpenSegment,
    /// The seal was proposed and its outcome is not known: it has to be proposed again.
    is_undecided: bool,
}

/// What is known of a segment that is not handed out of any more.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    segment: OpenSegment,
}

impl Closed {
    /// No row arrives after it.
    pub(crate) fn last_expire_ts(&self) -> u64 {
        self.segment.handed_expire_ts.max(self.segment.inherited_expire_ts)
    }

    /// Nobody may have written into it.
    pub(crate) fn is_unused(&self) -> bool {
        self.last_expire_ts() == 0
    }
}

/// What a request needs that no open window gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    Renew { segment: SegmentId, rows: i64, outstanding: i64 },
    Create { rows: i64 },
}

impl OpenSegment {
    fn outstanding(&self) -> i64 {
        self.slices.iter().map(|(_, rows)| rows).sum()
    }

    /// Rows that may still be handed out below the reserve.
    fn free(&self, reserve: f64) -> i64 {
        share(self.rows_max, 1.0 - reserve) - self.rows - self.outstanding()
    }

    fn hand_out(&mut self, rows: i64, expire_ts: u64) -> Slice {
        self.window_rows_left -= rows;
        self.handed_rows += rows;
        self.handed_expire_ts = self.handed_expire_ts.max(expire_ts);
        match self.slices.back_mut() {
            Some((last, sum)) if expire_ts <= tso::later(*last, SAME_EXPIRY_MS) => {
                *last = (*last).max(expire_ts);
                *sum += rows;
            }
            Some(_) | None => self.slices.push_back((expire_ts, rows)),
        }
        Slice { segment: self.id, rows, expire_ts }
    }
}

impl Lot {
    /// A slice of an open window, if one has the rows and lives long enough.
    pub(super) fn hand_out(&self, rows: i64, now_ts: u64, assignment_ms: u64) -> Option<Slice> {
        let mut open = self.open.lock();
        let least_ts = tso::later(now_ts, SLICE_MS_MIN.min(assignment_ms));
        let segment = open.segments.iter_mut().find(|segment| {
            segment.window_rows_left >= rows && segment.window_expire_ts >= least_ts
        })?;
        let expire_ts = tso::later(now_ts, assignment_ms).min(segment.window_expire_ts);
        let slice = segment.hand_out(rows, expire_ts);
        open.rows_since_window += rows;
        Some(slice)
    }

    /// Whether every window ends within so many milliseconds, or has little left.
    pub(super) fn is_due(&self, now_ts: u64, within_ms: u64) -> bool {
        let open = self.open.lock();
        let soon_ts = tso::later(now_ts, within_ms);
        let low = open.rows_since_window / 2;
        open.segments
            .iter()
            .all(|segment| segment.window_expire_ts < soon_ts || segment.window_rows_left < low)
    }

    /// Takes in what the view knows and this tenure does not, and lets go of what is sealed.
    pub(super) fn refresh(&self, lead: &Lead, key: &LotKey) {
        let tick_ts = lead.observed.tick_ts(&key.channel);
        let mut open = self.open.lock();
        lead.local().read(|state| {
            let segments = state.views().segments();
            let may_grow = |id: SegmentId| {
                segments.get(id).is_none_or(|known| known.state == SegmentState::Growing)
            };
            open.segments.retain(|segment| may_grow(segment.id));
            open.closing.retain(|id, _| may_grow(*id));
            for (id, segment) in segments.open_of_channel(&key.channel) {
                if segment.state != SegmentState::Growing
                    || segment.partition != key.partition
                    || segment.collection != key.collection
                    || open.closing.contains_key(&id)
                {
                    continue;
                }
                let place = match open.segments.iter().position(|known| known.id == id) {
                    Some(place) => place,
                    None => {
                        open.segments.push(inherited(id, segment, segments.growth(id)));
                        open.segments.len() - 1
                    }
                };
                let known = &mut open.segments[place];
                known.rows = lead.observed.rows(id).max(segment.rows);
                while known.slices.front().is_some_and(|(expire_ts, _)| *expire_ts <= tick_ts) {
                    known.slices.pop_front();
                }
            }
        });
    }

    /// Which window a request opens: of the fullest segment with room.
    pub(super) fn need(&self, rows: i64, reserve: f64) -> Need {
        let mut open = self.open.lock();
        let wanted = rows.max(open.rows_since_window * 2).max(WINDOW_ROWS_MIN);
        let fullest = open
            .segments
            .iter_mut()
            .filter(|segment| segment.free(reserve) >= rows)
            .min_by_key(|segment| segment.free(reserve));
        match fullest {
            Some(segment) => {
                segment.handed_rows_at_proposal = segment.handed_rows;
                Need::Renew {
                    segment: segment.id,
                    rows: wanted.min(segment.free(reserve)),
                    outstanding: segment.outstanding(),
                }
            }
            None => Need::Create { rows: wanted },
        }
    }

    /// A window is committed.
    pub(super) fn opened(
        &self,
        lead: &Lead,
        id: SegmentId,
        rows: i64,
        expire_ts: u64,
        created_rows_max: Option<i64>,
    ) {
        let mut open = self.open.lock();
        open.rows_since_window = 0;
        // Whoever found it in the view may have sealed it already.
        let is_growing = |id| {
            lead.local().read(|state| {
                let found = state.views().segments().get(id);
                found.is_some_and(|segment| segment.state == SegmentState::Growing)
            })
        };
        if let Some(rows_max) = created_rows_max
            && !open.closing.contains_key(&id)
            && open.segments.iter().all(|segment| segment.id != id)
            && is_growing(id)
        {
            open.segments.push(OpenSegment {
                id,
                rows_max,
                rows: 0,
                slices: VecDeque::new(),
                window_rows_left: 0,
                window_expire_ts: 0,
                inherited_expire_ts: 0,
                handed_expire_ts: 0,
                handed_rows: 0,
                handed_rows_at_proposal: 0,
            });
        }
        // Where it was closed meanwhile nothing more is handed out of it.
        if let Some(segment) = open.segments.iter_mut().find(|segment| segment.id == id) {
            // What was handed out beside the proposal counts against the new window, too.
            let meanwhile = segment.handed_rows - segment.handed_rows_at_proposal;
            segment.window_rows_left = rows - meanwhile;
            segment.window_expire_ts = expire_ts;
        }
    }

    pub(super) fn close(
        &self,
        id: SegmentId,
        segment: &Segment,
        growth: Option<&Growth>,
    ) -> Closed {
        let mut open = self.open.lock();
        let place = open.segments.iter().position(|known| known.id == id);
        let known = match place {
            Some(place) => open.segments.remove(place),
            // A seal that is repeated says what the first one said.
            None => match open.closing.remove(&id) {
                Some(closing) => closing.segment,
                None => inherited(id, segment, growth),
            },
        };
        let closing = Closing { segment: known.clone(), is_undecided: false };
        open.closing.insert(id, closing);
        Closed { segment: known }
    }

    /// The seal did not happen and never will.
    pub(super) fn reopen(&self, id: SegmentId) {
        let mut open = self.open.lock();
        if let Some(closing) = open.closing.remove(&id) {
            open.segments.push(closing.segment);
        }
    }

    /// The seal may happen yet.
    pub(super) fn leave_undecided(&self, id: SegmentId) {
        if let Some(closing) = self.open.lock().closing.get_mut(&id) {
            closing.is_undecided = true;
        }
    }

    pub(super) fn is_undecided(&self, id: SegmentId) -> bool {
        self.open.lock().closing.get(&id).is_some_and(|closing| closing.is_undecided)
    }

    pub(super) fn forget(&self, id: SegmentId) {
        let mut open = self.open.lock();
        open.closing.remove(&id);
        open.segments.retain(|segment| segment.id != id);
    }
}

/// A growing segment that this tenure has not handed out of: an earlier one may have, up to what its
/// window says.
fn inherited(id: SegmentId, segment: &Segment, growth: Option<&Growth>) -> OpenSegment {
    let expire_ts = growth.map_or(segment.last_expire_ts, |growth| growth.window_expire_ts);
    let window_rows = growth.map_or(0, |growth| growth.window_rows);
    OpenSegment {
        id,
        rows_max: segment.rows_max,
        rows: segment.rows,
        slices: VecDeque::from([(expire_ts, window_rows)]),
        window_rows_left: 0,
        window_expire_ts: 0,
        inherited_expire_ts: expire_ts,
        handed_expire_ts: 0,
        handed_rows: 0,
        handed_rows_at_proposal: 0,
    }
}

/// A part of a number of rows, rounded down.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "rows of a segment are far below 2^52"
)]
fn share(rows: i64, part: f64) -> i64 {
    (rows as f64 * part) as i64
}

#[cfg(test)]
mod tests {
    use statemachine::view::{CollectionId, PartitionId};

    use super::*;

    const ID: SegmentId = SegmentId(10);

    fn growing() -> Segment {
        Segment {
            collection: CollectionId(1),
            partition: PartitionId(2),
            channel: "dml_0_1v0".into(),
            state: SegmentState::Growing,
            rows: 0,
            rows_max: 1000,
            last_expire_ts: 0,
            start_ts: None,
            dml_ts: None,
            dropped_at_ns: 0,
            is_importing: false,
            is_compacted: false,
            is_compaction_result: false,
            is_fake: false,
            level: 0,
            parents: Box::default(),
            revision: 1,
        }
    }

    /// With one segment whose window has 100 rows and is good for a long time.
    fn lot() -> Lot {
        let lot = Lot::default();
        let segment = OpenSegment {
            window_rows_left: 100,
            window_expire_ts: tso::later(0, 60_000),
            inherited_expire_ts: 0,
            slices: VecDeque::new(),
            ..inherited(ID, &growing(), None)
        };
        lot.open.lock().segments.push(segment);
        lot
    }

    #[test]
    fn nothing_is_handed_out_of_a_segment_whose_seal_is_undecided() {
        let lot = lot();
        let hand_out = || lot.hand_out(10, tso::later(0, 1000), 2000).map(|slice| slice.expire_ts);
        let expire_ts = hand_out().expect("the window is open");

        assert_eq!(lot.close(ID, &growing(), None).last_expire_ts(), expire_ts);
        assert_eq!(hand_out(), None, "it is being sealed");
        lot.leave_undecided(ID);
        assert!(lot.is_undecided(ID));
        assert_eq!(hand_out(), None, "the seal may happen yet");

        let again = lot.close(ID, &growing(), None);
        assert_eq!(again.last_expire_ts(), expire_ts, "the seal says again what was handed out");
        assert!(!lot.is_undecided(ID), "it is being sealed");
        lot.reopen(ID);
        assert!(hand_out().is_some(), "the seal did not happen");
        lot.close(ID, &growing(), None);
        lot.forget(ID);
        assert_eq!(hand_out(), None, "it is sealed");
        lot.reopen(ID);
        assert_eq!(hand_out(), None, "what is decided stays decided");
    }
}
