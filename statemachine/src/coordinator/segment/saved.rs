//! What a data node wrote: logs, rows and positions change together or not at all. A record whose
//! position ran ahead of its logs would make a replay skip rows; one behind would double them.

use proto::milvus::common::SegmentState;
use proto::milvus::data::SegmentInfo;
use proto::quorate::{ChannelRecord, Growth, HasRows, SaveBinlogs, SegmentRef, StartPosition};

use super::lifecycle::{Step, advance};
use super::logs::{self, merge_logs};
use super::record;
use super::removal::drop_results;
use crate::coordinator::Refusal;
use crate::coordinator::keys::LogKind;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(super) fn save(records: &mut Records<'_, '_>, command: SaveBinlogs) -> Result<Outcomes, Stop> {
    let of = command.segment.unwrap_or_default();
    if !command.importing && !command.channel.is_empty() {
        check_owner(records, &command.channel, command.node)?;
    }
    let info = record(records, of)?;
    let mut outcomes = Outcomes::default();
    match super::state_of(&info) {
        // Its partition is dropped, and its data node has not been told of the result.
        SegmentState::Dropped if info.compacted && command.dropped => {
            return drop_results(records, of, command.dropped_at_ns);
        }
        // Deletes that were on their way when a compaction took the segment in belong to its result.
        SegmentState::Dropped if info.compacted && !command.deltalogs.is_empty() => {
            let state = i64::from(i32::from(SegmentState::Dropped));
            return Err(Refusal::SegmentState { segment: of.segment, state }.into());
        }
        // Whoever drops a segment has no use for what is still written of it.
        SegmentState::Dropped => return Ok(outcomes),
        SegmentState::None | SegmentState::NotExist => {
            return Err(Refusal::UnknownSegment { segment: of.segment }.into());
        }
        SegmentState::Growing
        | SegmentState::Sealed
        | SegmentState::Flushed
        | SegmentState::Flushing
        | SegmentState::Importing => {}
    }
    if !command.channel.is_empty() && command.channel != info.insert_channel {
        let channel = command.channel;
        return Err(Refusal::OtherChannel { segment: of.segment, channel }.into());
    }
    take_in(records, of, info, command)?;
    outcomes.changed(of.segment);
    Ok(outcomes)
}

/// # Errors
/// The channel is not this node's: somebody else consumes it now, or nobody.
pub(super) fn check_owner(records: &Records<'_, '_>, channel: &str, node: i64) -> Result<(), Stop> {
    let owner = records.get::<ChannelRecord>(&records.keys().channel(channel))?;
    match owner {
        Some(record) if record.node == node => Ok(()),
        Some(_) | None => Err(Refusal::NotOwner { node, channel: channel.to_owned() }.into()),
    }
}

fn take_in(
    records: &mut Records<'_, '_>,
    of: SegmentRef,
    mut info: SegmentInfo,
    command: SaveBinlogs,
) -> Result<(), Stop> {
    // Drop of a partition sends both flags; the drop wins.
    advance(
        &mut info,
        match (command.dropped, command.flushed) {
            (true, _) => Step::Drop,
            (false, true) => Step::Flush,
            (false, false) => Step::Save,
        },
    )?;
    if command.dropped {
        info.dropped_at = command.dropped_at_ns;
    }
    merge_logs(records, of, LogKind::Insert, command.binlogs)?;
    merge_logs(records, of, LogKind::Stats, command.statslogs)?;
    merge_logs(records, of, LogKind::Delta, command.deltalogs)?;
    if let Some(position) = command.checkpoint
        && !command.importing
        && info.dml_position.as_ref().is_none_or(|known| known.timestamp < position.timestamp)
    {
        info.dml_position = Some(position);
        info.num_of_rows = command.checkpoint_rows;
    }
    let logged_rows = logs::rows(records, of)?;
    if logged_rows > 0 {
        info.num_of_rows = logged_rows;
    }
    for start in command.start_positions {
        set_start(records, &mut info, start)?;
    }
    settle_growth(records, &info)?;
    records.put(records.keys().segment(of), &info);
    Ok(())
}

/// First rows are reported with whatever segment of the channel is written next.
fn set_start(
    records: &mut Records<'_, '_>,
    info: &mut SegmentInfo,
    start: StartPosition,
) -> Result<(), Stop> {
    let (Some(of), Some(position)) = (start.segment, start.position) else { return Ok(()) };
    if position.msg_id.is_empty() {
        return Ok(());
    }
    if of.segment == info.id {
        info.start_position = Some(position);
        return Ok(());
    }
    let key = records.keys().segment(of);
    let Some(mut other) = records.get::<SegmentInfo>(&key)? else { return Ok(()) };
    let is_dropped = super::state_of(&other) == SegmentState::Dropped;
    if !is_dropped && other.insert_channel == info.insert_channel {
        other.start_position = Some(position);
        records.put(key, &other);
    }
    Ok(())
}

fn settle_growth(records: &mut Records<'_, '_>, info: &SegmentInfo) -> Result<(), Stop> {
    let key = records.keys().growth(info.id);
    match super::state_of(info) {
        SegmentState::Growing | SegmentState::Sealed | SegmentState::Importing => {
            if info.num_of_rows == 0 {
                return Ok(());
            }
            let Some(growth) = records.get::<Growth>(&key)? else { return Ok(()) };
            if growth.has_rows() != HasRows::Yes {
                records.put(key, &Growth { has_rows: HasRows::Yes.into(), ..growth });
            }
        }
        SegmentState::None
        | SegmentState::NotExist
        | SegmentState::Flushed
        | SegmentState::Flushing
        | SegmentState::Dropped => records.delete(key),
    }
    Ok(())
}
