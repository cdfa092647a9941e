//! Channels and data nodes as they are at one moment, copied out of the views so that deciding holds
//! no lock.

use std::collections::{BTreeMap, BTreeSet};

use proto::quorate::CompactionState;
use statemachine::State;
use statemachine::channel::ChannelState;
use statemachine::coordinator::segment::view::Segments;
use statemachine::view::{Name, Row, ServerId};

use crate::coordinator::data_nodes;
use crate::coordinator::observed::Observed;

/// A channel that we have on record.
#[derive(Clone, Debug)]
pub(super) struct SeenChannel {
    pub(super) channel: Name,
    /// `ServerId::NOBODY` for none.
    pub(super) node: ServerId,
    pub(super) epoch: u64,
    pub(super) is_removed: bool,
    /// Its owner does not know it, whatever its key says.
    pub(super) is_unserved: bool,
    /// Of the key of its owner.
    pub(super) key: Option<SeenKey>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SeenKey {
    /// `None`: the value says nothing.
    pub(super) state: Option<ChannelState>,
    pub(super) revision: i64,
    /// That its data node has to load.
    pub(super) n_segments: u32,
}

/// A `channelwatch` key of somebody who does not own the channel.
#[derive(Clone, Debug)]
pub(super) struct StrayKey {
    pub(super) channel: Name,
    pub(super) node: ServerId,
    pub(super) revision: i64,
    /// Of the channel's record; 0 where there is none.
    pub(super) epoch: u64,
    /// Nobody is on record, and the collection exists: a stock coordinator left it.
    pub(super) is_foreign: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// By name.
    pub(super) channels: Vec<SeenChannel>,
    pub(super) strays: Vec<StrayKey>,
    /// Data nodes with a session.
    pub(super) alive: BTreeSet<ServerId>,
    /// Those of them that can be given something.
    pub(super) usable: BTreeSet<ServerId>,
    /// Those that are to become empty.
    pub(super) draining: BTreeSet<ServerId>,
    /// A data node that is too old to be balanced is alive.
    pub(super) has_old: bool,
    /// Channels that are not moved by choice: their data node works on a compaction, or it alone
    /// knows of an import.
    pub(super) occupied: BTreeSet<Name>,
}

impl Seen {
    pub(super) fn of(state: &State, observed: &Observed) -> Seen {
        let views = state.views();
        let (assignments, watches) = (views.assignments(), views.channels());
        let mut keys: BTreeMap<(ServerId, Name), SeenKey> = BTreeMap::new();
        let mut strays = Vec::new();
        for ((node, channel), row) in watches.rows().iter() {
            let key = seen_key(row);
            let record = assignments.get(channel);
            if record.is_some_and(|record| record.node == *node) {
                keys.insert((*node, channel.clone()), key);
                continue;
            }
            let collection = row.decoded().map(|decoded| decoded.collection);
            let exists = collection.is_some_and(|id| views.catalog().collection(id).is_some());
            let is_foreign = record.is_none() && (exists || assignments.removal(channel).is_some());
            strays.push(StrayKey {
                channel: channel.clone(),
                node: *node,
                revision: key.revision,
                epoch: record.map_or(0, |record| record.epoch),
                is_foreign,
            });
        }
        let channels = assignments.rows().decoded().map(|(channel, record)| {
            let key = keys.get(&(record.node, channel.clone())).copied();
            SeenChannel {
                channel: channel.clone(),
                node: record.node,
                epoch: record.epoch,
                is_removed: assignments.removal(channel) == Some(true),
                is_unserved: key.is_some_and(|key| observed.is_unserved(channel, key.revision)),
                key,
            }
        });
        let plans = views.plans().running().filter(|(_, plan)| {
            matches!(plan.task.state(), CompactionState::Executing | CompactionState::Completed)
        });
        let compacting = plans.map(|(_, plan)| Name::from(plan.task.channel.as_str()));
        Seen {
            channels: channels.collect(),
            strays,
            alive: data_nodes::alive(views),
            usable: data_nodes::usable(views),
            draining: assignments.draining().clone(),
            has_old: data_nodes::has_older_than_2_3(views),
            occupied: compacting.chain(importing(views.segments(), observed)).collect(),
        }
    }

    pub(super) fn has(&self, channel: &Name) -> bool {
        self.channels.binary_search_by(|known| known.channel.cmp(channel)).is_ok()
    }
}

/// Channels with segments of an import that are not flushed: no list names those, so another data node
/// would never learn of them. Those that the channel's data node does not know lose nothing.
fn importing(segments: &Segments, observed: &Observed) -> Vec<Name> {
    let importing =
        segments.open().filter(|(id, segment)| segment.is_importing && !observed.is_disowned(*id));
    importing.map(|(_, segment)| segment.channel.clone()).collect()
}

fn seen_key(row: &Row<statemachine::channel::Channel>) -> SeenKey {
    match row {
        Row::Decoded(channel) => SeenKey {
            state: Some(channel.state),
            revision: channel.revision,
            n_segments: channel.unflushed.saturating_add(channel.flushed),
        },
        Row::Undecodable(why) => SeenKey { state: None, revision: why.revision, n_segments: 0 },
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcd;
    use proto::milvus::common::SegmentState;
    use proto::milvus::data::SegmentInfo;
    use statemachine::Views;
    use statemachine::view::SegmentId;

    use super::*;

    #[test]
    fn a_channel_with_an_import_is_occupied_while_its_data_node_knows_it() {
        let mut views = Views::new("by-dev");
        for (id, state, is_importing) in [
            (1, SegmentState::Importing, true),
            (2, SegmentState::Sealed, true),
            (3, SegmentState::Flushed, true),
            (4, SegmentState::Growing, false),
        ] {
            let info = SegmentInfo {
                id,
                collection_id: 1,
                partition_id: 2,
                insert_channel: format!("dml_{id}_1v0"),
                state: state.into(),
                is_importing,
                ..SegmentInfo::default()
            };
            views.put(&etcd::KeyValue {
                key: format!("by-dev/meta/datacoord-meta/s/1/2/{id}").into(),
                value: info.encode_to_vec().into(),
                mod_revision: 1,
                ..etcd::KeyValue::default()
            });
        }
        let observed = Observed::default();
        let occupied = || importing(views.segments(), &observed).join(" ");
        assert_eq!(occupied(), "dml_1_1v0 dml_2_1v0");
        observed.note_disowned(SegmentId(2));
        assert_eq!(occupied(), "dml_1_1v0");
    }
}
