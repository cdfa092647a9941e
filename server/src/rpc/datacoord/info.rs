//! What other components load and show: segments, recovery, statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::milvus::common::SegmentState;
use proto::milvus::{common, data, internal, msg};
use raft::View;
use statemachine::Views;
use statemachine::coordinator::segment::view::{Segment, Segments};
use statemachine::view::{CollectionId, Name, PartitionId, SegmentId};

use crate::coordinator::{Failure, Lead, records, recovery};
use crate::tasks;

/// Segments whose records are read without leaving the thread.
const INLINE_SEGMENTS_MAX: usize = 8;
/// Channels are read under one lock until so many segments have been looked at.
const LOCKED_SEGMENTS_MAX: usize = 1000;

pub(super) async fn get_segment_info(
    lead: &Arc<Lead>,
    request: data::GetSegmentInfoRequest,
) -> Result<data::GetSegmentInfoResponse, Failure> {
    let view = lead.view().await?;
    let n_segments = request.segment_i_ds.len();
    off_thread(lead, n_segments, move |lead| segment_info(lead, &view, &request)).await
}

fn segment_info(
    lead: &Lead,
    view: &View,
    request: &data::GetSegmentInfoRequest,
) -> Result<data::GetSegmentInfoResponse, Failure> {
    let asked: Vec<SegmentId> = request.segment_i_ds.iter().map(|id| SegmentId(*id)).collect();
    // All of one moment: deletes up to the checkpoint that goes with them must not be missing.
    let (found, image) = view.pin(|state| {
        let segments = state.views().segments();
        // Each with the results that took it in, the newest last.
        let chains: Vec<Vec<SegmentId>> =
            asked.iter().map(|id| chain(segments, *id, request.include_un_healthy)).collect();
        let all: BTreeSet<SegmentId> = chains.iter().flatten().copied().collect();
        let all: Vec<SegmentId> = all.into_iter().collect();
        let channels: BTreeSet<&Name> =
            asked.iter().filter_map(|id| Some(&segments.get(*id)?.channel)).collect();
        let assignments = state.views().assignments();
        let checkpoints: Vec<msg::MsgPosition> = channels
            .into_iter()
            .filter_map(|channel| Some(assignments.checkpoint(channel)?.position.clone()))
            .collect();
        (chains, records::places(state, &all), checkpoints)
    });
    let (chains, places, checkpoints) = found;
    let read = records::fetch_segments(&image, lead.settings(), &places)?;
    let read: BTreeMap<i64, data::SegmentInfo> =
        read.into_iter().map(|info| (info.id, info)).collect();
    let mut answer = data::GetSegmentInfoResponse::default();
    for chain in chains {
        let Some((id, results)) = chain.split_first() else { continue };
        let not_found = || Failure::segment_not_found(id.0);
        let mut info = read.get(&id.0).cloned().ok_or_else(not_found)?;
        if !request.include_un_healthy && !is_healthy(info.state()) {
            return Err(not_found());
        }
        if let Some(rows) = records::rows_of_logs(&info) {
            info.num_of_rows = rows;
        }
        // Deletes that came after the compaction went to its result.
        for result in results.iter().filter_map(|result| read.get(&result.0)) {
            info.deltalogs.extend(result.deltalogs.iter().cloned());
            info.dml_position.clone_from(&result.dml_position);
        }
        answer.infos.push(info);
    }
    let named = |position: msg::MsgPosition| (position.channel_name.clone(), position);
    answer.channel_checkpoint = checkpoints.into_iter().map(named).collect();
    Ok(answer)
}

/// A segment, the result of its compaction, the result of that one's, and so on.
fn chain(segments: &Segments, id: SegmentId, with_results: bool) -> Vec<SegmentId> {
    let mut chain = vec![id];
    let mut last = id;
    while with_results
        && let Some(child) = segments.child_of(last)
        && !chain.contains(&child)
    {
        chain.push(child);
        last = child;
    }
    chain
}

fn is_healthy(state: SegmentState) -> bool {
    !matches!(state, SegmentState::None | SegmentState::NotExist | SegmentState::Dropped)
}

/// Reads that take long leave the threads that serve calls.
pub(super) async fn off_thread<T: Send + 'static>(
    lead: &Arc<Lead>,
    n_segments: usize,
    read: impl FnOnce(&Lead) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if n_segments <= INLINE_SEGMENTS_MAX {
        return read(lead);
    }
    let lead = Arc::clone(lead);
    let read = tasks::spawn_blocking(move || read(&lead)).await;
    read.map_err(|error| Failure::Unavailable(format!("the read ended early: {error}")))?
}

