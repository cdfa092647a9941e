//! Assignment of rows to growing segments, from windows.
//!
//! A window is committed: so many rows of a segment, until a bound. Within it the leader hands out
//! slices from memory, so an assignment waits for consensus only when a window is opened or
//! renewed. A deposed leader can hand out no more than its windows allow, and its successor waits
//! for their bounds before it flushes.

mod capacity;
mod lot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use proto::quorate::segment_command::Kind;
use proto::quorate::{NewSegment, OpenWindows, SegmentRef, Window};
use statemachine::coordinator::Refusal;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::{CollectionId, PartitionId, SegmentId};

use super::failure::{Code, Failure};
use super::lead::Lead;
use super::tso;
use crate::tasks;

pub(crate) use capacity::{row_bytes, rows_of};
pub(crate) use lot::Closed;
use lot::{Lot, Need};

/// Where rows of one channel and partition go. Assignment is serial in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LotKey {
    pub(crate) collection: CollectionId,
    pub(crate) partition: PartitionId,
    pub(crate) channel: String,
}

/// Rows that a proxy may write into a segment, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) segment: SegmentId,
    pub(crate) rows: i64,
    /// Hybrid timestamp.
    pub(crate) expire_ts: u64,
}

/// How much longer than an assignment a window may live, in milliseconds.
const WINDOW_EXTRA_MS: u64 = 1000;
/// A window is renewed beside the requests once it is so far from its bound.
const RENEW_BEFORE_MS: u64 = 500;
/// Refusals in a row, each of a segment that was sealed meanwhile.
const ATTEMPTS_MAX: usize = 8;

#[derive(Default)]
pub(crate) struct Assigner {
    lots: Mutex<BTreeMap<LotKey, Arc<Lot>>>,
}

impl Assigner {
    fn known(&self, key: &LotKey) -> Option<Arc<Lot>> {
        self.lots.lock().get(key).map(Arc::clone)
    }

    fn lot(&self, key: &LotKey) -> Arc<Lot> {
        let mut lots = self.lots.lock();
        match lots.get(key) {
            Some(lot) => Arc::clone(lot),
            None => {
                let lot = Arc::new(Lot::default());
                lots.insert(key.clone(), Arc::clone(&lot));
                lot
            }
        }
    }

    /// Stops handing out of a growing segment. Whoever seals it then calls one of the next three.
    pub(crate) fn close(&self, id: SegmentId, segment: &Segment, lead: &Lead) -> Closed {
        let growth = lead.local().read(|state| state.views().segments().growth(id).copied());
        self.lot(&key_of(segment)).close(id, segment, growth.as_ref())
    }

    /// The seal did not happen and never will.
    pub(crate) fn reopen(&self, id: SegmentId, segment: &Segment) {
        self.lot(&key_of(segment)).reopen(id);
    }

    /// The seal was proposed and its outcome is not known: nothing is handed out until the sealing
    /// duty has proposed it again.
    pub(crate) fn leave_undecided(&self, id: SegmentId, segment: &Segment) {
        self.lot(&key_of(segment)).leave_undecided(id);
    }

    pub(crate) fn is_undecided(&self, id: SegmentId, segment: &Segment) -> bool {
        self.known(&key_of(segment)).is_some_and(|lot| lot.is_undecided(id))
    }

    /// The seal is committed, or the segment is gone in another way.
    pub(crate) fn forget(&self, id: SegmentId, segment: &Segment) {
        self.lot(&key_of(segment)).forget(id);
    }

    /// The channel's collection is gone.
    pub(crate) fn forget_channel(&self, channel: &str) {
        self.retain(|other| other != channel);
    }

    pub(crate) fn retain(&self, is_channel: impl Fn(&str) -> bool) {
        self.lots.lock().retain(|key, _| is_channel(&key.channel));
    }
}

fn key_of(segment: &Segment) -> LotKey {
    LotKey {
        collection: segment.collection,
        partition: segment.partition,
        channel: segment.channel.to_string(),
    }
}

