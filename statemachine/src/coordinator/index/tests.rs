use std::fmt::Write;

use expect_test::{Expect, expect};
use prost::Message;
use proto::milvus::common::{KeyValuePair, SegmentState};
use proto::milvus::data::SegmentInfo;
use proto::milvus::index::{FieldIndex, IndexInfo};
use proto::quorate::coordinator_command::Area;
use proto::quorate::index_command::Kind;
use proto::quorate::{
    AddBuilds, BuildRef, BuildResult, CreateIndex, DropIndexes, FinishBuild, NewBuild,
    RemoveBuilds, RemoveIndexes, RetryBuild, StartBuild,
};
use proto::{etcd, quorate};

use crate::coordinator::Refusal;
use crate::response::{Outcome, Response};
use crate::testkit::Machine;

/// A machine with the role on, on which a stock coordinator left segments.
struct Story {
    machine: Machine,
    told: String,
}

impl Story {
    fn new() -> Story {
        let mut story = Story { machine: Machine::new(), told: String::new() };
        let on = quorate::SetRole { on: true, raw_writes: true };
        let kind = quorate::channel_command::Kind::SetRole(on);
        let area = Area::Channel(quorate::ChannelCommand { kind: Some(kind) });
        story.run_all(vec![coordinator(area)]);
        story.told.clear();
        story
    }

    fn with_segment(mut self, segment: i64, state: SegmentState) -> Story {
        self.segment(segment, state);
        self
    }

    fn with_index(mut self, id: i64, field: i64, name: &str) -> Story {
        self.run(Kind::Create(create(id, field, name, "HNSW")));
        self.told.clear();
        self
    }

    fn with_build(mut self, build: i64, segment: i64, index: i64) -> Story {
        self.run(add(&[(build, segment, index)]));
        self.told.clear();
        self
    }

    fn segment(&mut self, segment: i64, state: SegmentState) {
        let info = SegmentInfo {
            id: segment,
            collection_id: 1,
            partition_id: 2,
            num_of_rows: segment * 100,
            state: state.into(),
            ..SegmentInfo::default()
        };
        self.put(&format!("meta/datacoord-meta/s/1/2/{segment}"), info.encode_to_vec());
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        let key = self.key(key).into();
        let put = etcd::PutRequest { key, value: value.into(), ..etcd::PutRequest::default() };
        self.machine.run(quorate::command::Kind::Put(put)).expect("raw writes are open");
    }

    fn delete(&mut self, key: &str) {
        let key = self.key(key).into();
        let delete = etcd::DeleteRangeRequest { key, ..etcd::DeleteRangeRequest::default() };
        self.machine.run(quorate::command::Kind::DeleteRange(delete)).expect("raw writes are open");
    }

    fn key(&self, key: &str) -> String {
        match self.machine.state.settings().root_path.as_str() {
            "" => key.to_owned(),
            root => format!("{root}/{key}"),
        }
    }

    fn run(&mut self, kind: Kind) {
        self.run_all(vec![index(kind)]);
    }

    /// Several commands as one entry.
    fn run_all(&mut self, kinds: Vec<quorate::command::Kind>) {
        for outcome in self.machine.run_all(kinds) {
            self.tell(&outcome);
        }
        self.machine.check();
    }

    fn tell(&mut self, outcome: &Outcome) {
        let told = &mut self.told;
        match outcome {
            Ok(Response::Coordinator(done)) => {
                write!(told, "changed {:?}", done.changed).expect("a string grows");
                if !done.changed_names.is_empty() {
                    write!(told, " {:?}", done.changed_names).expect("a string grows");
                }
                for item in &done.refused {
                    let why = Refusal::of_item(item).expect("a refusal of this binary");
                    write!(told, "; {}: {why}", item.id).expect("a string grows");
                }
                told.push('\n');
            }
            Ok(other) => panic!("{other:?} answers no command of the coordinator"),
            Err(rejection) => writeln!(told, "{rejection}").expect("a string grows"),
        }
    }

    fn show(&mut self) {
        let Story { machine, told } = self;
        write!(told, "{}", machine.state.views().indexes()).expect("a string grows");
    }

    #[expect(clippy::needless_pass_by_value, reason = "as expect_test makes them")]
    fn is(&self, expected: Expect) {
        expected.assert_eq(&self.told);
    }
}

fn coordinator(area: Area) -> quorate::command::Kind {
    quorate::command::Kind::Coordinator(quorate::CoordinatorCommand { area: Some(area) })
}

