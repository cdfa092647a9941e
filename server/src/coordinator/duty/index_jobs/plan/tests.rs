use expect_test::{Expect, expect};

use super::*;
use crate::coordinator::indexing::tests::{Shelf, pairs};

const STOPPING: &str = r#","Stopping":true"#;

fn anywhere() -> Allowed {
    Allowed::parse("any").expect("a list")
}

#[test]
fn a_session_at_an_address_that_is_not_allowed_is_no_index_node() {
    let mut shelf = Shelf::new();
    let session = |id: i64, address: &str| {
        format!(
            r#"{{"ServerID":{id},"ServerName":"indexnode","Address":"{address}","Version":"2.3.5"}}"#
        )
    };
    for (id, address) in [(7, "10.0.0.7:21121"), (8, "8.8.8.8:21121"), (9, "evil.example:1")] {
        let key = format!("by-dev/meta/session/indexnode-{id}");
        shelf.put(key, session(id, address).into_bytes());
    }
    let told = |allowed: &str| {
        let allowed = Allowed::parse(allowed).expect("a list");
        let nodes = Nodes::of(&shelf.views, None, &allowed);
        let ready: Vec<i64> = nodes.ready().map(|node| node.0).collect();
        let refused: Vec<i64> = nodes.refused().keys().map(|node| node.0).collect();
        assert!(refused.iter().all(|node| !nodes.is_there(ServerId(*node))));
        (ready, refused)
    };
    assert_eq!(told("private"), (vec![7], vec![8, 9]));
    assert_eq!(told("8.8.8.8,*.example"), (vec![8, 9], vec![7]));
    assert_eq!(told("any"), (vec![7, 8, 9], vec![]));
}

#[expect(clippy::needless_pass_by_value, reason = "as expect_test makes them")]
fn check(shelf: &Shelf, bound: Option<ServerId>, expected: Expect) {
    let nodes = Nodes::of(&shelf.views, bound, &anywhere());
    expected.assert_eq(&Plan::make(&shelf.views, &nodes, 1024, 100, |_| false).to_string());
}