/// Slices that cover `rows`, a whole number of times where that is more than one segment holds.
///
/// # Errors
/// The collection or channel is not known, RootCoord gives no ids or timestamps, or this node does
/// not lead any more.
pub(crate) async fn assign(
    lead: &Arc<Lead>,
    key: &LotKey,
    rows: i64,
) -> Result<Vec<Slice>, Failure> {
    let lot = match lead.observed.assigner.known(key) {
        Some(lot) => lot,
        None => {
            // What does not exist leaves nothing behind.
            check_exists(lead, key)?;
            lead.observed.assigner.lot(key)
        }
    };
    let now_ts = lead.tso.estimate().await?;
    let assignment_ms = millis(lead.settings().assignment_expiration);
    if let Some(slice) = lot.hand_out(rows, now_ts, assignment_ms) {
        if lot.is_due(now_ts, WINDOW_EXTRA_MS + assignment_ms - RENEW_BEFORE_MS) {
            renew_beside(lead, key, &lot);
        }
        return Ok(vec![slice]);
    }
    let _serial = lot.renewing.lock().await;
    let rows_max = rows_max_of(lead, key)?;
    let mut slices = Vec::new();
    let mut left = rows;
    while left > 0 {
        let want = left.min(rows_max);
        let slice = open_for(lead, key, &lot, want, rows_max).await?;
        left -= slice.rows;
        slices.push(slice);
    }
    Ok(slices)
}

/// Opens a window until one gives the rows. Callers hold `lot.renewing`.
async fn open_for(
    lead: &Arc<Lead>,
    key: &LotKey,
    lot: &Lot,
    rows: i64,
    rows_max: i64,
) -> Result<Slice, Failure> {
    let assignment_ms = millis(lead.settings().assignment_expiration);
    for _ in 0..ATTEMPTS_MAX {
        let now_ts = lead.tso.estimate().await?;
        if let Some(slice) = lot.hand_out(rows, now_ts, assignment_ms) {
            return Ok(slice);
        }
        open_window(lead, key, lot, rows, rows_max, now_ts).await?;
    }
    Err(Failure::Unavailable(format!("channel {} gives no segment", key.channel)))
}

/// One window for at least `rows`: of the fullest segment that has room, of a new one else.
async fn open_window(
    lead: &Arc<Lead>,
    key: &LotKey,
    lot: &Lot,
    rows: i64,
    rows_max: i64,
    now_ts: u64,
) -> Result<(), Failure> {
    let expire_ts =
        tso::later(now_ts, millis(lead.settings().assignment_expiration) + WINDOW_EXTRA_MS);
    lot.refresh(lead, key);
    let need = lot.need(rows, lead.settings().segment_reserve);
    let (segment, window_rows, outstanding, create) = match need {
        Need::Renew { segment, rows, outstanding } => (segment, rows, outstanding, None),
        Need::Create { rows } => {
            let create = NewSegment { channel: key.channel.clone(), rows_max, importing: false };
            let segment = SegmentId(lead.ids.next().await?);
            (segment, rows.min(rows_max), 0, Some(create))
        }
    };
    let is_new = create.is_some();
    let window = Window {
        segment: Some(reference(key, segment)),
        rows: window_rows + outstanding,
        expire_ts,
        create,
    };
    let opened =
        lead.propose_segment(Kind::OpenWindows(OpenWindows { windows: vec![window] })).await?;
    match opened.refused.first() {
        None => lot.opened(lead, segment, window_rows, expire_ts, is_new.then_some(rows_max)),
        Some(item) => {
            lot.forget(segment);
            let refusal = Refusal::of_item(item);
            match refusal {
                // It was sealed, or dropped, meanwhile: the next attempt takes another.
                Some(Refusal::SegmentState { .. }) if !is_new => {}
                Some(refusal) => return Err(refusal.into()),
                None => return Err(Failure::Unavailable("an unknown refusal".to_owned())),
            }
        }
    }
    Ok(())
}

