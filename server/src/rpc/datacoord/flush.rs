//! Flush, and whether it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proto::milvus::common::SegmentState;
use proto::milvus::{data, milvus};
use raft::View;
use statemachine::State;
use statemachine::catalog::Lifecycle;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::{CollectionId, DatabaseId, SegmentId, ServerId};
use tokio::time::Instant;

use crate::coordinator::clients::CallError;
use crate::coordinator::flush_channels::flush_channels;
use crate::coordinator::seal::{self, SealReason};
use crate::coordinator::{Code, Failure, Lead, tso};
use crate::tasks;

/// How long the data nodes of a collection may take to accept a flush.
const FLUSH_CHANNELS_TIMEOUT: Duration = Duration::from_secs(180);
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(3);

pub(super) async fn flush(
    lead: &Arc<Lead>,
    request: data::FlushRequest,
) -> Result<data::FlushResponse, Failure> {
    let collection = CollectionId(request.collection_id);
    // After the request arrived: a timestamp below an acknowledged insert would make flush lie.
    let flush_ts = lead.tso.fresh().await?;
    let view = lead.view().await?;
    let candidates = candidates(&view, collection, &request.segment_i_ds, request.is_import);
    let reason = if request.is_import { SealReason::Import } else { SealReason::Flush };
    let sealed = seal::seal(lead, candidates, reason).await?;
    let told: BTreeSet<i64> = sealed.iter().copied().collect();
    let flushed = lead.local().read(|state| {
        let segments = state.views().segments().of_collection(collection);
        segments
            .filter(|(id, segment)| segment.is_flushed() && !told.contains(&id.0))
            .map(|(id, _)| id.0)
            .collect()
    });
    let flushed_until = tell_data_nodes(lead, collection, flush_ts).await?;
    Ok(data::FlushResponse {
        status: None,
        db_id: request.db_id,
        collection_id: request.collection_id,
        segment_i_ds: sealed,
        flush_segment_i_ds: flushed,
        time_of_seal: i64::try_from(tso::physical_ms(flush_ts) / 1000).unwrap_or(i64::MAX),
        // Without a timestamp a client waits for the segments alone.
        flush_ts: match flushed_until {
            FlushedUntil::Timestamp => flush_ts,
            FlushedUntil::Nothing => 0,
        },
    })
}

/// What a flush seals: all that may still get rows, or those that are named.
fn candidates(
    view: &View,
    collection: CollectionId,
    named: &[i64],
    is_import: bool,
) -> Vec<(SegmentId, Segment)> {
    let is_candidate = |segment: &Segment| match segment.state {
        SegmentState::Growing => !is_import,
        SegmentState::Sealed => true,
        SegmentState::Importing => is_import,
        SegmentState::None
        | SegmentState::NotExist
        | SegmentState::Flushed
        | SegmentState::Flushing
        | SegmentState::Dropped => false,
    };
    view.read(|state| {
        let segments = state.views().segments();
        let all: Vec<_> = if named.is_empty() && !is_import {
            let channels = state.views().assignments().of_collection(collection);
            channels.flat_map(|(channel, _)| segments.open_of_channel(channel)).collect()
        } else {
            let ids = named.iter().map(|id| SegmentId(*id));
            ids.filter_map(|id| Some((id, segments.get(id)?))).collect()
        };
        all.into_iter()
            .filter(|(_, segment)| segment.collection == collection && is_candidate(segment))
            .map(|(id, segment)| (id, segment.clone()))
            .collect()
    })
}

/// What the data nodes of a collection were asked to write.
enum FlushedUntil {
    Timestamp,
    /// One of them is of 2.2 and flushes segments only.
    Nothing,
}

