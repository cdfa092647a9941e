use std::fmt::Write;

use expect_test::{Expect, expect};
use prost::Message;
use proto::etcd;
use proto::milvus::common::{IndexState, KeyValuePair, SegmentState};
use proto::milvus::data::SegmentInfo;
use proto::milvus::index::{FieldIndex, IndexInfo, SegmentIndex};
use proto::milvus::schema::{DataType, FieldSchema};
use proto::quorate::SegmentRef;
use statemachine::coordinator::keys::Keys;
use statemachine::view::{CollectionId, FieldId, IndexId, SegmentId, Views};

use super::*;

const ROOT: &str = "by-dev";

/// Views of collection 1, filled by hand.
pub(crate) struct Shelf {
    pub(crate) views: Views,
    revision: i64,
}

/// Parameters of an index of a type.
pub(crate) fn pairs(index_type: &str) -> Vec<KeyValuePair> {
    vec![KeyValuePair { key: "index_type".to_owned(), value: index_type.to_owned() }]
}

pub(crate) fn of(segment: i64) -> SegmentRef {
    SegmentRef { collection: 1, partition: 2, segment }
}

impl Shelf {
    pub(crate) fn new() -> Shelf {
        Shelf { views: Views::new(ROOT), revision: 0 }
    }

    pub(crate) fn put(&mut self, key: String, value: Vec<u8>) {
        self.revision += 1;
        self.views.put(&etcd::KeyValue {
            key: key.into(),
            value: value.into(),
            mod_revision: self.revision,
            ..etcd::KeyValue::default()
        });
    }

    fn keys() -> Keys<'static> {
        Keys { root_path: ROOT }
    }

    pub(crate) fn session(&mut self, role: &str, id: i64, more: &str) {
        let value = format!(
            r#"{{"ServerID":{id},"ServerName":"{role}","Address":"h:{id}","Version":"2.3.5"{more}}}"#
        );
        self.put(format!("{ROOT}/meta/session/{role}-{id}"), value.into_bytes());
    }

    pub(crate) fn field(&mut self, id: i64, name: &str, data_type: DataType) {
        let mut field =
            FieldSchema { field_id: id, name: name.to_owned(), ..FieldSchema::default() };
        field.set_data_type(data_type);
        let key = format!("{ROOT}/meta/root-coord/fields/1/{id}");
        self.put(key, field.encode_to_vec());
    }

    pub(crate) fn index(&mut self, id: i64, field: i64, params: &[KeyValuePair]) {
        self.definition(id, field, params, false);
    }

    pub(crate) fn drop_index(&mut self, id: i64) {
        let found = self.views.indexes().definition(CollectionId(1), IndexId(id));
        let field = found.map_or(0, |definition| definition.field.0);
        self.definition(id, field, &[], true);
    }

    fn definition(&mut self, id: i64, field: i64, params: &[KeyValuePair], deleted: bool) {
        let (type_params, index_params) =
            params.iter().cloned().partition(|pair| pair.key == "dim");
        let info = IndexInfo {
            collection_id: 1,
            field_id: field,
            index_id: id,
            index_name: format!("index{id}"),
            type_params,
            index_params,
            ..IndexInfo::default()
        };
        let record = FieldIndex { index_info: Some(info), deleted, create_time: 1000 };
        self.put(Shelf::keys().field_index(1, id), record.encode_to_vec());
    }

    pub(crate) fn segment(&mut self, id: i64, rows: i64, state: &str) {
        self.segment_from(id, rows, state, &[], 0);
    }

    pub(crate) fn segment_from(
        &mut self,
        id: i64,
        rows: i64,
        state: &str,
        parents: &[i64],
        last_expire_ts: u64,
    ) {
        let state = SegmentState::from_str_name(state).expect("a state");
        let info = SegmentInfo {
            id,
            collection_id: 1,
            partition_id: 2,
            num_of_rows: rows,
            state: state.into(),
            compaction_from: parents.to_vec(),
            last_expire_time: last_expire_ts,
            ..SegmentInfo::default()
        };
        self.put(Shelf::keys().segment(of(id)), info.encode_to_vec());
    }

    pub(crate) fn build(&mut self, id: i64, segment: i64, index: i64, state: &str) {
        self.attempt(id, segment, index, state, (0, 0));
    }

    /// A build at a version on a node.
    pub(crate) fn attempt(
        &mut self,
        id: i64,
        segment: i64,
        index: i64,
        state: &str,
        (version, node): (i64, i64),
    ) {
        let state = IndexState::from_str_name(state).expect("a state");
        let found = self.views.segments().get(SegmentId(segment));
        let record = SegmentIndex {
            collection_id: 1,
            partition_id: 2,
            segment_id: segment,
            num_rows: found.map_or(0, |segment| segment.rows),
            index_id: index,
            build_id: id,
            node_id: node,
            index_version: version,
            state: state.into(),
            fail_reason: if state == IndexState::Failed { "out of memory" } else { "" }.to_owned(),
            ..SegmentIndex::default()
        };
        self.put(Shelf::keys().segment_index(of(segment), id), record.encode_to_vec());
    }
}