fn renew_beside(lead: &Arc<Lead>, key: &LotKey, lot: &Arc<Lot>) {
    if lot.is_renewing.swap(true, Ordering::AcqRel) {
        return;
    }
    let (lead, key, lot) = (Arc::clone(lead), key.clone(), Arc::clone(lot));
    tasks::spawn("window-renewal", async move {
        let renewal = async {
            let _serial = lot.renewing.lock().await;
            let rows_max = rows_max_of(&lead, &key)?;
            let now_ts = lead.tso.estimate().await?;
            open_window(&lead, &key, &lot, 1, rows_max, now_ts).await
        };
        if let Err(error) = renewal.await {
            tracing::debug!(channel = key.channel, %error, "a window was not renewed");
        }
        lot.is_renewing.store(false, Ordering::Release);
    });
}

/// A new segment that a bulk import fills.
///
/// # Errors
/// As [`assign`].
pub(crate) async fn assign_import(lead: &Arc<Lead>, key: &LotKey) -> Result<Slice, Failure> {
    let rows_max = rows_max_of(lead, key)?;
    let now_ts = lead.tso.fresh().await?;
    let expire_ts = tso::later(now_ts, millis(lead.settings().import_task_expiration));
    let segment = SegmentId(lead.ids.next().await?);
    let create = NewSegment { channel: key.channel.clone(), rows_max, importing: true };
    let window = Window {
        segment: Some(reference(key, segment)),
        rows: rows_max,
        expire_ts,
        create: Some(create),
    };
    let opened =
        lead.propose_segment(Kind::OpenWindows(OpenWindows { windows: vec![window] })).await?;
    match opened.refused.first() {
        None => Ok(Slice { segment, rows: rows_max, expire_ts }),
        Some(item) => Err(Refusal::of_item(item)
            .map_or_else(|| Failure::Unavailable("an unknown refusal".to_owned()), Failure::from)),
    }
}

/// # Errors
/// The collection is not known, or has no such channel.
fn check_exists(lead: &Lead, key: &LotKey) -> Result<(), Failure> {
    rows_max_of(lead, key)?;
    let owner = lead.local().read(|state| {
        state.views().assignments().get(&key.channel).map(|assignment| assignment.collection)
    });
    if is_channel_of(owner, key.collection) {
        return Ok(());
    }
    Err(Refusal::UnknownChannel { channel: key.channel.clone() }.into())
}

/// As apply decides it: a channel that a stock coordinator left may name no collection.
fn is_channel_of(owner: Option<CollectionId>, collection: CollectionId) -> bool {
    owner.is_some_and(|owner| owner == collection || owner == CollectionId(0))
}

/// Rows that a new segment of the collection holds, as its schema gives them.
fn rows_max_of(lead: &Lead, key: &LotKey) -> Result<i64, Failure> {
    lead.local().read(|state| {
        let catalog = state.views().catalog();
        let known = catalog.collection(key.collection).is_some();
        let fields = catalog.fields(key.collection);
        if !known || fields.is_empty() {
            return Err(Failure::collection_not_found(key.collection.0));
        }
        let bytes = row_bytes(fields.iter().map(|(_, field)| *field))
            .map_err(|error| Failure::refused(Code::InvalidParameter, error.to_string()))?;
        Ok(rows_of(lead.settings().segment_max_size_mb, bytes))
    })
}

fn reference(key: &LotKey, segment: SegmentId) -> SegmentRef {
    SegmentRef { collection: key.collection.0, partition: key.partition.0, segment: segment.0 }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_channels_of_their_collection_or_of_none() {
        let is_channel_of =
            |owner: Option<i64>| super::is_channel_of(owner.map(CollectionId), CollectionId(1));
        assert!(is_channel_of(Some(1)));
        assert!(is_channel_of(Some(0)), "adopted from a stock coordinator");
        assert!(!is_channel_of(Some(2)));
        assert!(!is_channel_of(None));
    }
}