fn index(kind: Kind) -> quorate::command::Kind {
    coordinator(Area::Index(quorate::IndexCommand { kind: Some(kind) }))
}

fn pair(key: &str, value: &str) -> KeyValuePair {
    KeyValuePair { key: key.to_owned(), value: value.to_owned() }
}

fn create(id: i64, field: i64, name: &str, index_type: &str) -> CreateIndex {
    let info = IndexInfo {
        collection_id: 1,
        field_id: field,
        index_id: id,
        index_name: name.to_owned(),
        type_params: vec![pair("dim", "8"), pair("max_length", "3")],
        index_params: vec![pair("index_type", index_type)],
        user_index_params: vec![pair("index_type", index_type)],
        // What is computed when somebody asks, and never stored.
        total_rows: 7,
        indexed_rows: 7,
        index_state_fail_reason: "none".to_owned(),
        ..IndexInfo::default()
    };
    let definition = FieldIndex { index_info: Some(info), deleted: true, create_time: 50 };
    CreateIndex { definition: Some(definition), field_name: format!("field{field}") }
}

fn build(build: i64, segment: i64) -> Option<BuildRef> {
    Some(BuildRef { collection: 1, partition: 2, segment, build })
}

fn add(builds: &[(i64, i64, i64)]) -> Kind {
    let new = |(id, segment, index): &(i64, i64, i64)| NewBuild {
        build: build(*id, *segment),
        index: *index,
        finished: false,
    };
    Kind::AddBuilds(AddBuilds { builds: builds.iter().map(new).collect() })
}

fn start(id: i64, segment: i64, expect_version: i64, node: i64) -> Kind {
    Kind::Start(StartBuild { build: build(id, segment), expect_version, node })
}

fn finish(id: i64, segment: i64, version: i64, result: BuildResult) -> Kind {
    Kind::Finish(FinishBuild { build: build(id, segment), version, result: Some(result) })
}

fn files(keys: &[&str]) -> BuildResult {
    BuildResult {
        file_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        size_bytes: 1024,
        engine_version: 3,
        ..BuildResult::default()
    }
}

fn failed(reason: &str) -> BuildResult {
    BuildResult { failure: reason.to_owned(), ..BuildResult::default() }
}

fn retry(id: i64, segment: i64, version: i64) -> Kind {
    let reason = "the node is gone".to_owned();
    Kind::Retry(RetryBuild { build: build(id, segment), version, reason })
}

fn remove_builds(builds: &[(i64, i64)]) -> Kind {
    let builds = builds.iter().filter_map(|(id, segment)| build(*id, *segment)).collect();
    Kind::RemoveBuilds(RemoveBuilds { builds })
}

