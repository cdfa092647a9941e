//! New channels, and those that a stock coordinator left.

use bytes::Bytes;
use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState};
use proto::quorate::{AdoptChannels, ChannelRecord, CollectionStart, WatchChannels};

use super::watch_info::{PendingSegments, put_command};
use super::{NOT_REMOVED, settle};
use crate::coordinator::Refusal;
use crate::coordinator::keys::is_name;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;
use crate::view::ServerId;

pub(super) fn watch(
    records: &mut Records<'_, '_>,
    command: WatchChannels,
) -> Result<Outcomes, Stop> {
    let WatchChannels { collection, channels, start_positions, create_ts, schema } = command;
    let pending = PendingSegments::of(records);
    let mut outcomes = Outcomes::default();
    for new in channels {
        if !is_name(&new.channel) {
            outcomes.refused_name(&new.channel, no_name(&new.channel));
            continue;
        }
        // The request may be a repetition, whose channel is consumed or even gone again.
        if !records.exists(&records.keys().removal(&new.channel)) {
            let mark = Bytes::from_static(NOT_REMOVED);
            records.put_bytes(records.keys().removal(&new.channel), mark);
        }
        let is_known = records.exists(&records.keys().channel(&new.channel))
            || !owners(records, &new.channel).is_empty();
        if is_known {
            continue;
        }
        let record = ChannelRecord {
            collection,
            node: new.node,
            epoch: 1,
            start_positions: start_positions.clone(),
            create_ts,
            schema: schema.clone(),
        };
        put_command(records, &pending, &new.channel, &record, ChannelWatchState::ToWatch)?;
        records.put(records.keys().channel(&new.channel), &record);
        outcomes.changed_name(&new.channel);
    }
    Ok(outcomes)
}

fn no_name(channel: &str) -> Refusal {
    Refusal::Invalid {
        field: "channel".to_owned(),
        value: channel.to_owned(),
        reason: "it is no name of a channel".to_owned(),
    }
}

pub(super) fn adopt(
    records: &mut Records<'_, '_>,
    command: &AdoptChannels,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for channel in &command.channels {
        let adopted = adopt_one(records, channel, &command.starts);
        settle(&mut outcomes, channel, adopted)?;
    }
    Ok(outcomes)
}

/// A channel whose owner is on record and has its key stays as it is.
fn adopt_one(
    records: &mut Records<'_, '_>,
    channel: &str,
    starts: &[CollectionStart],
) -> Result<(), Stop> {
    let known: Option<ChannelRecord> = records.get(&records.keys().channel(channel))?;
    if let Some(known) = &known
        && records.exists(&records.keys().channel_watch(known.node, channel))
    {
        return Ok(());
    }
    let Some(ServerId(node)) = best_owner(records, channel) else {
        return Err(Refusal::UnknownChannel { channel: channel.to_owned() }.into());
    };
    let key = records.keys().channel_watch(node, channel);
    let info: ChannelWatchInfo = records.get(&key)?.unwrap_or_default();
    let collection = info.vchan.as_ref().map_or(0, |vchan| vchan.collection_id);
    let start = starts.iter().find(|start| start.collection == collection).cloned();
    let start = start.unwrap_or_default();
    let record = ChannelRecord {
        collection,
        node,
        epoch: known.map_or(0, |known| known.epoch) + 1,
        start_positions: start.start_positions,
        create_ts: start.create_ts,
        schema: info.schema,
    };
    records.put(records.keys().channel(channel), &record);
    Ok(())
}

/// Nodes with a `channelwatch` key of a channel, as the command sees them.
fn owners(records: &Records<'_, '_>, channel: &str) -> Vec<ServerId> {
    let committed = records.committed().views().channels().owners_of(channel);
    let mut owners: Vec<ServerId> = committed
        .filter(|node| records.exists(&records.keys().channel_watch(node.0, channel)))
        .collect();
    let root = records.keys().channel_watches();
    for (key, value) in records.pending(&root) {
        let Some(node) = value.and_then(|_| watcher(&key[root.len()..], channel)) else { continue };
        if !owners.contains(&node) {
            owners.push(node);
        }
    }
    owners.sort_unstable();
    owners
}

/// Reads `{node}/{channel}`.
fn watcher(key: &[u8], channel: &str) -> Option<ServerId> {
    let (node, named) = std::str::from_utf8(key).ok()?.split_once('/')?;
    (named == channel).then(|| crate::view::canonical_i64(node).map(ServerId))?
}

/// The node that most likely consumes the channel: one that is alive before others, nobody last.
fn best_owner(records: &Records<'_, '_>, channel: &str) -> Option<ServerId> {
    owners(records, channel).into_iter().min_by_key(|node| {
        let is_alive = records.exists(&records.keys().data_node_session(node.0));
        (*node == ServerId::NOBODY, !is_alive, *node)
    })
}
