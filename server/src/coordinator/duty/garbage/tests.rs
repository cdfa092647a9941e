use expect_test::{Expect, expect};
use prost::Message;
use proto::etcd;
use proto::milvus::common::{IndexState, KeyValuePair, SegmentState};
use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState, SegmentInfo};
use proto::milvus::index::{FieldIndex, IndexInfo, SegmentIndex};
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

    fn watch(&mut self, state: ChannelWatchState) {
        let watch = ChannelWatchInfo { state: state.into(), ..ChannelWatchInfo::default() };
        self.put(&format!("meta/channelwatch/7/{CHANNEL}"), &watch.encode_to_vec());
    }

    /// The vector field has an index, built over the segment.
    fn indexed(&mut self, segment: i64) {
        let dim = KeyValuePair { key: "dim".to_owned(), value: "8".to_owned() };
        let info = IndexInfo {
            collection_id: 1,
            field_id: 101,
            index_id: 60,
            type_params: vec![dim],
            ..IndexInfo::default()
        };
        let definition = FieldIndex { index_info: Some(info), ..FieldIndex::default() };
        self.put("meta/field-index/1/60", &definition.encode_to_vec());
        let build = SegmentIndex {
            collection_id: 1,
            partition_id: 2,
            segment_id: segment,
            index_id: 60,
            build_id: 70,
            index_version: 1,
            state: IndexState::Finished.into(),
            ..SegmentIndex::default()
        };
        self.put(&format!("meta/segment-index/1/2/{segment}/70"), &build.encode_to_vec());
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
    world.check(expect![[r#"
        remove 1: dropped 61 s ago
        remove 3: dropped with its channel
        2 waits for another 1 s
    "#]]);
}

#[test]
fn a_living_channel_keeps_what_it_may_read_again() {
    let mut world = World::new();
    world.segment(1, SegmentState::Dropped, |info| {
        info.dml_position = Some(MsgPosition { timestamp: 101, ..MsgPosition::default() });
    });
    world.check(expect![[r#"
        1 waits for its channel's checkpoint 100 to pass 101
    "#]]);
    world.put(&format!("meta/datacoord-meta/channel-removal/{CHANNEL}"), b"removed");
    world.check(expect![[r#"
        remove 1: dropped with its channel
    "#]]);
}

#[test]
fn nothing_goes_while_a_node_is_told_to_watch_its_channel() {
    let mut world = World::new();
    world.dropped(1, 3600);
    world.watch(ChannelWatchState::ToWatch);
    world.check(expect![[r#"
        1 waits for its channel to be watched
    "#]]);
    world.watch(ChannelWatchState::WatchSuccess);
    world.check(expect![[r#"
        remove 1: dropped 3600 s ago
    "#]]);
}

#[test]
fn inputs_of_a_compaction_wait_for_its_end_and_for_the_index_of_its_result() {
    let mut world = World::new();
    world.segment(1, SegmentState::Dropped, |info| info.compacted = true);
    world.segment(2, SegmentState::Dropped, |info| info.compacted = true);
    world.segment(9, SegmentState::Flushed, |info| info.compaction_from = vec![1]);
    world.plan(50, 2, CompactionState::Completed);
    world.check(expect![[r#"
        1 waits for an index of its result 9
        2 waits for the end of compaction 50
    "#]]);
    world.plan(50, 2, CompactionState::Synced);
    world.check(expect![[r#"
        remove 2: compacted into a segment that is gone
        1 waits for an index of its result 9
    "#]]);
    world.indexed(9);
    world.check(expect![[r#"
        remove 1: compacted into 9, which has its index
        remove 2: compacted into a segment that is gone
    "#]]);
}

#[test]
fn only_so_many_are_looked_at_and_the_next_look_goes_on() {
    let mut world = World::new();
    for id in 1..=3 {
        world.dropped(id, 3600);
    }
    let first = plan::plan(&world.views, POLICY, SegmentId(0), 2);
    let second = plan::plan(&world.views, POLICY, first.next.expect("more"), 2);
    expect![[r#"
        remove 1: dropped 3600 s ago
        remove 2: dropped 3600 s ago
        more above 2
        --
        remove 3: dropped 3600 s ago
    "#]]
    .assert_eq(&format!("{first}--\n{second}"));
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
        let claim = match path::parse("files/", path).expect("a name that Milvus writes") {
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
    expect![[r#"
        files/insert_log/1/2/1/100/7: stays, segment being written
        files/insert_log/1/2/2/100/7: stays, segment being written
        files/insert_log/1/2/3/100/7: stays, segment being written
        files/insert_log/1/2/4/100/7: stays, segment being written
        files/insert_log/1/2/5/100/7: goes unless named
        files/insert_log/1/2/6/100/7: goes unless named
        files/insert_log/1/2/7/100/7: stays, import under way
        files/insert_log/1/2/8/100/7: stays, compaction under way
        files/insert_log/1/2/10/100/7: stays, segment that does not decode
        files/insert_log/1/2/11/100/7: stays, compaction under way
        files/delta_log/1/3/11/7: goes
        files/index_files/70/1/2/5/a: goes
        files/index_files/70/2/2/5/a: goes unless named
        files/index_files/70/3/2/5/a: stays, attempt that is not on record
        files/index_files/71/1/2/5/a: stays, index being built
        files/index_files/72/1/2/5/a: goes
    "#]]
    .assert_eq(&told);
}
