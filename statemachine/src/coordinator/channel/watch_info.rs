//! What a data node is told with a command: where to read from and which segments it will meet.
//!
//! A data node discards replayed rows by these lists. A segment that is missing in them comes back
//! from the dead, so they are made at the moment of the write, from the records as they are then,
//! and never taken from a value that a node wrote back: those come without lists.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proto::milvus::common::SegmentState;
use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState, SegmentInfo, VchannelInfo};
use proto::milvus::msg::MsgPosition;
use proto::quorate::{ChannelRecord, SegmentRef};

use crate::coordinator::Refusal;
use crate::coordinator::keys::DataKey;
use crate::coordinator::records::Records;
use crate::coordinator::segment::{self, view::Segment};
use crate::limits::LISTED_SEGMENTS_MAX;
use crate::state::draft::Stop;
use crate::view::{Name, SegmentId};

/// Segments that the chunk changed and the views do not know yet; gathered once a command.
pub(crate) struct PendingSegments {
    /// By place; `None`: not there any more, or no record.
    changed: BTreeMap<Place, Option<Segment>>,
    /// How many the command has listed for data nodes.
    n_listed: Cell<usize>,
}

/// In the order of the view.
type Place = (i64, i64, i64);

fn place(of: SegmentRef) -> Place {
    (of.segment, of.collection, of.partition)
}

fn reference((segment, collection, partition): Place) -> SegmentRef {
    SegmentRef { collection, partition, segment }
}

impl PendingSegments {
    pub(crate) fn of(records: &Records<'_, '_>) -> PendingSegments {
        let mut changed = BTreeMap::new();
        for (key, value) in records.pending(&records.keys().all_segments()) {
            let Some(DataKey::Segment(of)) = records.keys().data_key(&key) else { continue };
            let decoded = value.and_then(|value| {
                let info = segment::decoded(of, value)?;
                let channel = Name::from(info.insert_channel.as_str());
                Segment::of(&info, channel, 0).ok()
            });
            changed.insert(place(of), decoded);
        }
        PendingSegments { changed, n_listed: Cell::new(0) }
    }

    /// Segments of a channel in any state, by ascending id, for a data node.
    ///
    /// # Errors
    /// Refused where the command has listed too many for other channels.
    fn list(
        &self,
        records: &Records<'_, '_>,
        channel: &str,
    ) -> Result<Vec<(SegmentRef, Segment)>, Refusal> {
        if self.n_listed.get() > LISTED_SEGMENTS_MAX {
            return Err(Refusal::Invalid {
                field: "channel".to_owned(),
                value: channel.to_owned(),
                reason: format!(
                    "one command lists at most {LISTED_SEGMENTS_MAX} segments: name it in another"
                ),
            });
        }
        let found: BTreeMap<Place, &Segment> = self.members(records, channel).collect();
        self.n_listed.set(self.n_listed.get() + found.len());
        let with_ref = |(place, segment): (Place, &Segment)| (reference(place), segment.clone());
        Ok(found.into_iter().map(with_ref).collect())
    }

    /// The first segments of a channel that can be dropped, by ascending id, at most `n_max`.
    pub(crate) fn droppable(
        &self,
        records: &Records<'_, '_>,
        channel: &str,
        n_max: usize,
    ) -> Vec<SegmentRef> {
        let mut first = BTreeSet::new();
        for (place, segment) in self.members(records, channel) {
            if segment::can_be_dropped(segment.state) {
                first.insert(place);
                if first.len() > n_max {
                    first.pop_last();
                }
            }
        }
        first.into_iter().map(reference).collect()
    }

    /// Whether a channel has a segment that is not dropped.
    pub(crate) fn has_undropped(&self, records: &Records<'_, '_>, channel: &str) -> bool {
        let is_undropped = |segment: &Segment| segment.state != SegmentState::Dropped;
        self.members(records, channel).any(|((id, ..), segment)| {
            is_undropped(segment) && self.last(records, channel, id).is_some_and(is_undropped)
        })
    }

