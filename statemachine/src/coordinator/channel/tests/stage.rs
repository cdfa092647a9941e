//! Channels, data nodes and segments, and the commands about them.

use std::fmt::Write;

use bytes::Bytes;
use prost::Message;
use proto::milvus::common::{KeyDataPair, SegmentState};
use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState, SegmentInfo};
use proto::milvus::msg::MsgPosition;
use proto::milvus::schema::CollectionSchema;
use proto::quorate::channel_command::Kind;
use proto::quorate::channel_move::Step;
use proto::quorate::coordinator_command::Area;
use proto::quorate::{
    ChannelMove, MoveChannels, NewChannel, ReleaseReason, SetRole, WatchChannels,
};
use proto::{etcd, quorate};

use crate::response::{Outcome, Response};
use crate::testkit::Machine;
use crate::view::ServerId;

pub(super) const NOBODY: i64 = ServerId::NOBODY.0;
pub(super) const CHANNEL: &str = "dml_0_1v0";

/// A machine whose root path is `by-dev`, and what tests do with it.
pub(super) struct Story {
    pub(super) machine: Machine,
    told: String,
}

impl Story {
    pub(super) fn new() -> Story {
        let mut story = Story { machine: Machine::new(), told: String::new() };
        story.run(channel(Kind::SetRole(SetRole { on: true, raw_writes: true })));
        story.told.clear();
        story
    }

    pub(super) fn run(&mut self, kind: quorate::command::Kind) {
        let outcome = self.machine.run(kind);
        self.tell(&outcome);
        self.machine.check();
    }

    /// Several commands as one entry.
    pub(super) fn run_all(&mut self, kinds: Vec<quorate::command::Kind>) {
        for outcome in self.machine.run_all(kinds) {
            self.tell(&outcome);
        }
        self.machine.check();
    }

    pub(super) fn tell(&mut self, outcome: &Outcome) {
        let told = &mut self.told;
        match outcome {
            Ok(Response::Coordinator(done)) => {
                write!(told, "changed {:?}", done.changed_names).expect("a string grows");
                for item in &done.refused {
                    let why = crate::coordinator::Refusal::of_item(item).expect("known");
                    write!(told, "; {}: {why}", item.name).expect("a string grows");
                }
                told.push('\n');
            }
            Ok(_) => {}
            Err(rejection) => writeln!(told, "{rejection}").expect("a string grows"),
        }
    }

    pub(super) fn root(&self) -> String {
        let root = &self.machine.state.settings().root_path;
        if root.is_empty() { String::new() } else { format!("{root}/") }
    }

    pub(super) fn put(&self, key: &str, value: impl Into<Bytes>) -> quorate::command::Kind {
        quorate::command::Kind::Put(etcd::PutRequest {
            key: format!("{}{key}", self.root()).into(),
            value: value.into(),
            ..etcd::PutRequest::default()
        })
    }

    pub(super) fn value(&self, key: &str) -> Option<Bytes> {
        let request = etcd::RangeRequest {
            key: format!("{}{key}", self.root()).into(),
            ..etcd::RangeRequest::default()
        };
        let plan = self.machine.state.plan_range(&request).expect("a plain get");
        let found = plan.fetch(&self.machine.store).expect("the store does not fail");
        found.kvs.into_iter().next().map(|kv| kv.value)
    }

    pub(super) fn revision(&self, key: &str) -> i64 {
        let key = format!("{}{key}", self.root());
        self.machine.state.key_meta(key.as_bytes()).map_or(0, |meta| meta.mod_revision)
    }