pub(super) async fn get_segment_states(
    lead: &Arc<Lead>,
    request: data::GetSegmentStatesRequest,
) -> Result<data::GetSegmentStatesResponse, Failure> {
    let view = lead.view().await?;
    let mut answer = data::GetSegmentStatesResponse::default();
    for id in request.segment_i_ds {
        let found = view.read(|state| {
            let segment = state.views().segments().healthy(SegmentId(id))?;
            Some((segment.state, segment.start_ts.map(|_| segment.reference(SegmentId(id)))))
        });
        let mut state = data::SegmentStateInfo { segment_id: id, ..Default::default() };
        match found {
            None => state.set_state(SegmentState::NotExist),
            Some((known, with_start)) => {
                state.set_state(known);
                if let Some(of) = with_start {
                    let info: Option<data::SegmentInfo> =
                        records::record(&view, |keys| keys.segment(of))?;
                    state.start_position = info.and_then(|info| info.start_position);
                }
            }
        }
        answer.states.push(state);
    }
    Ok(answer)
}

pub(super) async fn get_insert_binlog_paths(
    lead: &Arc<Lead>,
    request: data::GetInsertBinlogPathsRequest,
) -> Result<data::GetInsertBinlogPathsResponse, Failure> {
    let view = lead.view().await?;
    let id = request.segment_id;
    let info = records::segments(&view, lead.settings(), &[SegmentId(id)])?.pop();
    let info = info.ok_or_else(|| Failure::segment_not_found(id))?;
    let mut answer = data::GetInsertBinlogPathsResponse::default();
    for logs in info.binlogs {
        answer.field_i_ds.push(logs.field_id);
        let values = logs.binlogs.into_iter().map(|log| log.log_path).collect();
        answer.paths.push(internal::StringList { values, ..Default::default() });
    }
    Ok(answer)
}

pub(super) async fn get_collection_statistics(
    lead: &Arc<Lead>,
    request: data::GetCollectionStatisticsRequest,
) -> Result<data::GetCollectionStatisticsResponse, Failure> {
    let view = lead.view().await?;
    let stats = row_count(&view, request.collection_id, &BTreeSet::new());
    Ok(data::GetCollectionStatisticsResponse { stats, ..Default::default() })
}

pub(super) async fn get_partition_statistics(
    lead: &Arc<Lead>,
    request: data::GetPartitionStatisticsRequest,
) -> Result<data::GetPartitionStatisticsResponse, Failure> {
    let view = lead.view().await?;
    let partitions = request.partition_i_ds.into_iter().map(PartitionId).collect();
    let stats = row_count(&view, request.collection_id, &partitions);
    Ok(data::GetPartitionStatisticsResponse { stats, ..Default::default() })
}

/// Rows of the collection's segments; of all partitions where none is named.
fn row_count(
    view: &View,
    collection: i64,
    partitions: &BTreeSet<PartitionId>,
) -> Vec<common::KeyValuePair> {
    let rows: i64 = view.read(|state| {
        let segments = state.views().segments().of_collection(CollectionId(collection));
        segments
            .filter(|(_, segment)| segment.is_healthy())
            .filter(|(_, segment)| partitions.is_empty() || partitions.contains(&segment.partition))
            .map(|(_, segment)| segment.rows)
            .sum()
    });
    vec![common::KeyValuePair { key: "row_count".to_owned(), value: rows.to_string() }]
}

pub(super) async fn get_recovery_info(
    lead: &Arc<Lead>,
    request: data::GetRecoveryInfoRequest,
) -> Result<data::GetRecoveryInfoResponse, Failure> {
    let view = lead.view().await?;
    let partitions = filter(&[request.partition_id]);
    let collection = request.collection_id;
    if !view.read(|state| is_known(state.views(), CollectionId(collection))) {
        return Err(Failure::collection_not_found(collection));
    }
    off_thread(lead, usize::MAX, move |lead| {
        let (channels, flushed) = recover(lead, &view, collection, &partitions)?;
        let flushed: Vec<SegmentId> = flushed.into_iter().collect();
        let mut binlogs = Vec::with_capacity(flushed.len());
        for info in records::segments(&view, lead.settings(), &flushed)? {
            if info.binlogs.is_empty() {
                continue;
            }
            let num_of_rows = records::rows_of_logs(&info).unwrap_or(info.num_of_rows);
            binlogs.push(data::SegmentBinlogs {
                segment_id: info.id,
                field_binlogs: info.binlogs,
                num_of_rows,
                statslogs: info.statslogs,
                deltalogs: info.deltalogs,
                insert_channel: info.insert_channel,
            });
        }
        Ok(data::GetRecoveryInfoResponse { channels, binlogs, ..Default::default() })
    })
    .await
}

pub(super) async fn get_recovery_info_v2(
    lead: &Arc<Lead>,
    request: data::GetRecoveryInfoRequestV2,
) -> Result<data::GetRecoveryInfoResponseV2, Failure> {
    let view = lead.view().await?;
    let partitions = filter(&request.partition_i_ds);
    let (channels, flushed) = recover(lead, &view, request.collection_id, &partitions)?;
    let load = |id: &SegmentId| view.read(|state| loadable(state.views(), *id));
    let segments = flushed.iter().filter_map(load).collect();
    Ok(data::GetRecoveryInfoResponseV2 { channels, segments, ..Default::default() })
}

