use expect_test::{Expect, expect};
use prost::Message;
use proto::etcd;
use proto::milvus::common::{IndexState, SegmentState};
use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState, SegmentInfo};
use proto::milvus::index::SegmentIndex;
use proto::milvus::msg::MsgPosition;
use proto::quorate::{CompactionInput, CompactionState, CompactionTask};
use statemachine::Views;
use statemachine::view::SegmentId;

use super::orphan::{self, Claim};
use super::path::{self, ParsedPath};
use super::plan::{self, Policy};

const CHANNEL: &str = "by-dev-rootcoord-dml_0_1v0";
const NOW_MS: u64 = 1_000_000_000;
const POLICY: Policy = Policy { now_ms: NOW_MS, drop_tolerance_ms: 60_000 };

struct World {
    views: Views,
    revision: i64,
}

impl World {
    /// A living channel, consumed up to timestamp 100.
    fn new() -> World {
        let mut world = World { views: Views::new("by-dev"), revision: 1 };
        world.put(&format!("meta/datacoord-meta/channel-removal/{CHANNEL}"), b"non-removed");
        let checkpoint = MsgPosition { timestamp: 100, ..MsgPosition::default() };
        let key = format!("meta/datacoord-meta/channel-cp/{CHANNEL}");
        world.put(&key, &checkpoint.encode_to_vec());
        world
    }

    fn put(&mut self, key: &str, value: &[u8]) {
        self.revision += 1;
        self.views.put(&etcd::KeyValue {
            key: format!("by-dev/{key}").into(),
            value: value.to_vec().into(),
            mod_revision: self.revision,
            create_revision: self.revision,
            version: 1,
            lease: 0,
        });
    }

    fn segment(&mut self, id: i64, state: SegmentState, change: impl FnOnce(&mut SegmentInfo)) {
        let mut info = SegmentInfo {
            id,
            collection_id: 1,
            partition_id: 2,
            insert_channel: CHANNEL.to_owned(),
            state: state.into(),
            dml_position: Some(MsgPosition { timestamp: 90, ..MsgPosition::default() }),
            ..SegmentInfo::default()
        };
        change(&mut info);
        self.put(&format!("meta/datacoord-meta/s/1/2/{id}"), &info.encode_to_vec());
    }

    fn dropped(&mut self, id: i64, ago_s: u64) {
        self.segment(id, SegmentState::Dropped, |info| {
            info.dropped_at = (NOW_MS - ago_s * 1000) * 1_000_000;
        });
    }

    fn plan(&mut self, id: i64, input: i64, state: CompactionState) {
        let inputs = vec![CompactionInput { segment: input, ..CompactionInput::default() }];
        let task = CompactionTask {
            plan: id,
            collection: 1,
            partition: 2,
            channel: CHANNEL.to_owned(),
            state: state.into(),
            inputs,
            ..CompactionTask::default()
        };
        self.put(&format!("quorate/compaction/{id}"), &task.encode_to_vec());
    }

    fn check(&self, expected: Expect) {
        let plan = plan::plan(&self.views, POLICY, SegmentId(0), 100);
        expected.assert_eq(&plan.to_string());
    }
}