fn told(shelf: &Shelf, since: Since) -> String {
    let Progress { total_rows, indexed_rows, pending_rows, state, failure } =
        progress(&shelf.views, CollectionId(1), IndexId(10), since);
    format!("{state:?} {indexed_rows} of {total_rows}, {pending_rows} pending {failure}")
}

#[expect(clippy::needless_pass_by_value, reason = "as expect_test makes them")]
fn check(shelf: &Shelf, expected: Expect) {
    let mut text = String::new();
    for since in [Since::Now, Since::Request { ts: 1000 }, Since::Request { ts: 3000 }] {
        writeln!(text, "{since:?}: {}", told(shelf, since)).expect("a string grows");
    }
    expected.assert_eq(&text);
}

#[test]
fn an_empty_collection_is_indexed_at_once() {
    let mut shelf = Shelf::new();
    shelf.index(10, 101, &pairs("HNSW"));
    shelf.segment(5, 700, "Growing");
    check(
        &shelf,
        expect![[r#"
            Now: Finished 0 of 0, 0 pending 
            Request { ts: 1000 }: Finished 0 of 0, 0 pending 
            Request { ts: 3000 }: Finished 0 of 0, 0 pending 
        "#]],
    );
}

#[test]
fn segments_that_came_after_the_request_are_counted_but_not_waited_for() {
    let mut shelf = Shelf::new();
    shelf.index(10, 101, &pairs("HNSW"));
    shelf.segment_from(5, 2000, "Flushed", &[], 900);
    shelf.segment_from(6, 3000, "Flushed", &[], 2000);
    shelf.build(20, 5, 10, "Finished");
    check(
        &shelf,
        expect![[r#"
            Now: Finished 2000 of 5000, 3000 pending 
            Request { ts: 1000 }: Finished 2000 of 5000, 3000 pending 
            Request { ts: 3000 }: InProgress 2000 of 5000, 3000 pending 
        "#]],
    );
    shelf.attempt(21, 6, 10, "InProgress", (1, 7));
    check(
        &shelf,
        expect![[r#"
            Now: InProgress 2000 of 5000, 3000 pending 
            Request { ts: 1000 }: Finished 2000 of 5000, 3000 pending 
            Request { ts: 3000 }: InProgress 2000 of 5000, 3000 pending 
        "#]],
    );
}

#[test]
fn a_failure_is_told_with_its_segment() {
    let mut shelf = Shelf::new();
    shelf.index(10, 101, &pairs("HNSW"));
    shelf.segment(5, 2000, "Flushed");
    shelf.segment(6, 3000, "Flushed");
    shelf.build(20, 5, 10, "Failed");
    shelf.build(21, 6, 10, "Unissued");
    check(
        &shelf,
        expect![[r#"
            Now: Failed 0 of 5000, 5000 pending 5: out of memory;
            Request { ts: 1000 }: Failed 0 of 5000, 5000 pending 5: out of memory;
            Request { ts: 3000 }: Failed 0 of 5000, 5000 pending 5: out of memory;
        "#]],
    );
}

#[test]
fn what_a_result_was_compacted_from_is_searched_until_it_has_its_index() {
    let mut shelf = Shelf::new();
    shelf.index(10, 101, &pairs("HNSW"));
    shelf.segment(1, 1000, "Dropped");
    shelf.segment(2, 1100, "Dropped");
    shelf.segment_from(3, 2090, "Dropped", &[1, 2], 0);
    shelf.segment(4, 1200, "Dropped");
    // This input is still there: it counts once.
    shelf.segment(6, 500, "Flushed");
    shelf.segment_from(5, 3280, "Flushed", &[3, 4, 6, 99], 0);
    shelf.build(20, 1, 10, "Finished");
    shelf.build(21, 2, 10, "Finished");
    shelf.build(22, 4, 10, "Finished");
    shelf.attempt(23, 5, 10, "InProgress", (1, 7));
    shelf.build(24, 6, 10, "Finished");
    check(
        &shelf,
        expect![[r#"
            Now: InProgress 500 of 3780, 3280 pending 
            Request { ts: 1000 }: InProgress 3800 of 3780, 3280 pending 
            Request { ts: 3000 }: InProgress 3800 of 3780, 3280 pending 
        "#]],
    );
}

#[test]
fn the_first_vector_field_counts_and_only_with_a_live_index() {
    let mut shelf = Shelf::new();
    shelf.segment(5, 2000, "Flushed");
    let state = |shelf: &Shelf| vector_index_state(&shelf.views, SegmentId(5));
    shelf.field(100, "id", DataType::Int64);
    shelf.field(101, "v", DataType::FloatVector);
    shelf.index(10, 100, &pairs("STL_SORT"));
    assert_eq!(state(&shelf), None);
    shelf.index(11, 101, &pairs("HNSW"));
    assert_eq!(state(&shelf), Some(IndexState::Unissued));
    shelf.build(20, 5, 10, "Finished");
    shelf.build(21, 5, 11, "InProgress");
    assert_eq!(state(&shelf), Some(IndexState::InProgress));
    shelf.build(21, 5, 11, "Finished");
    assert_eq!(state(&shelf), Some(IndexState::Finished));
    shelf.drop_index(11);
    assert_eq!(state(&shelf), None);
    assert_eq!(vector_index_state(&shelf.views, SegmentId(6)), None);
}

#[test]
fn without_a_schema_the_field_with_dimensions_is_the_vector() {
    let mut shelf = Shelf::new();
    shelf.segment(5, 2000, "Flushed");
    shelf.index(10, 100, &pairs("STL_SORT"));
    assert_eq!(vector_index_state(&shelf.views, SegmentId(5)), None);
    let mut params = pairs("HNSW");
    params.push(KeyValuePair { key: "dim".to_owned(), value: "8".to_owned() });
    shelf.index(11, 101, &params);
    assert_eq!(vector_index_state(&shelf.views, SegmentId(5)), Some(IndexState::Unissued));
}

#[test]
fn fields_have_names_and_query_nodes_agree_on_a_format() {
    let mut shelf = Shelf::new();
    assert_eq!(engine_version(&shelf.views), 0);
    shelf.field(101, "v", DataType::FloatVector);
    assert_eq!(field_name(&shelf.views, CollectionId(1), FieldId(101)).as_deref(), Some("v"));
    assert_eq!(field_name(&shelf.views, CollectionId(1), FieldId(102)), None);
    let versions = |newest: i32| {
        format!(
            r#","IndexEngineVersion":{{"MinimalIndexVersion":0,"CurrentIndexVersion":{newest}}}"#
        )
    };
    shelf.session("querynode", 7, &versions(4));
    shelf.session("querynode", 8, &versions(3));
    assert_eq!(engine_version(&shelf.views), 3);
}
