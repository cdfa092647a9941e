use std::collections::BTreeSet;
use std::fmt::Write;

use expect_test::{Expect, expect};
use statemachine::view::SegmentId;

use super::survey::Places;
use super::*;
use crate::coordinator::indexing::tests::{Shelf, pairs};

#[expect(clippy::needless_pass_by_value, reason = "as expect_test makes them")]
fn check(shelf: &Shelf, expected: Expect) {
    let all: Vec<SegmentId> = shelf.views.segments().iter().map(|(id, _)| id).collect();
    let mut text = String::new();
    for wish in wishes(&shelf.views, &all, 1024) {
        writeln!(text, "{wish}").expect("a string grows");
    }
    expected.assert_eq(&text);
}

#[test]
fn each_flushed_segment_lacks_what_is_defined_and_not_there() {
    let mut shelf = Shelf::new();
    shelf.segment(3, 5000, "Growing");
    shelf.segment(4, 5000, "Dropped");
    shelf.segment(5, 5000, "Flushed");
    shelf.segment(6, 1023, "Flushed");
    shelf.segment(7, 1024, "Flushing");
    shelf.index(10, 101, &pairs("HNSW"));
    shelf.index(11, 102, &pairs("FLAT"));
    shelf.index(12, 103, &pairs("BIN_FLAT"));
    shelf.index(13, 104, &pairs("Trie"));
    shelf.drop_index(13);
    shelf.build(20, 5, 11, "Failed");
    check(
        &shelf,
        expect![[r#"
            index 10 of segment 5: to be built
            index 12 of segment 5: finished without files
            index 10 of segment 6: finished without files
            index 11 of segment 6: finished without files
            index 12 of segment 6: finished without files
            index 10 of segment 7: to be built
            index 11 of segment 7: finished without files
            index 12 of segment 7: finished without files
        "#]],
    );
}

#[test]
fn a_survey_takes_what_changed_first_and_walks_collections_in_slices() {
    let mut shelf = Shelf::new();
    for segment in 1..=5 {
        shelf.segment(segment, 5000, "Flushed");
    }
    shelf.index(10, 101, &pairs("HNSW"));
    let mut places = Places::default();
    places.note(b"by-dev/meta/datacoord-meta/s/1/2/4");
    places.note(b"by-dev/meta/datacoord-meta/s/1/2/x");
    places.note(b"by-dev/meta/datacoord-meta/binlog/1/2/5/100");
    places.note(b"by-dev/meta/field-index/1/10");
    places.note(b"\xff");
    let mut seen = Vec::new();
    loop {
        let taken = places.take(&shelf.views, 3);
        if taken.is_empty() {
            break;
        }
        seen.push(taken.iter().map(|id| id.0).collect::<Vec<_>>());
    }
    assert_eq!(seen, [vec![4, 1, 2], vec![3, 4, 5]]);

    places.add_all(&shelf.views);
    let all: BTreeSet<i64> = places.take(&shelf.views, 99).iter().map(|id| id.0).collect();
    assert_eq!(all, BTreeSet::from([1, 2, 3, 4, 5]));
    assert_eq!(places, Places::default());
}