    /// Segments of a channel in any state: those of the views first, then those that changed.
    fn members<'s>(
        &'s self,
        records: &'s Records<'_, '_>,
        channel: &'s str,
    ) -> impl Iterator<Item = (Place, &'s Segment)> {
        let committed = records.committed().views().segments().of_channel(channel);
        let committed = committed
            .map(|(id, segment)| (place(segment.reference(id)), segment))
            .filter(|(place, _)| !self.changed.contains_key(place));
        let changed = self.changed.iter().filter_map(|(place, row)| Some((*place, row.as_ref()?)));
        committed.chain(changed.filter(move |(_, segment)| &*segment.channel == channel))
    }

    /// The segment of an id. Of two, which only raw writes bring about, the one of the last place
    /// counts.
    fn last<'s>(
        &'s self,
        records: &'s Records<'_, '_>,
        channel: &str,
        id: i64,
    ) -> Option<&'s Segment> {
        let committed = records.committed().views().segments().with_id(SegmentId(id));
        let committed = committed
            .filter_map(|(of, segment)| Some((place(of), segment?)))
            .filter(|(place, _)| !self.changed.contains_key(place));
        let all = (id, i64::MIN, i64::MIN)..=(id, i64::MAX, i64::MAX);
        let changed = self.changed.range(all);
        let changed = changed.filter_map(|(place, row)| Some((*place, row.as_ref()?)));
        let same = committed.chain(changed).filter(|(_, segment)| &*segment.channel == channel);
        same.max_by_key(|(place, _)| *place).map(|(_, segment)| segment)
    }
}

/// Writes a command into the key of the channel's owner.
///
/// # Errors
/// A record that it needs does not decode, or the command has listed too many segments.
pub(super) fn put_command(
    records: &mut Records<'_, '_>,
    pending: &PendingSegments,
    channel: &str,
    record: &ChannelRecord,
    command: ChannelWatchState,
) -> Result<(), Stop> {
    let info = ChannelWatchInfo {
        vchan: Some(vchannel_info(records, pending, channel, record)?),
        start_ts: i64::try_from(records.at_ms() / 1000).unwrap_or(i64::MAX),
        state: command.into(),
        schema: record.schema.clone(),
        ..ChannelWatchInfo::default()
    };
    records.put(records.keys().channel_watch(record.node, channel), &info);
    Ok(())
}

fn vchannel_info(
    records: &Records<'_, '_>,
    pending: &PendingSegments,
    channel: &str,
    record: &ChannelRecord,
) -> Result<VchannelInfo, Stop> {
    let segments = pending.list(records, channel)?;
    let mut info = VchannelInfo {
        collection_id: record.collection,
        channel_name: channel.to_owned(),
        seek_position: seek_position(records, &segments, channel, record)?,
        ..VchannelInfo::default()
    };
    for (SegmentRef { segment: id, .. }, segment) in &segments {
        // Those without a position were never seen by a data node: it learns of them from the rows.
        let is_known = segment.start_ts.is_some() || segment.dml_ts.is_some();
        if segment.is_fake || segment.is_importing || !is_known {
            continue;
        }
        match segment.state {
            SegmentState::Dropped => info.dropped_segment_ids.push(*id),
            SegmentState::Flushed | SegmentState::Flushing => info.flushed_segment_ids.push(*id),
            SegmentState::Growing | SegmentState::Sealed => info.unflushed_segment_ids.push(*id),
            SegmentState::None | SegmentState::NotExist | SegmentState::Importing => {}
        }
    }
    Ok(info)
}

/// The checkpoint; else where the oldest unwritten rows of a segment may begin; else where the
/// collection begins.
fn seek_position(
    records: &Records<'_, '_>,
    segments: &[(SegmentRef, Segment)],
    channel: &str,
    record: &ChannelRecord,
) -> Result<Option<MsgPosition>, Stop> {
    let named =
        |position: MsgPosition| MsgPosition { channel_name: channel.to_owned(), ..position };
    if let Some(checkpoint) = records.get::<MsgPosition>(&records.keys().checkpoint(channel))? {
        return Ok(Some(named(checkpoint)));
    }
    let earliest = segments
        .iter()
        .filter(|(_, segment)| segment.state != SegmentState::Dropped && !segment.is_importing)
        .filter_map(|(of, segment)| Some((segment.dml_ts.or(segment.start_ts)?, of)))
        .min_by_key(|(timestamp, of)| (*timestamp, of.segment));
    if let Some((_, of)) = earliest
        && let Some(info) = records.get::<SegmentInfo>(&records.keys().segment(*of))?
    {
        return Ok(info.dml_position.or(info.start_position));
    }
    Ok(beginning(channel, record))
}

/// Where the channel begins: where its physical channel was when the collection was created.
pub(super) fn beginning(channel: &str, record: &ChannelRecord) -> Option<MsgPosition> {
    let physical = physical_channel(channel);
    let start = record.start_positions.iter().find(|start| start.key == physical)?;
    Some(MsgPosition {
        channel_name: channel.to_owned(),
        msg_id: start.data.clone(),
        timestamp: record.create_ts,
        ..MsgPosition::default()
    })
}

/// The name before the last underscore.
pub(super) fn physical_channel(channel: &str) -> &str {
    channel.rsplit_once('_').map_or(channel, |(physical, _)| physical)
}