#[test]
fn an_index_takes_the_name_that_is_asked_for_or_that_of_its_field() {
    let mut story = Story::new();
    story.run(Kind::Create(create(10, 100, "mine", "HNSW")));
    story.run(Kind::Create(create(11, 101, "", "HNSW")));
    story.run(Kind::Create(create(12, 100, "", "HNSW")));
    story.show();
    story.is(expect![[r#"
        changed [10] ["mine"]
        changed [11] ["field101"]
        changed [10] ["mine"]
        index 10 of collection 1: mine field 100 create 50 deleted false
        index 11 of collection 1: field101 field 101 create 50 deleted false
    "#]]);
}

#[test]
fn only_what_milvus_stores_of_a_definition_is_stored() {
    let story = Story::new().with_index(10, 100, "mine");
    let key = story.key("meta/field-index/1/10");
    let request = etcd::RangeRequest { key: key.into(), ..etcd::RangeRequest::default() };
    let plan = story.machine.state.plan_range(&request).expect("a plain get");
    let found = plan.fetch(&story.machine.store).expect("the store does not fail");
    let stored = FieldIndex::decode(found.kvs[0].value.clone()).expect("a definition");
    let asked = create(10, 100, "mine", "HNSW").definition.and_then(|asked| asked.index_info);
    let mut expected = asked.expect("a definition");
    expected.total_rows = 0;
    expected.indexed_rows = 0;
    expected.index_state_fail_reason.clear();
    let expected = FieldIndex { index_info: Some(expected), deleted: false, create_time: 50 };
    assert_eq!(stored, expected);
}

#[test]
fn the_same_definition_again_keeps_its_id_and_other_ones_are_refused_in_milvus_words() {
    let mut story = Story::new().with_index(10, 100, "mine");
    let mut again = create(11, 100, "mine", "HNSW");
    let definition = again.definition.as_mut().expect("a definition");
    definition.create_time = 90;
    definition.index_info.as_mut().expect("it has one").type_params.reverse();
    story.run(Kind::Create(again));
    story.run(Kind::Create(create(12, 100, "mine", "FLAT")));
    story.run(Kind::Create(create(13, 101, "mine", "HNSW")));
    story.run(Kind::Create(create(14, 100, "other", "HNSW")));
    story.run(Kind::Create(create(10, 102, "third", "HNSW")));
    let mut nameless = create(15, 103, "", "HNSW");
    nameless.field_name.clear();
    story.run(Kind::Create(nameless));
    story.show();
    story.is(expect![[r#"
        changed [10] ["mine"]
        CreateIndex failed: at most one distinct index is allowed per field
        CreateIndex failed: at most one distinct index is allowed per field
        CreateIndex failed: creating multiple indexes on same field is not supported
        index cannot be 10: it exists
        index_name cannot be empty: neither the request nor the field has a name
        index 10 of collection 1: mine field 100 create 90 deleted false
    "#]]);
}

#[test]
fn a_dropped_index_leaves_its_name_and_its_field_free() {
    let mut story = Story::new().with_index(10, 100, "mine");
    let drop =
        |indexes: &[i64]| Kind::Drop(DropIndexes { collection: 1, indexes: indexes.to_vec() });
    story.run(drop(&[10, 99]));
    story.run(drop(&[10]));
    story.run(Kind::Create(create(11, 100, "mine", "FLAT")));
    story.run(Kind::RemoveIndexes(RemoveIndexes { collection: 1, indexes: vec![10, 11, 99] }));
    story.show();
    story.is(expect![[r#"
        changed [10]; 99: index 99 is not known
        changed []
        changed [11] ["mine"]
        changed [10]; 11: index 11 is not marked deleted; 99: index 99 is not known
        index 11 of collection 1: mine field 100 create 50 deleted false
    "#]]);
}

#[test]
fn each_flushed_segment_gets_one_build_an_index() {
    let mut story = Story::new()
        .with_segment(5, SegmentState::Flushed)
        .with_segment(6, SegmentState::Growing)
        .with_segment(7, SegmentState::Flushing)
        .with_index(10, 100, "mine")
        .with_index(11, 101, "dropped");
    story.run(Kind::Drop(DropIndexes { collection: 1, indexes: vec![11] }));
    story.run(add(&[(20, 5, 10), (21, 5, 10), (22, 6, 10), (23, 7, 10), (24, 8, 10)]));
    story.run(add(&[(25, 5, 11), (26, 5, 12), (23, 5, 10)]));
    story.run_all(vec![index(add(&[(27, 7, 10)])), index(Kind::AddBuilds(AddBuilds::default()))]);
    story.show();
    story.is(expect![[r#"
        changed [11]
        changed [20, 23]; 21: build 20 is already there; 22: segment 6 is in state 2, which does not allow that; 24: segment 8 is not known
        changed []; 25: index 11 is not known; 26: index 12 is not known; 23: build 20 is already there
        changed []; 27: build 23 is already there
        changed []
        index 10 of collection 1: mine field 100 create 50 deleted false
        index 11 of collection 1: dropped field 101 create 50 deleted true
        build 20: Unissued segment 5 index 10 version 0 node 0 rows 500 files 0 bytes 0 deleted false
        build 23: Unissued segment 7 index 10 version 0 node 0 rows 700 files 0 bytes 0 deleted false
    "#]]);
}

#[test]
fn a_build_is_what_stock_writes() {
    let mut story = Story::new().with_segment(5, SegmentState::Flushed).with_index(10, 100, "mine");
    let new = NewBuild { build: build(20, 5), index: 10, finished: true };
    story.run(Kind::AddBuilds(AddBuilds { builds: vec![new] }));
    let key = story.key("meta/segment-index/1/2/5/20");
    let request = etcd::RangeRequest { key: key.into(), ..etcd::RangeRequest::default() };
    let plan = story.machine.state.plan_range(&request).expect("a plain get");
    let found = plan.fetch(&story.machine.store).expect("the store does not fail");
    let stored = proto::milvus::index::SegmentIndex::decode(found.kvs[0].value.clone());
    expect![[r#"
        Ok(
            SegmentIndex {
                collection_id: 1,
                partition_id: 2,
                segment_id: 5,
                num_rows: 500,
                index_id: 10,
                build_id: 20,
                node_id: 0,
                index_version: 0,
                state: Finished,
                fail_reason: "",
                index_file_keys: [],
                deleted: false,
                create_time: 5,
                serialize_size: 0,
                write_handoff: false,
                current_index_version: 0,
            },
        )
    "#]]
    .assert_debug_eq(&stored);
}

#[test]
fn an_attempt_is_on_record_and_only_that_one_can_end() {
    let mut story = Story::new()
        .with_segment(5, SegmentState::Flushed)
        .with_index(10, 100, "mine")
        .with_build(20, 5, 10);
    story.run(start(20, 5, 0, 7));
    story.run(start(20, 5, 0, 8));
    story.run(start(20, 5, 1, 8));
    story.run(finish(20, 5, 0, files(&["HNSW"])));
    story.run(retry(20, 5, 0));
    story.run(retry(20, 5, 1));
    story.show();
    story.run(retry(20, 5, 1));
    story.run(finish(20, 5, 1, files(&["HNSW"])));
    story.run(start(20, 5, 1, 8));
    story.run(finish(20, 5, 1, files(&["late"])));
    story.run(finish(20, 5, 2, files(&["HNSW"])));
    story.run(finish(20, 5, 2, files(&["HNSW"])));
    story.run(start(20, 5, 2, 8));
    story.run(start(21, 5, 0, 8));
    story.show();
    story.is(expect![[r#"
        changed [20]
        build 20 is at attempt 1, not at 0
        build 20 is in state 2, which does not allow that
        build 20 is at attempt 1, not at 0
        build 20 is at attempt 1, not at 0
        changed [20]
        index 10 of collection 1: mine field 100 create 50 deleted false
        build 20: Unissued segment 5 index 10 version 1 node 7 rows 500 files 0 bytes 0 deleted false because the node is gone
        build 20 is in state 1, which does not allow that
        build 20 is in state 1, which does not allow that
        changed [20]
        build 20 is at attempt 2, not at 1
        changed [20]
        build 20 is in state 3, which does not allow that
        build 20 is in state 3, which does not allow that
        build 21 is not known
        index 10 of collection 1: mine field 100 create 50 deleted false
        build 20: Finished segment 5 index 10 version 2 node 8 rows 500 files 1 bytes 1024 deleted false
    "#]]);
}

#[test]
fn what_needs_no_files_is_finished_without_an_attempt_and_a_failure_is_for_good() {
    let mut story = Story::new()
        .with_segment(5, SegmentState::Flushed)
        .with_segment(6, SegmentState::Flushed)
        .with_index(10, 100, "mine")
        .with_build(20, 5, 10)
        .with_build(21, 6, 10);
    story.run(finish(20, 5, 0, failed("no node was asked")));
    story.run(finish(20, 5, 0, BuildResult::default()));
    story.run(start(21, 6, 0, 7));
    story.run(finish(21, 6, 1, failed("out of memory")));
    story.run(start(21, 6, 1, 7));
    story.run(retry(21, 6, 1));
    story.show();
    story.is(expect![[r#"
        build 20 is in state 1, which does not allow that
        changed [20]
        changed [21]
        changed [21]
        build 21 is in state 4, which does not allow that
        build 21 is in state 4, which does not allow that
        index 10 of collection 1: mine field 100 create 50 deleted false
        build 20: Finished segment 5 index 10 version 0 node 0 rows 500 files 0 bytes 0 deleted false
        build 21: Failed segment 6 index 10 version 1 node 7 rows 600 files 0 bytes 0 deleted false because out of memory
    "#]]);
}

#[test]
fn nothing_is_started_for_a_dropped_segment_or_a_dropped_index() {
    let mut story = Story::new()
        .with_segment(5, SegmentState::Flushed)
        .with_segment(6, SegmentState::Flushed)
        .with_index(10, 100, "mine")
        .with_build(20, 5, 10)
        .with_build(21, 6, 10);
    story.segment(5, SegmentState::Dropped);
    story.run(start(20, 5, 0, 7));
    story.delete("meta/datacoord-meta/s/1/2/5");
    story.run(start(20, 5, 0, 7));
    story.run(Kind::Drop(DropIndexes { collection: 1, indexes: vec![10] }));
    story.run(start(21, 6, 0, 7));
    story.is(expect![[r#"
        segment 5 is in state 6, which does not allow that
        segment 5 is not known
        changed [10]
        index 10 is not known
    "#]]);
}

#[test]
fn builds_go_with_their_segment_or_their_index() {
    let mut story = Story::new();
    for segment in 5..=8 {
        story.segment(segment, SegmentState::Flushed);
    }
    let mut story = story
        .with_index(10, 100, "mine")
        .with_index(11, 101, "other")
        .with_build(20, 5, 10)
        .with_build(21, 6, 10)
        .with_build(22, 7, 10)
        .with_build(23, 8, 11);
    story.run(finish(21, 6, 0, BuildResult::default()));
    story.run(remove_builds(&[(20, 5), (21, 6), (22, 7), (23, 8), (24, 8)]));
    story.segment(5, SegmentState::Dropped);
    story.segment(6, SegmentState::Dropped);
    story.delete("meta/datacoord-meta/s/1/2/7");
    story.run(Kind::Drop(DropIndexes { collection: 1, indexes: vec![11] }));
    // The finished build of a dropped segment is still read, in place of its successor.
    story.run(remove_builds(&[(20, 5), (21, 6), (22, 7), (23, 8)]));
    story.show();
    story.is(expect![[r#"
        changed [21]
        changed []; 20: build 20 is still of use; 21: build 21 is still of use; 22: build 22 is still of use; 23: build 23 is still of use; 24: build 24 is not known
        changed [11]
        changed [20, 22, 23]; 21: build 21 is still of use
        index 10 of collection 1: mine field 100 create 50 deleted false
        index 11 of collection 1: other field 101 create 50 deleted true
        build 21: Finished segment 6 index 10 version 0 node 0 rows 600 files 0 bytes 0 deleted false
    "#]]);
}

#[test]
fn records_that_somebody_wrote_raw_are_left_alone() {
    let mut story = Story::new()
        .with_segment(5, SegmentState::Flushed)
        .with_index(10, 100, "mine")
        .with_build(20, 5, 10);
    story.put("meta/field-index/1/11", b"\xff\xff".to_vec());
    story.put("meta/segment-index/1/2/5/21", b"\xff\xff".to_vec());
    let other = proto::milvus::index::SegmentIndex { build_id: 99, ..Default::default() };
    story.put("meta/segment-index/1/2/5/22", other.encode_to_vec());
    story.run(Kind::Create(create(12, 102, "another", "HNSW")));
    story.run(Kind::Drop(DropIndexes { collection: 1, indexes: vec![11, 10] }));
    story.run(add(&[(23, 5, 10)]));
    story.run(start(21, 5, 0, 7));
    story.run(start(22, 5, 0, 7));
    story.run(remove_builds(&[(21, 5), (22, 5), (20, 5)]));
    story.run_all(vec![coordinator(Area::Index(quorate::IndexCommand { kind: None }))]);
    let root = story.key("");
    let told = story.told.replace(&root, "");
    expect![[r#"
        key meta/field-index/1/11 holds no record: failed to decode Protobuf message: invalid varint
        changed [10]; 11: key meta/field-index/1/11 holds no record: failed to decode Protobuf message: invalid varint
        changed []; 23: index 10 is not known
        key meta/segment-index/1/2/5/21 holds no record: failed to decode Protobuf message: invalid varint
        key meta/segment-index/1/2/5/22 holds no record: it names another build
        changed [20]; 21: key meta/segment-index/1/2/5/21 holds no record: failed to decode Protobuf message: invalid varint; 22: key meta/segment-index/1/2/5/22 holds no record: it names another build
        index cannot be no command: this version does not know it
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_replayed_command_changes_nothing_and_is_answered_as_before() {
    let mut story = Story::new()
        .with_segment(5, SegmentState::Flushed)
        .with_index(10, 100, "mine")
        .with_build(20, 5, 10);
    let entry = story.machine.entry(vec![index(start(20, 5, 0, 7)), index(start(20, 5, 0, 8))]);
    let first = story.machine.apply(std::slice::from_ref(&entry)).expect("it applies");
    let revision = story.machine.state.revision();
    // The origin did not hear of it and proposes it again.
    let again = crate::state::chunk::LogEntry {
        members: std::sync::Arc::default(),
        meta: crate::ids::EntryMeta { index: story.machine.index, ..entry.meta },
        batch: entry.batch.clone(),
    };
    story.machine.index += 1;
    let second = story.machine.apply(&[again]).expect("it applies");
    assert_eq!(first.outcomes, second.outcomes);
    assert_eq!(story.machine.state.revision(), revision);
    story.machine.check();
}