    pub(super) fn session(&mut self, node: i64) {
        let value = format!(r#"{{"ServerID":{node},"Address":"a:1","Version":"2.3.5"}}"#);
        let put = self.put(&format!("meta/session/datanode-{node}"), value);
        self.run(put);
    }

    /// What the owner of the channel answers.
    pub(super) fn acknowledge(&mut self, node: i64, state: ChannelWatchState) {
        let key = format!("meta/channelwatch/{node}/{CHANNEL}");
        let mut info = watch_info(&self.value(&key).expect("a command"));
        info.state = state.into();
        let vchan = info.vchan.as_mut().expect("a channel");
        // As Milvus 2.3.5 writes it back.
        vchan.unflushed_segment_ids.clear();
        vchan.flushed_segment_ids.clear();
        vchan.dropped_segment_ids.clear();
        let put = self.put(&key, info.encode_to_vec());
        self.run(put);
    }

    pub(super) fn step(&self, step: Step) -> quorate::command::Kind {
        let record = self.machine.state.views().assignments().get(CHANNEL);
        let (node, epoch) = record.map_or((0, 0), |record| (record.node.0, record.epoch));
        let key_revision = self.revision(&format!("meta/channelwatch/{node}/{CHANNEL}"));
        channel(Kind::Move(MoveChannels {
            moves: vec![ChannelMove {
                channel: CHANNEL.to_owned(),
                epoch,
                key_revision,
                step: Some(step),
            }],
        }))
    }

    pub(super) fn release(&mut self, reason: ReleaseReason) {
        let step = self.step(Step::Release(reason.into()));
        self.run(step);
    }

    pub(super) fn assign(&mut self, node: i64) {
        let step = self.step(Step::AssignTo(node));
        self.run(step);
    }

    /// All that is on record of channels.
    pub(super) fn show(&mut self) {
        let rows: Vec<(String, String)> = {
            let state = &self.machine.state;
            let assignments = state.views().assignments();
            let own = assignments.rows().decoded().map(|(name, row)| {
                let removed = assignments.removal(name);
                let text = format!(
                    "{name} of {} epoch {} removed {removed:?}",
                    show_node(row.node.0),
                    row.epoch
                );
                (name.to_string(), text)
            });
            own.collect()
        };
        for (_, text) in rows {
            writeln!(self.told, "{text}").expect("a string grows");
        }
        let keys: Vec<(i64, String)> = {
            let channels = self.machine.state.views().channels();
            channels.rows().iter().map(|((node, name), _)| (node.0, name.to_string())).collect()
        };
        for (node, name) in keys {
            let value = self.value(&format!("meta/channelwatch/{node}/{name}")).expect("alive");
            let info = watch_info(&value);
            let vchan = info.vchan.clone().unwrap_or_default();
            let seek = vchan
                .seek_position
                .map(|at| format!("{}@{}", String::from_utf8_lossy(&at.msg_id), at.timestamp));
            writeln!(
                self.told,
                "  {}/{name}: {:?} unflushed {:?} flushed {:?} dropped {:?} seek {}",
                show_node(node),
                info.state(),
                vchan.unflushed_segment_ids,
                vchan.flushed_segment_ids,
                vchan.dropped_segment_ids,
                seek.unwrap_or_default()
            )
            .expect("a string grows");
        }
    }

    pub(super) fn expect(self, expected: &expect_test::Expect) {
        expected.assert_eq(&self.told);
    }
}

pub(super) fn show_node(node: i64) -> String {
    if node == NOBODY { "nobody".to_owned() } else { node.to_string() }
}

pub(super) fn watch_info(value: &[u8]) -> ChannelWatchInfo {
    ChannelWatchInfo::decode(value).expect("a watch info")
}

pub(super) fn channel(kind: Kind) -> quorate::command::Kind {
    quorate::command::Kind::Coordinator(quorate::CoordinatorCommand {
        area: Some(Area::Channel(quorate::ChannelCommand { kind: Some(kind) })),
    })
}

pub(super) fn watch(node: i64) -> quorate::command::Kind {
    watch_named(&[CHANNEL], node)
}

pub(super) fn watch_named(names: &[&str], node: i64) -> quorate::command::Kind {
    let new = |name: &&str| NewChannel { channel: (*name).to_owned(), node };
    channel(Kind::Watch(WatchChannels {
        collection: 1,
        channels: names.iter().map(new).collect(),
        start_positions: vec![
            KeyDataPair { key: "dml_1".to_owned(), data: "other".into() },
            KeyDataPair { key: "dml_0".to_owned(), data: "start".into() },
        ],
        create_ts: 77,
        schema: Some(CollectionSchema { name: "c".to_owned(), ..CollectionSchema::default() }),
    }))
}

pub(super) fn segment(id: i64, state: SegmentState, dml_ts: Option<u64>) -> SegmentInfo {
    SegmentInfo {
        id,
        collection_id: 1,
        partition_id: 2,
        insert_channel: CHANNEL.to_owned(),
        state: state.into(),
        dml_position: dml_ts.map(position),
        ..SegmentInfo::default()
    }
}

pub(super) fn position(timestamp: u64) -> MsgPosition {
    MsgPosition { msg_id: format!("m{timestamp}").into(), timestamp, ..MsgPosition::default() }
}

pub(super) fn segment_key(id: i64) -> String {
    format!("meta/datacoord-meta/s/1/2/{id}")
}