#[test]
fn builds_that_have_to_wait_keep_nobody_else_waiting() {
    let mut shelf = Shelf::new();
    shelf.session("indexnode", 7, "");
    shelf.index(10, 101, &pairs("DISKANN"));
    shelf.index(11, 102, &pairs("HNSW"));
    for segment in 1..=3 {
        shelf.segment(segment, 2000, "Flushed");
        shelf.build(20 + segment, segment, 10, "Unissued");
        shelf.build(30 + segment, segment, 11, "Unissued");
    }
    let plan = |shelf: &Shelf| {
        let nodes = Nodes::of(&shelf.views, None, &anywhere());
        Plan::make(&shelf.views, &nodes, 1024, 2, |build| build == BuildId(31)).to_string()
    };
    expect![[r#"
        start 32 at version 0
        start 33 at version 0
    "#]]
    .assert_eq(&plan(&shelf));
    shelf.session("indexnode", 8, r#","EnableDisk":true"#);
    expect![[r#"
        start 21 at version 0
        start 22 at version 0
    "#]]
    .assert_eq(&plan(&shelf));
}

#[test]
fn builds_are_started_asked_for_and_given_up_by_what_the_views_say() {
    let mut shelf = Shelf::new();
    shelf.session("indexnode", 7, "");
    shelf.session("indexnode", 8, STOPPING);
    shelf.index(10, 101, &pairs("HNSW"));
    shelf.index(11, 102, &pairs("FLAT"));
    shelf.index(12, 103, &pairs("Trie"));
    shelf.drop_index(12);
    shelf.segment(1, 2000, "Flushed");
    shelf.segment(2, 2000, "Dropped");
    shelf.segment(3, 100, "Flushed");
    shelf.build(20, 1, 10, "Unissued");
    shelf.attempt(21, 1, 10, "Unissued", (2, 7));
    shelf.attempt(22, 1, 10, "InProgress", (1, 7));
    shelf.attempt(23, 1, 10, "InProgress", (1, 8));
    shelf.attempt(24, 1, 10, "InProgress", (3, 9));
    shelf.build(25, 1, 11, "Unissued");
    shelf.build(26, 1, 12, "Unissued");
    shelf.attempt(27, 1, 12, "InProgress", (1, 7));
    shelf.build(28, 2, 10, "Unissued");
    shelf.attempt(29, 2, 10, "InProgress", (1, 7));
    shelf.build(30, 3, 10, "Unissued");
    shelf.attempt(31, 99, 10, "InProgress", (1, 7));
    shelf.build(32, 1, 10, "Finished");
    shelf.build(33, 1, 10, "Failed");
    // What no version of Milvus leaves behind, but could.
    shelf.attempt(34, 1, 10, "Retry", (1, 7));
    check(
        &shelf,
        None,
        expect![[r#"
            finish 25 at version 0
            finish 30 at version 0
            abandon 26 at version 0
            abandon 27 at version 1 on 7
            abandon 28 at version 0
            abandon 31 at version 1 on 7
            lost 24 at version 3 on 9
            query 22 at version 1 on 7
            query 29 at version 1 on 7
            query 23 at version 1 on 8
            start 20 at version 0
            start 21 at version 2 on 7
            start 34 at version 1 on 7
        "#]],
    );
    let nodes = Nodes::of(&shelf.views, None, &anywhere());
    assert_eq!(nodes.ready().collect::<Vec<_>>(), [ServerId(7)]);
}

#[test]
fn a_bound_node_needs_no_session() {
    let mut shelf = Shelf::new();
    shelf.session("indexnode", 7, "");
    shelf.index(10, 101, &pairs("HNSW"));
    shelf.segment(1, 2000, "Flushed");
    shelf.attempt(20, 1, 10, "InProgress", (1, 0));
    shelf.attempt(21, 1, 10, "InProgress", (1, 7));
    check(
        &shelf,
        Some(ServerId(0)),
        expect![[r#"
            lost 21 at version 1 on 7
            query 20 at version 1 on 0
        "#]],
    );
}

fn attempt(build: i64, version: i64, node: i64, needs_disk: bool) -> Attempt {
    let build = BuildRef { collection: 1, partition: 2, segment: 3, build };
    Attempt { build, version, node: ServerId(node), needs_disk }
}

fn placed(waiting: &[Attempt], free: &[(i64, usize, bool)], n_max: usize) -> Vec<(i64, i64)> {
    let free = free.iter().map(|(node, n_free, has_disk)| Slots {
        node: ServerId(*node),
        n_free: *n_free,
        has_disk: *has_disk,
    });
    let placed = place(waiting, free.collect(), n_max);
    placed.into_iter().map(|(attempt, node)| (attempt.build.build, node.0)).collect()
}

#[test]
fn the_oldest_builds_go_to_the_nodes_with_most_room() {
    let waiting: Vec<Attempt> = (1..=5).map(|build| attempt(build, 0, 0, false)).collect();
    let free = [(7, 1, false), (8, 2, false), (9, 0, false)];
    assert_eq!(placed(&waiting, &free, 9), [(1, 8), (2, 7), (3, 8)]);
    assert_eq!(placed(&waiting, &free, 2), [(1, 8), (2, 7)]);
    assert_eq!(placed(&waiting, &[], 9), []);
}

#[test]
fn what_needs_a_disk_waits_for_one_and_holds_nobody_up() {
    let waiting = [attempt(1, 0, 0, true), attempt(2, 0, 0, false)];
    assert_eq!(placed(&waiting, &[(7, 2, false)], 9), [(2, 7)]);
    assert_eq!(placed(&waiting, &[(7, 2, false), (8, 1, true)], 9), [(1, 8), (2, 7)]);
}

#[test]
fn another_attempt_goes_to_another_node_if_there_is_one() {
    let waiting = [attempt(1, 2, 7, false)];
    assert_eq!(placed(&waiting, &[(7, 9, false), (8, 1, false)], 9), [(1, 8)]);
    assert_eq!(placed(&waiting, &[(7, 9, false), (8, 0, false)], 9), [(1, 7)]);
}