#[test]
fn dropped_segments_go_after_the_tolerance() {
    let mut world = World::new();
    world.dropped(1, 61);
    world.dropped(2, 59);
    world.segment(3, SegmentState::Dropped, |info| info.dropped_at = 0);
    world.segment(4, SegmentState::Flushed, |_info| {});
    world.check(expect![[r#""#]]);
}

#[test]
fn a_living_channel_keeps_what_it_may_read_again() {
    let mut world = World::new();
    world.segment(1, SegmentState::Dropped, |info| {
        info.dml_position = Some(MsgPosition { timestamp: 101, ..MsgPosition::default() });
    });
    world.check(expect![[r#""#]]);
    world.put(&format!("meta/datacoord-meta/channel-removal/{CHANNEL}"), b"removed");
    world.check(expect![[r#""#]]);
}

#[test]
fn nothing_goes_while_a_node_is_told_to_watch_its_channel() {
    let mut world = World::new();
    world.dropped(1, 3600);
    let key = format!("meta/channelwatch/7/{CHANNEL}");
    for state in [ChannelWatchState::ToWatch, ChannelWatchState::WatchSuccess] {
        let watch = ChannelWatchInfo { state: state.into(), ..ChannelWatchInfo::default() };
        world.put(&key, &watch.encode_to_vec());
        world.check(expect![[r#""#]]);
    }
}

#[test]
fn inputs_of_a_compaction_wait_for_its_end_and_for_the_index_of_its_result() {
    let mut world = World::new();
    world.segment(1, SegmentState::Dropped, |info| info.compacted = true);
    world.segment(2, SegmentState::Dropped, |info| info.compacted = true);
    world.segment(9, SegmentState::Flushed, |info| info.compaction_from = vec![1]);
    world.plan(50, 2, CompactionState::Completed);
    world.check(expect![[r#""#]]);
    world.plan(50, 2, CompactionState::Synced);
    world.check(expect![[r#""#]]);
}

#[test]
fn only_so_many_are_looked_at_and_the_next_look_goes_on() {
    let mut world = World::new();
    for id in 1..=3 {
        world.dropped(id, 3600);
    }
    let first = plan::plan(&world.views, POLICY, SegmentId(0), 2);
    let second = plan::plan(&world.views, POLICY, first.next.expect("more"), 2);
    expect![[r#""#]].assert_eq(&format!("{first}--\n{second}"));
}

#[test]
fn what_may_still_be_named_is_no_orphan() {
    let mut world = World::new();
    world.segment(1, SegmentState::Growing, |_info| {});
    world.segment(2, SegmentState::Sealed, |_info| {});
    world.segment(3, SegmentState::Flushing, |_info| {});
    world.segment(4, SegmentState::Importing, |_info| {});
    world.segment(5, SegmentState::Flushed, |_info| {});
    world.segment(6, SegmentState::Dropped, |_info| {});
    world.segment(7, SegmentState::Flushed, |info| info.is_importing = true);
    world.segment(8, SegmentState::Flushed, |_info| {});
    world.plan(50, 8, CompactionState::Executing);
    world.put("meta/datacoord-meta/s/1/2/10", b"\xff\xff");
    let build = |state: IndexState| SegmentIndex {
        collection_id: 1,
        partition_id: 2,
        segment_id: 5,
        build_id: 70,
        index_version: 2,
        state: state.into(),
        ..SegmentIndex::default()
    };
    let finished = build(IndexState::Finished).encode_to_vec();
    world.put("meta/segment-index/1/2/5/70", &finished);
    let unfinished = SegmentIndex { build_id: 71, ..build(IndexState::InProgress) };
    world.put("meta/segment-index/1/2/5/71", &unfinished.encode_to_vec());

    let mut told = String::new();
    let busy = orphan::busy_partitions(&world.views);
    let mut tell = |path: &str| {
        let claim = match path::parse("files", path).expect("a name that Milvus writes") {
            ParsedPath::Log(log) => orphan::claim_of_log(&world.views, &busy, &log),
            ParsedPath::Index(index) => orphan::claim_of_index_file(&world.views, &index),
        };
        let claim = match claim {
            Claim::Keep(why) => format!("stays, {why}"),
            Claim::UnlessNamed => "goes unless named".to_owned(),
            Claim::Orphan => "goes".to_owned(),
        };
        told.push_str(&format!("{path}: {claim}\n"));
    };
    for segment in (1..=8).chain([10, 11]) {
        tell(&format!("files/insert_log/1/2/{segment}/100/7"));
    }
    tell("files/delta_log/1/3/11/7");
    for file in ["70/1/2/5/a", "70/2/2/5/a", "70/3/2/5/a", "71/1/2/5/a", "72/1/2/5/a"] {
        tell(&format!("files/index_files/{file}"));
    }
    expect![[r#""#]].assert_eq(&told);
}
