//! The way of rows into segments: assignment, ticks, saved logs, checkpoints.

mod saved;

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::milvus::common::SegmentState;
use proto::milvus::{common, data, msg};
use proto::quorate::segment_command::Kind;
use proto::quorate::{ChannelCheckpoint, DropChannel, NoteRows, SaveCheckpoints, SegmentRef};
use statemachine::Views;
use statemachine::channel::ChannelState;
use statemachine::coordinator::Refusal;
use statemachine::coordinator::channel::view::Assignment;
use statemachine::coordinator::segment::view::Segments;
use statemachine::view::{CollectionId, PartitionId, SegmentId};

use crate::coordinator::assign::{self, LotKey, Slice};
use crate::coordinator::failure::{status_of, success};
use crate::coordinator::observed::Tick;
use crate::coordinator::{Code, Failure, Lead, deltas};

/// Rows in one request for one channel; more is a mistake.
const ROWS_MAX: u32 = 1 << 30;

pub(super) async fn assign_segment_id(
    lead: &Arc<Lead>,
    request: data::AssignSegmentIdRequest,
) -> Result<data::AssignSegmentIdResponse, Failure> {
    let mut seg_id_assignments = Vec::new();
    for wanted in request.segment_id_requests {
        match assign_one(lead, &wanted).await {
            Ok(slices) => {
                seg_id_assignments
                    .extend(slices.into_iter().map(|slice| assignment(&wanted, slice)));
            }
            Err(Failure::Refused { code, reason }) => {
                tracing::warn!(
                    collection = wanted.collection_id,
                    channel = wanted.channel_name,
                    reason,
                    "no segment is assigned"
                );
                seg_id_assignments.push(data::SegmentIdAssignment {
                    channel_name: wanted.channel_name,
                    collection_id: wanted.collection_id,
                    partition_id: wanted.partition_id,
                    status: Some(status_of(code, reason)),
                    ..Default::default()
                });
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(data::AssignSegmentIdResponse { seg_id_assignments, status: None })
}

async fn assign_one(
    lead: &Arc<Lead>,
    wanted: &data::SegmentIdRequest,
) -> Result<Vec<Slice>, Failure> {
    if wanted.count == 0 || wanted.count > ROWS_MAX {
        return Err(Failure::refused(
            Code::InvalidParameter,
            format!("count = {}: a request is for 1 to {ROWS_MAX} rows", wanted.count),
        ));
    }
    let key = LotKey {
        collection: CollectionId(wanted.collection_id),
        partition: PartitionId(wanted.partition_id),
        channel: wanted.channel_name.clone(),
    };
    if wanted.is_import {
        return Ok(vec![assign::assign_import(lead, &key).await?]);
    }
    assign::assign(lead, &key, i64::from(wanted.count)).await
}

fn assignment(wanted: &data::SegmentIdRequest, slice: Slice) -> data::SegmentIdAssignment {
    let count = if wanted.is_import { i64::from(wanted.count) } else { slice.rows };
    data::SegmentIdAssignment {
        seg_id: slice.segment.0,
        channel_name: wanted.channel_name.clone(),
        count: u32::try_from(count).unwrap_or(u32::MAX),
        collection_id: wanted.collection_id,
        partition_id: wanted.partition_id,
        expire_time: slice.expire_ts,
        status: Some(success()),
    }
}

/// A data node says each row count only once: its report is answered after the first rows of a
/// segment are on record, because whoever leads next must know that they exist.
pub(super) async fn report_data_node_tt_msgs(
    lead: &Arc<Lead>,
    request: data::ReportDataNodeTtMsgsRequest,
) -> Result<common::Status, Failure> {
    // A deposed leader would take the report for one on segments that it does not know.
    let view = lead.view().await?;
    let mut first_rows = Vec::new();
    let reports: Vec<_> = view.read(|state| {
        let views = state.views();
        let owned = request.msgs.into_iter().filter_map(|msg| {
            let node = msg.base.as_ref().map_or(0, |base| base.source_id);
            let known = views.assignments().get(&msg.channel_name)?;
            (known.node.0 == node).then(|| (tick(views, known, &msg), msg))
        });
        owned
            .inspect(|(_, msg)| {
                for stats in &msg.segments_stats {
                    first_rows.extend(without_rows(views.segments(), stats));
                }
            })
            .collect()
    });
    if !first_rows.is_empty() {
        lead.propose_segment(Kind::NoteRows(NoteRows { segments: first_rows })).await?;
    }
    for (tick, msg) in reports {
        if let Some(tick) = tick {
            lead.observed.note_tick(&msg.channel_name, tick);
        }
        for stats in &msg.segments_stats {
            let segment = SegmentId(stats.segment_id);
            lead.observed.note_rows(&msg.channel_name, segment, stats.num_rows);
        }
    }
    lead.observed.ticked.notify_one();
    Ok(success())
}

/// How far the channel's owner has consumed it; `None` where it does not consume it yet: what comes then
/// was sent before it let go of the channel.
fn tick(views: &Views, assignment: &Assignment, msg: &msg::DataNodeTtMsg) -> Option<Tick> {
    let key = views.channels().get(assignment.node, &msg.channel_name)?;
    let is_consumed = match key.state {
        ChannelState::WatchSuccess | ChannelState::ToRelease => true,
        ChannelState::ToWatch
        | ChannelState::WatchFailure
        | ChannelState::ReleaseSuccess
        | ChannelState::ReleaseFailure => false,
    };
    let tick = Tick { ts: msg.timestamp, node: assignment.node, epoch: assignment.epoch };
    is_consumed.then_some(tick)
}

/// The segment, where the report is the first to say that it has rows.
fn without_rows(segments: &Segments, stats: &common::SegmentStats) -> Option<SegmentRef> {
    let id = SegmentId(stats.segment_id);
    let segment = segments.get(id).filter(|segment| segment.is_open())?;
    let growth = segments.growth(id)?;
    let is_news = stats.num_rows > 0 && growth.has_rows != proto::quorate::HasRows::Yes;
    is_news.then(|| segment.reference(id))
}

pub(super) async fn save_binlog_paths(
    lead: &Arc<Lead>,
    request: data::SaveBinlogPathsRequest,
) -> Result<common::Status, Failure> {
    let segment = SegmentId(request.segment_id);
    let is_final = request.flushed || request.dropped;
    let command = saved::command(lead, request).await?;
    deltas::save(lead, command).await?;
    if is_final {
        forget(lead, segment);
    }
    Ok(success())
}

/// Nothing is handed out of the segment any more.
fn forget(lead: &Lead, segment: SegmentId) {
    let known = lead.local().read(|state| state.views().segments().get(segment).cloned());
    if let Some(known) = known {
        lead.observed.assigner.forget(segment, &known);
    }
    lead.observed.forget(segment);
}

pub(super) async fn update_channel_checkpoint(
    lead: &Arc<Lead>,
    request: data::UpdateChannelCheckpointRequest,
) -> Result<common::Status, Failure> {
    let node = request.base.as_ref().map_or(0, |base| base.source_id);
    let mut checkpoints: BTreeMap<String, _> = BTreeMap::new();
    // Newer data nodes send many at once.
    for position in request.channel_checkpoints {
        checkpoints.insert(position.channel_name.clone(), position);
    }
    if checkpoints.is_empty() {
        let position = request.position.unwrap_or_default();
        checkpoints.insert(request.v_channel, position);
    }
    let nameless = checkpoints.iter().find(|(_, position)| position.msg_id.is_empty());
    if let Some((channel, _)) = nameless {
        return Err(Failure::refused(
            Code::Unexpected,
            format!("checkpoint of channel {channel} has no msgID"),
        ));
    }
    let checkpoints = checkpoints
        .into_iter()
        .map(|(channel, position)| ChannelCheckpoint { channel, position: Some(position) })
        .collect();
    let command = SaveCheckpoints { checkpoints, node };
    let outcome = lead.propose_segment(Kind::SaveCheckpoints(command)).await?;
    // The others are saved. The data node reports all of them again with its next tick.
    match outcome.refused.first() {
        None => Ok(success()),
        Some(item) => Err(Refusal::of_item(item)
            .map_or_else(|| Failure::Unavailable("an unknown refusal".to_owned()), Failure::from)),
    }
}

pub(super) async fn drop_virtual_channel(
    lead: &Arc<Lead>,
    request: data::DropVirtualChannelRequest,
) -> Result<data::DropVirtualChannelResponse, Failure> {
    let node = request.base.as_ref().map_or(0, |base| base.source_id);
    let channel = request.channel_name;
    let mut segments = Vec::new();
    for dropped in request.segments {
        segments.extend(saved::of_dropped(lead, &channel, dropped)?);
    }
    // A channel may have a hundred thousand segments: they go in pieces, and its data node asks
    // again where this ends in between.
    loop {
        let saved = std::mem::take(&mut segments);
        let command = DropChannel { channel: channel.clone(), node, segments: saved };
        let outcome = lead.propose_segment(Kind::DropChannel(command)).await?;
        if outcome.changed_names.contains(&channel) {
            break;
        }
    }
    lead.observed.forget_channel(&channel);
    Ok(data::DropVirtualChannelResponse::default())
}

/// Importing data nodes report rows so.
pub(super) async fn update_segment_statistics(
    lead: &Arc<Lead>,
    request: data::UpdateSegmentStatisticsRequest,
) -> Result<common::Status, Failure> {
    let view = lead.view().await?;
    for stats in request.stats {
        let id = SegmentId(stats.segment_id);
        let channel = view.read(|state| {
            state.views().segments().get(id).map(|segment| segment.channel.to_string())
        });
        if let Some(channel) = channel {
            lead.observed.note_rows(&channel, id, stats.num_rows);
        }
    }
    Ok(success())
}

/// A tool of stock that moves segments past the rules of their lifecycle. Ours stay as they are.
pub(super) async fn set_segment_state(
    lead: &Arc<Lead>,
    request: data::SetSegmentStateRequest,
) -> Result<data::SetSegmentStateResponse, Failure> {
    let view = lead.view().await?;
    let id = SegmentId(request.segment_id);
    let is_known = view.read(|state| state.views().segments().get(id).is_some());
    // What is not there is as good as dropped.
    if !is_known && request.new_state == i32::from(SegmentState::Dropped) {
        return Ok(data::SetSegmentStateResponse::default());
    }
    Err(Failure::refused(
        Code::Unexpected,
        format!(
            "segment {id} stays as it is: states follow from what happens to a segment; open raw \
             writes to repair a record"
        ),
    ))
}

/// No component of Milvus drops segments so. Those that are not known are passed over.
pub(super) async fn mark_segments_dropped(
    lead: &Arc<Lead>,
    request: data::MarkSegmentsDroppedRequest,
) -> Result<common::Status, Failure> {
    let view = lead.view().await?;
    let known = view.read(|state| {
        let segments = state.views().segments();
        request.segment_ids.into_iter().find(|id| segments.healthy(SegmentId(*id)).is_some())
    });
    match known {
        None => Ok(success()),
        Some(segment) => Err(Failure::refused(
            Code::InvalidParameter,
            format!("segment {segment} stays: segments are dropped by what happens to them"),
        )),
    }
}
