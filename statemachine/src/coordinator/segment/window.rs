//! Assignment windows, and their end: the seal.

use proto::milvus::common::SegmentState;
use proto::milvus::data::SegmentInfo;
use proto::quorate::{
    AdoptSegments, ChannelRecord, Growth, HasRows, NewSegment, OpenWindows, Seal, SealSegments,
    SegmentRef, Window,
};

use super::lifecycle::{Step, advance};
use super::{growth, record, settle};
use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(super) fn open(records: &mut Records<'_, '_>, command: OpenWindows) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for window in command.windows {
        let of = window.segment.unwrap_or_default();
        let opened = match &window.create {
            Some(new) => create(records, of, &window, new),
            None => renew(records, of, &window),
        };
        settle(&mut outcomes, of.segment, opened)?;
    }
    Ok(outcomes)
}

fn create(
    records: &mut Records<'_, '_>,
    of: SegmentRef,
    window: &Window,
    new: &NewSegment,
) -> Result<(), Stop> {
    let key = records.keys().segment(of);
    if records.exists(&key) {
        return Err(Refusal::SegmentExists { segment: of.segment }.into());
    }
    // A channel that ends takes nothing in any more: its last data node has left.
    let is_removed = records
        .value(&records.keys().removal(&new.channel))?
        .is_some_and(|mark| mark == b"removed"[..]);
    if is_removed || !is_of(records, &new.channel, of.collection)? {
        return Err(Refusal::UnknownChannel { channel: new.channel.clone() }.into());
    }
    let state = if new.importing { SegmentState::Importing } else { SegmentState::Growing };
    let info = SegmentInfo {
        id: of.segment,
        collection_id: of.collection,
        partition_id: of.partition,
        insert_channel: new.channel.clone(),
        state: state.into(),
        max_row_num: new.rows_max,
        is_importing: new.importing,
        ..SegmentInfo::default()
    };
    records.put(key, &info);
    let growth = Growth { has_rows: HasRows::No.into(), ..Growth::default() };
    put_window(records, of.segment, growth, window);
    Ok(())
}

/// Whether a channel is on record, and not as another collection's.
fn is_of(records: &Records<'_, '_>, channel: &str, collection: i64) -> Result<bool, Stop> {
    let key = records.keys().channel(channel);
    // One that a stock coordinator left may name no collection; a raw write, nothing at all.
    let record = records.get_if_record::<ChannelRecord>(&key)?;
    let known = record.map(|record| record.collection).filter(|known| *known != 0);
    Ok(records.exists(&key) && known.is_none_or(|known| known == collection))
}

fn renew(records: &mut Records<'_, '_>, of: SegmentRef, window: &Window) -> Result<(), Stop> {
    let mut info = record(records, of)?;
    advance(&mut info, Step::Renew)?;
    let growth = growth(records, of.segment)?;
    put_window(records, of.segment, growth, window);
    Ok(())
}

fn put_window(records: &mut Records<'_, '_>, segment: i64, growth: Growth, window: &Window) {
    let growth = Growth {
        window_rows: window.rows,
        // What an earlier window allowed stays allowed.
        window_expire_ts: growth.window_expire_ts.max(window.expire_ts),
        window_at_ms: records.at_ms(),
        ..growth
    };
    records.put(records.keys().growth(segment), &growth);
}

pub(super) fn seal(records: &mut Records<'_, '_>, command: SealSegments) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for seal in command.seals {
        let of = seal.segment.unwrap_or_default();
        let sealed = seal_one(records, of, &seal);
        settle(&mut outcomes, of.segment, sealed)?;
    }
    Ok(outcomes)
}

fn seal_one(records: &mut Records<'_, '_>, of: SegmentRef, seal: &Seal) -> Result<(), Stop> {
    let mut info = record(records, of)?;
    let was_sealed = super::state_of(&info) == SegmentState::Sealed;
    advance(&mut info, if seal.importing { Step::SealImport } else { Step::Seal })?;
    if was_sealed {
        return Ok(());
    }
    let growth = growth(records, of.segment)?;
    let has_no_rows = growth.has_rows() == HasRows::No && info.num_of_rows == 0;
    info.last_expire_time = info.last_expire_time.max(seal.last_expire_ts);
    if seal.unused && has_no_rows {
        // Nobody may write into it and nobody has: there is nothing to wait for.
        advance(&mut info, Step::Drop)?;
        info.dropped_at = records.at_ms().saturating_mul(1_000_000);
        records.delete(records.keys().growth(of.segment));
    } else {
        let sealed_at_ms = records.at_ms();
        let reason = seal.reason.clone();
        let growth = Growth { window_rows: 0, sealed_at_ms, seal_reason: reason, ..growth };
        records.put(records.keys().growth(of.segment), &growth);
    }
    records.put(records.keys().segment(of), &info);
    Ok(())
}

/// Segments that a stock coordinator left: what it handed out is in nobody's memory any more.
pub(super) fn adopt(
    records: &mut Records<'_, '_>,
    command: &AdoptSegments,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for of in &command.segments {
        let adopted = adopt_one(records, *of, command.last_expire_ts);
        settle(&mut outcomes, of.segment, adopted)?;
    }
    Ok(outcomes)
}

fn adopt_one(
    records: &mut Records<'_, '_>,
    of: SegmentRef,
    last_expire_ts: u64,
) -> Result<(), Stop> {
    let mut info = record(records, of)?;
    match super::state_of(&info) {
        SegmentState::Growing | SegmentState::Sealed | SegmentState::Importing => {}
        SegmentState::None
        | SegmentState::NotExist
        | SegmentState::Flushed
        | SegmentState::Flushing
        | SegmentState::Dropped => return Err(super::refuse_state(&info).into()),
    }
    let key = records.keys().growth(of.segment);
    if records.exists(&key) {
        return Ok(());
    }
    let growth = Growth {
        has_rows: HasRows::Unknown.into(),
        window_expire_ts: last_expire_ts,
        window_at_ms: records.at_ms(),
        ..Growth::default()
    };
    records.put(key, &growth);
    info.last_expire_time = info.last_expire_time.max(last_expire_ts);
    records.put(records.keys().segment(of), &info);
    Ok(())
}