/// Has the collection's data nodes write all that is older than the timestamp.
async fn tell_data_nodes(
    lead: &Arc<Lead>,
    collection: CollectionId,
    flush_ts: u64,
) -> Result<FlushedUntil, Failure> {
    let deadline = Instant::now() + FLUSH_CHANNELS_TIMEOUT;
    let mut pause = PAUSE_FIRST;
    let mut done: BTreeMap<String, ServerId> = BTreeMap::new();
    loop {
        let mut by_node: BTreeMap<ServerId, Vec<String>> = BTreeMap::new();
        lead.local().read(|state| {
            for (channel, assignment) in state.views().assignments().of_collection(collection) {
                let channel = channel.to_string();
                let is_assigned = assignment.node != ServerId::NOBODY;
                if is_assigned && done.get(&channel) != Some(&assignment.node) {
                    by_node.entry(assignment.node).or_default().push(channel);
                }
            }
        });
        if by_node.is_empty() {
            return Ok(FlushedUntil::Timestamp);
        }
        let mut failure = None;
        for (node, channels) in by_node {
            match flush_channels(lead, node, &channels, flush_ts).await {
                Ok(()) => {
                    for channel in channels {
                        lead.observed.begin_channel_flush(&channel, node, flush_ts);
                        done.insert(channel, node);
                    }
                }
                Err(error @ CallError::Unimplemented { .. }) => {
                    tracing::warn!(%collection, %error, "a data node flushes no channels");
                    return Ok(FlushedUntil::Nothing);
                }
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            if Instant::now() + pause >= deadline {
                return Err(error.into());
            }
            tracing::debug!(%collection, %error, "a data node does not take the flush yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

pub(super) async fn get_flush_state(
    lead: &Arc<Lead>,
    request: data::GetFlushStateRequest,
) -> Result<milvus::GetFlushStateResponse, Failure> {
    let view = lead.view().await?;
    let (are_segments_done, behind) = view.read(|state| {
        let segments = state.views().segments();
        let is_done = |id: &i64| segments.healthy(SegmentId(*id)).is_none_or(Segment::is_flushed);
        // Old clients give no timestamp and ask of segments alone.
        let collection = collection_of(state, &request).filter(|_| request.flush_ts != 0);
        let behind = collection.map(|id| channels_behind(state, id, request.flush_ts));
        (request.segment_i_ds.iter().all(is_done), behind.unwrap_or_default())
    });
    let flushed = are_segments_done && behind.is_empty();
    remind(lead, behind, request.flush_ts).await;
    Ok(milvus::GetFlushStateResponse { status: None, flushed })
}

/// Tells data nodes of a flush that they do not know: the one that was told is gone, or the leader
/// that told it. Without it they keep deletes of written segments for ten minutes.
async fn remind(lead: &Arc<Lead>, behind: Vec<(String, ServerId)>, flush_ts: u64) {
    // A flush of the future would stand in the way of those of today.
    if behind.is_empty() || lead.tso.estimate().await.is_ok_and(|now_ts| now_ts < flush_ts) {
        return;
    }
    for (channel, node) in behind {
        if node == ServerId::NOBODY || !lead.observed.begin_channel_flush(&channel, node, flush_ts)
        {
            continue;
        }
        let lead = Arc::clone(lead);
        tasks::spawn("flush-again", async move {
            let told = [channel.clone()];
            if let Err(error) = flush_channels(&lead, node, &told, flush_ts).await {
                // The client asks again.
                tracing::debug!(channel, node = node.0, %error, "a flush is not taken yet");
                lead.observed.forget_channel_flush(&channel, node, flush_ts);
            }
        });
    }
}

fn collection_of(state: &State, request: &data::GetFlushStateRequest) -> Option<CollectionId> {
    if request.collection_id != 0 {
        return Some(CollectionId(request.collection_id));
    }
    let catalog = state.views().catalog();
    let database = match request.db_name.as_str() {
        "" => DatabaseId::DEFAULT,
        name => catalog.database_by_name(name)?,
    };
    catalog.resolve(database, &request.collection_name)
}

/// Channels of a collection that are not consumed and written up to a timestamp, with their data
/// nodes: those of nobody included, those that have ended not.
fn channels_behind(state: &State, collection: CollectionId, ts: u64) -> Vec<(String, ServerId)> {
    let assignments = state.views().assignments();
    let is_behind = |channel: &str| {
        let checkpoint = assignments.checkpoint(channel);
        assignments.removal(channel) != Some(true)
            && checkpoint.is_none_or(|checkpoint| checkpoint.position.timestamp < ts)
    };
    let channels = assignments.of_collection(collection);
    channels
        .filter(|(channel, _)| is_behind(channel))
        .map(|(channel, assignment)| (channel.to_string(), assignment.node))
        .collect()
}

pub(super) async fn get_flush_all_state(
    lead: &Arc<Lead>,
    request: milvus::GetFlushAllStateRequest,
) -> Result<milvus::GetFlushAllStateResponse, Failure> {
    let view = lead.view().await?;
    let behind: Vec<_> = view.read(|state| {
        let catalog = state.views().catalog();
        let only = match request.db_name.as_str() {
            "" => None,
            name => match catalog.database_by_name(name) {
                Some(id) => Some(id),
                None => {
                    return Err(Failure::refused(
                        Code::DatabaseNotFound,
                        format!("database not found[database={name}]"),
                    ));
                }
            },
        };
        let collections = catalog.collections().decoded().filter(|(key, collection)| {
            let database = key.database.unwrap_or(DatabaseId::DEFAULT);
            collection.state == Lifecycle::Created && only.is_none_or(|only| only == database)
        });
        Ok(collections
            .into_iter()
            .flat_map(|(key, _)| channels_behind(state, key.collection, request.flush_all_ts))
            .collect())
    })?;
    let flushed = behind.is_empty();
    remind(lead, behind, request.flush_all_ts).await;
    Ok(milvus::GetFlushAllStateResponse { status: None, flushed })
}
