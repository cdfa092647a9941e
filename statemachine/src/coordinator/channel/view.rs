//! View of our own channel records, and of Milvus's checkpoints and removal marks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prost::Message;
use proto::milvus::msg::MsgPosition;
use proto::{etcd, quorate};

use super::watch_info::beginning;
use crate::view::{CollectionId, Name, Names, Row, Rows, ServerId, Undecodable};

/// Who owns a virtual channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub collection: CollectionId,
    /// `ServerId::NOBODY` for none.
    pub node: ServerId,
    /// Rises with every ToWatch.
    pub epoch: u64,
    /// Where the channel begins, as far as its collection's record tells.
    pub beginning: Option<MsgPosition>,
    pub revision: i64,
}

impl fmt::Display for Assignment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Assignment { collection, node, epoch, beginning: _, revision } = self;
        write!(out, "collection {collection} node {node} epoch {epoch} revision {revision}")
    }
}

/// How far a virtual channel is consumed and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the channel, whatever its record names.
    pub position: MsgPosition,
    pub revision: i64,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} revision {}", self.position.timestamp, self.revision)
    }
}

/// Assignments, checkpoints and removal marks by virtual channel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    rows: Rows<Name, Assignment>,
    of_collection: BTreeSet<(CollectionId, Name)>,
    of_node: BTreeSet<(ServerId, Name)>,
    n_of_node: BTreeMap<ServerId, usize>,
    checkpoints: Rows<Name, Checkpoint>,
    /// True: removed.
    removals: BTreeMap<Name, bool>,
    /// Data nodes that are to be empty.
    draining: BTreeSet<ServerId>,
}

/// Following the keyspace.
impl Assignments {
    pub(crate) fn put(&mut self, names: &mut Names, channel: &str, kv: &etcd::KeyValue) {
        self.delete(channel);
        let channel = names.intern(channel);
        let assignment = quorate::ChannelRecord::decode(&kv.value[..])
            .map(|record| Assignment {
                collection: CollectionId(record.collection),
                node: ServerId(record.node),
                epoch: record.epoch,
                beginning: beginning(&channel, &record),
                revision: kv.mod_revision,
            })
            .map_err(|error| error.to_string());
        let row = Row::from_result(assignment, kv.mod_revision);
        if let Some(assignment) = row.decoded() {
            self.of_collection.insert((assignment.collection, channel.clone()));
            self.of_node.insert((assignment.node, channel.clone()));
            *self.n_of_node.entry(assignment.node).or_default() += 1;
        }
        self.rows.put(channel, row);
    }

    pub(crate) fn delete(&mut self, channel: &str) {
        if let Some(Row::Decoded(old)) = self.rows.remove(channel) {
            let channel = Name::from(channel);
            self.of_collection.remove(&(old.collection, channel.clone()));
            self.of_node.remove(&(old.node, channel));
            if let Some(count) = self.n_of_node.get_mut(&old.node) {
                *count -= 1;
                if *count == 0 {
                    self.n_of_node.remove(&old.node);
                }
            }
        }
    }

    pub(crate) fn put_checkpoint(&mut self, names: &mut Names, channel: &str, kv: &etcd::KeyValue) {
        let checkpoint = MsgPosition::decode(&kv.value[..])
            .map(|position| Checkpoint {
                position: MsgPosition { channel_name: channel.to_owned(), ..position },
                revision: kv.mod_revision,
            })
            .map_err(|error| error.to_string());
        let row = Row::from_result(checkpoint, kv.mod_revision);
        self.checkpoints.put(names.intern(channel), row);
    }

    pub(crate) fn delete_checkpoint(&mut self, channel: &str) {
        self.checkpoints.remove(channel);
    }

    pub(crate) fn put_removal(&mut self, names: &mut Names, channel: &str, kv: &etcd::KeyValue) {
        self.removals.insert(names.intern(channel), kv.value == b"removed"[..]);
    }

    pub(crate) fn put_drain(&mut self, node: ServerId) {
        self.draining.insert(node);
    }

    pub(crate) fn delete_drain(&mut self, node: ServerId) {
        self.draining.remove(&node);
    }

    pub(crate) fn delete_removal(&mut self, channel: &str) {
        self.removals.remove(channel);
    }
}

/// Questions.
impl Assignments {
    pub fn get(&self, channel: &str) -> Option<&Assignment> {
        self.rows.get(channel)
    }

    pub fn rows(&self) -> &Rows<Name, Assignment> {
        &self.rows
    }

    /// Channels of a collection, buffered ones included.
    pub fn of_collection(
        &self,
        collection: CollectionId,
    ) -> impl Iterator<Item = (&Name, &Assignment)> {
        let first = (collection, Name::from(""));
        self.of_collection
            .range(first..)
            .take_while(move |(other, _)| *other == collection)
            .filter_map(|(_, channel)| Some((channel, self.rows.get(channel)?)))
    }

    /// Channels of a node, by name.
    pub fn of_node(&self, node: ServerId) -> impl Iterator<Item = (&Name, &Assignment)> {
        let all = self.of_node.range((node, Name::from(""))..);
        all.take_while(move |(owner, _)| *owner == node)
            .filter_map(|(_, channel)| Some((channel, self.rows.get(channel)?)))
    }

    pub fn n_of_node(&self, node: ServerId) -> usize {
        self.n_of_node.get(&node).copied().unwrap_or(0)
    }

    /// Everybody who owns a channel, `ServerId::NOBODY` too, with the number of them.
    pub fn owners(&self) -> impl Iterator<Item = (ServerId, usize)> {
        self.n_of_node.iter().map(|(node, count)| (*node, *count))
    }

    pub fn checkpoint(&self, channel: &str) -> Option<&Checkpoint> {
        self.checkpoints.get(channel)
    }

    pub fn checkpoints(&self) -> &Rows<Name, Checkpoint> {
        &self.checkpoints
    }

    /// `None`: nothing is on record. True: removed.
    pub fn removal(&self, channel: &str) -> Option<bool> {
        self.removals.get(channel).copied()
    }

    /// Data nodes that are to be empty.
    pub fn draining(&self) -> &BTreeSet<ServerId> {
        &self.draining
    }

    pub(crate) fn troubles(&self) -> impl Iterator<Item = (String, &Undecodable)> {
        let rows = self.rows.troubles();
        let checkpoints = self.checkpoints.troubles();
        rows.map(|(channel, why)| (format!("assignment {channel}"), why))
            .chain(checkpoints.map(|(channel, why)| (format!("checkpoint {channel}"), why)))
    }

    pub fn undecodable(&self) -> usize {
        self.rows.undecodable() + self.checkpoints.undecodable()
    }
}

impl fmt::Display for Assignments {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (channel, row) in self.rows.iter() {
            writeln!(out, "assignment of {channel}: {row}")?;
        }
        for (channel, row) in self.checkpoints.iter() {
            writeln!(out, "checkpoint of {channel}: {row}")?;
        }
        for (channel, removed) in &self.removals {
            writeln!(out, "removal of {channel}: {removed}")?;
        }
        for node in &self.draining {
            writeln!(out, "node {node} is to be empty")?;
        }
        Ok(())
    }
}