fn is_known(views: &Views, collection: CollectionId) -> bool {
    views.catalog().collection(collection).is_some()
        || views.assignments().of_collection(collection).next().is_some()
}

/// Milvus fills lists of partitions with zeros, and writes -1 for all.
fn filter(partitions: &[i64]) -> BTreeSet<PartitionId> {
    partitions.iter().filter(|id| **id > 0).map(|id| PartitionId(*id)).collect()
}

/// What is to be known of a segment that is to be loaded.
fn loadable(views: &Views, id: SegmentId) -> Option<data::SegmentInfo> {
    let segment = views.segments().get(id)?;
    let logs = views.segments().logs(id)?;
    let is_written = segment.is_flushed() || segment.state == SegmentState::Dropped;
    let has_rows = logs.of_kind(statemachine::coordinator::keys::LogKind::Insert).next().is_some();
    if !is_written || segment.is_importing || !has_rows {
        return None;
    }
    let rows = logs.rows();
    Some(data::SegmentInfo {
        id: id.0,
        collection_id: segment.collection.0,
        partition_id: segment.partition.0,
        insert_channel: segment.channel.to_string(),
        num_of_rows: if rows > 0 { rows } else { segment.rows },
        ..data::SegmentInfo::default()
    })
}

/// All channels of a collection, those that wait for a data node too: a query node that is told of
/// some only would lose the others. With them, all segments to load.
fn recover(
    lead: &Lead,
    view: &View,
    collection: i64,
    partitions: &BTreeSet<PartitionId>,
) -> Result<(Vec<data::VchannelInfo>, BTreeSet<SegmentId>), Failure> {
    let index_min_rows = lead.settings().index_min_rows;
    let names: Vec<Name> = view.read(|state| {
        let assignments = state.views().assignments();
        let all = assignments.of_collection(CollectionId(collection)).map(|(name, _)| name);
        all.filter(|name| assignments.removal(name) != Some(true)).cloned().collect()
    });
    let (mut channels, mut flushed) = (Vec::with_capacity(names.len()), BTreeSet::new());
    let numbers = |ids: &BTreeSet<SegmentId>| ids.iter().map(|id| id.0).collect();
    let mut names = names.into_iter();
    // A few at a time, for the lock that it takes; each at one moment: compactions keep within a
    // channel.
    while names.len() > 0 {
        let (found, image) = view.pin(|state| {
            let mut found = Vec::with_capacity(names.len());
            let mut n_segments = 0;
            while n_segments < LOCKED_SEGMENTS_MAX
                && let Some(channel) = names.next()
            {
                let lists = recovery::lists(state.views(), &channel, partitions, index_min_rows);
                n_segments += lists.n_looked_at;
                let seek = recovery::seek(state, &channel, partitions);
                found.push((channel, lists, seek));
            }
            found
        });
        for (channel, lists, seek) in found {
            channels.push(data::VchannelInfo {
                collection_id: collection,
                channel_name: channel.to_string(),
                seek_position: recovery::fetch(&image, seek)?,
                unflushed_segment_ids: numbers(&lists.unflushed),
                flushed_segment_ids: numbers(&lists.flushed),
                dropped_segment_ids: numbers(&lists.dropped),
                ..data::VchannelInfo::default()
            });
            flushed.extend(lists.flushed);
        }
    }
    Ok((channels, flushed))
}

pub(super) async fn get_flushed_segments(
    lead: &Arc<Lead>,
    request: data::GetFlushedSegmentsRequest,
) -> Result<data::GetFlushedSegmentsResponse, Failure> {
    let view = lead.view().await?;
    let segments = pick(&view, request.collection_id, request.partition_id, |segment| {
        segment.is_flushed()
            || (request.include_unhealthy && segment.state == SegmentState::Dropped)
    });
    Ok(data::GetFlushedSegmentsResponse { segments, ..Default::default() })
}

pub(super) async fn get_segments_by_states(
    lead: &Arc<Lead>,
    request: data::GetSegmentsByStatesRequest,
) -> Result<data::GetSegmentsByStatesResponse, Failure> {
    let view = lead.view().await?;
    let segments = pick(&view, request.collection_id, request.partition_id, |segment| {
        segment.is_healthy() && request.states.contains(&segment.state.into())
    });
    Ok(data::GetSegmentsByStatesResponse { segments, ..Default::default() })
}

/// Ids of a collection's segments; a negative partition stands for all.
fn pick(
    view: &View,
    collection: i64,
    partition: i64,
    wants: impl Fn(&Segment) -> bool,
) -> Vec<i64> {
    view.read(|state| {
        let segments = state.views().segments().of_collection(CollectionId(collection));
        segments
            .filter(|(_, segment)| partition < 0 || segment.partition.0 == partition)
            .filter(|(_, segment)| wants(segment))
            .map(|(id, _)| id.0)
            .collect()
    })
}
