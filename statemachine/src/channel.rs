//! View of `channelwatch/{node}/{vchannel}`: which data node consumes which virtual channel.
//!
//! One key carries both directions: the coordinator writes a command (`ToWatch`, `ToRelease`), the
//! data node acknowledges in the same key by compare-version-and-put. So a row keeps the key's
//! version and revision beside what the value says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use prost::Message;
use proto::{etcd, milvus};

use crate::view::{CollectionId, Name, Names, Row, Rows, ServerId, canonical_i64};

/// A command or its acknowledgement. Two legacy names of the wire are gone: Uncomplete is
/// `ToWatch`, Complete is `WatchSuccess`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    ToWatch,
    WatchSuccess,
    WatchFailure,
    ToRelease,
    ReleaseSuccess,
    ReleaseFailure,
}

impl ChannelState {
    fn parse(number: i32) -> Result<ChannelState, String> {
        let state = milvus::data::ChannelWatchState::try_from(number)
            .map_err(|_unknown| format!("no channel state has the number {number}"))?;
        Ok(match state {
            milvus::data::ChannelWatchState::Uncomplete
            | milvus::data::ChannelWatchState::ToWatch => ChannelState::ToWatch,
            milvus::data::ChannelWatchState::Complete
            | milvus::data::ChannelWatchState::WatchSuccess => ChannelState::WatchSuccess,
            milvus::data::ChannelWatchState::WatchFailure => ChannelState::WatchFailure,
            milvus::data::ChannelWatchState::ToRelease => ChannelState::ToRelease,
            milvus::data::ChannelWatchState::ReleaseSuccess => ChannelState::ReleaseSuccess,
            milvus::data::ChannelWatchState::ReleaseFailure => ChannelState::ReleaseFailure,
        })
    }
}

/// A virtual channel of a data node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub collection: CollectionId,
    pub state: ChannelState,
    /// Seconds since the Unix epoch at which the watch was asked for; informative.
    pub start_s: i64,
    /// A data node raises it while it works on a command.
    pub progress: i32,
    /// Hybrid timestamp from which the node reads, if a position was given.
    pub seek_timestamp: Option<u64>,
    /// How many segments the value lists as growing or sealed, as flushed, as dropped. The lists
    /// themselves are in the store.
    pub unflushed: u32,
    pub flushed: u32,
    pub dropped: u32,
    /// Version of the key, which a data node compares before it acknowledges.
    pub version: i64,
    /// Revision of the put.
    pub revision: i64,
}

impl fmt::Display for Channel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Channel { collection, state, start_s, progress, .. } = self;
        write!(
            out,
            "{state:?} collection {collection} start {start_s} progress {progress} segments \
             {}+{}+{} version {} revision {}",
            self.unflushed, self.flushed, self.dropped, self.version, self.revision
        )?;
        match self.seek_timestamp {
            None => Ok(()),
            Some(timestamp) => write!(out, " seek {timestamp}"),
        }
    }
}

/// The node that has the channel (`ServerId::NOBODY` for none), and the channel.
pub type ChannelKey = (ServerId, Name);

/// All channel assignments.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Channels {
    rows: Rows<ChannelKey, Channel>,
    /// The same keys by channel. More than one node per channel is a fault of whoever wrote it.
    owners: BTreeSet<(Name, ServerId)>,
    /// Keys that name no channel of a node, by revision.
    strays: BTreeMap<Bytes, i64>,
}

impl Channels {
    pub(crate) fn put(&mut self, names: &mut Names, key: &[u8], kv: &etcd::KeyValue) {
        let Some((node, channel)) = parse_key(key) else {
            self.strays.insert(Bytes::copy_from_slice(key), kv.mod_revision);
            return;
        };
        let channel = names.intern(channel);
        let row = Row::from_result(decode(kv), kv.mod_revision);
        self.owners.insert((channel.clone(), node));
        self.rows.put((node, channel), row);
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        let Some((node, channel)) = parse_key(key) else {
            self.strays.remove(key);
            return;
        };
        let channel = Name::from(channel);
        self.rows.remove(&(node, channel.clone()));
        self.owners.remove(&(channel, node));
    }

    pub fn get(&self, node: ServerId, channel: &str) -> Option<&Channel> {
        self.rows.get(&(node, Name::from(channel)))
    }

    /// What a node has, by channel.
    pub fn of_node(&self, node: ServerId) -> impl Iterator<Item = (&Name, &Row<Channel>)> {
        let all = self.rows.range((node, Name::from(""))..);
        all.take_while(move |((owner, _), _)| *owner == node).map(|((_, name), row)| (name, row))
    }

    /// The nodes that have a channel: one, or `ServerId::NOBODY`.
    pub fn owners_of(&self, channel: &str) -> impl Iterator<Item = ServerId> {
        let first = (Name::from(channel), ServerId(i64::MIN));
        let last = (Name::from(channel), ServerId(i64::MAX));
        self.owners.range(first..=last).map(|(_, node)| *node)
    }

    pub fn rows(&self) -> &Rows<ChannelKey, Channel> {
        &self.rows
    }

    pub fn undecodable(&self) -> usize {
        self.rows.undecodable() + self.strays.len()
    }

    pub(crate) fn strays(&self) -> &BTreeMap<Bytes, i64> {
        &self.strays
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((node, channel), row) in self.rows.iter() {
            writeln!(out, "channel {channel} of {node}: {row}")?;
        }
        for (key, revision) in &self.strays {
            writeln!(out, "channel stray {key:?} revision {revision}")?;
        }
        Ok(())
    }
}

fn parse_key(key: &[u8]) -> Option<(ServerId, &str)> {
    let (node, channel) = std::str::from_utf8(key).ok()?.split_once('/')?;
    if channel.is_empty() || channel.contains('/') {
        return None;
    }
    Some((ServerId(canonical_i64(node)?), channel))
}

fn decode(kv: &etcd::KeyValue) -> Result<Channel, String> {
    let info =
        milvus::data::ChannelWatchInfo::decode(&kv.value[..]).map_err(|error| error.to_string())?;
    let vchannel = info.vchan.unwrap_or_default();
    let count = |list: &[i64]| u32::try_from(list.len()).unwrap_or(u32::MAX);
    Ok(Channel {
        collection: CollectionId(vchannel.collection_id),
        state: ChannelState::parse(info.state)?,
        start_s: info.start_ts,
        progress: info.progress,
        seek_timestamp: vchannel.seek_position.map(|position| position.timestamp),
        unflushed: count(&vchannel.unflushed_segment_ids),
        flushed: count(&vchannel.flushed_segment_ids),
        dropped: count(&vchannel.dropped_segment_ids),
        version: kv.version,
        revision: kv.mod_revision,
    })
}
