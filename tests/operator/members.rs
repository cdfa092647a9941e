//! Who belongs to the cluster: growing, replacing, and what a wiped node must never do.

use tests::fixture::Fixture;

use crate::{ask, quorate, three_nodes, wait_until, with_argument};

fn names(members: &serde_json::Value, role: &str) -> Vec<String> {
    let rows = members.as_array().expect("one row a member");
    let with_role = rows.iter().filter(|row| row["role"] == role);
    let mut names: Vec<String> =
        with_role.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn one_node_grows_to_three_while_it_serves() {
    let mut fixture = Fixture::not_started(3);
    let cluster = &mut fixture.cluster;
    let alone = format!("n1={}", cluster.nodes[0].ports.peer());
    let arguments = with_argument(cluster, 0, "--initial-cluster", &alone);
    cluster.nodes[0].process.set_args(arguments);
    cluster.nodes[0].process.start().expect("the binary runs");
    let first = cluster.nodes[0].ports.client();
    let put = |key: &str| quorate(&["put", key, "1", "--endpoints", &first]).success;
    wait_until("the first node serves", || put("alone"));
    for node in [1, 2] {
        cluster.nodes[node].process.start().expect("the binary runs");
        let name = cluster.nodes[node].name.clone();
        let peer = cluster.nodes[node].ports.peer();
        wait_until("the new node is added", || {
            quorate(&["member", "add", &peer, "--endpoints", &first]).success
        });
        wait_until("the learner has caught up and votes", || {
            quorate(&["member", "promote", &name, "--endpoints", &first]).success
        });
        assert!(put(&name));
    }
    assert_eq!(names(&ask(&first, &["member", "list"]), "voter"), ["n1", "n2", "n3"]);
    let last = cluster.nodes[2].ports.client();
    wait_until("the last node has what the first wrote", || {
        quorate(&["get", "alone", "--endpoints", &last]).success
    });
    cluster.nodes[0].process.kill().expect("it ran");
    wait_until("the other two go on", || {
        quorate(&["put", "later", "1", "--endpoints", &last]).success
    });
}

#[test]
fn a_wiped_node_comes_back_only_by_replacing_it() {
    let mut fixture = three_nodes();
    let cluster = &mut fixture.cluster;
    let endpoints = cluster.endpoints()[..2].join(",");
    assert!(quorate(&["put", "kept", "1", "--endpoints", &endpoints]).success);
    let before = ask(&endpoints, &["member", "list"]);
    cluster.nodes[2].process.kill().expect("it ran");
    std::fs::remove_dir_all(&cluster.nodes[2].data_dir).expect("the folder is ours");
    cluster.nodes[2].process.start().expect("the binary runs");
    wait_until("the wiped node says how it comes back", || {
        let log = std::fs::read_to_string(cluster.nodes[2].process.log_path()).unwrap_or_default();
        log.contains("quorate member replace n3 --with")
    });
    // It does not vote: with one of the others gone there is no majority.
    cluster.nodes[1].process.kill().expect("it ran");
    let alone = cluster.nodes[0].ports.client();
    let refused = quorate(&["put", "lost", "1", "--endpoints", &alone, "--timeout", "4s"]);
    assert!(!refused.success, "a wiped node made a majority");
    cluster.nodes[1].process.start().expect("the binary runs");
    wait_until("two of three serve again", || {
        quorate(&["put", "kept", "2", "--endpoints", &endpoints]).success
    });
    let peer = cluster.nodes[2].ports.peer();
    let arguments = ["member", "replace", "n3", "--with", &peer, "--endpoints", &endpoints];
    let replaced = quorate(&arguments);
    assert!(replaced.success, "{replaced:?}");
    let after = ask(&endpoints, &["member", "list"]);
    assert_eq!(names(&after, "voter"), ["n1", "n2", "n3"]);
    let id_of = |members: &serde_json::Value| {
        let rows = members.as_array().expect("one row a member");
        rows.iter().find(|row| row["name"] == "n3").map(|row| row["id"].clone())
    };
    assert_ne!(id_of(&before), id_of(&after), "a wiped node is a new node");
    let third = cluster.nodes[2].ports.client();
    wait_until("the new node has what was written", || {
        quorate(&["get", "kept", "--endpoints", &third]).stdout.contains('2')
    });
}

#[test]
fn a_member_is_removed_and_an_unknown_one_is_named() {
    let fixture = three_nodes();
    let endpoints = fixture.endpoints();
    let unknown = quorate(&["member", "remove", "n9", "--endpoints", &endpoints]);
    assert!(!unknown.success && unknown.stderr.contains("n9"), "{unknown:?}");
    let status = ask(&endpoints, &["status"]);
    let leader = status["leader"].as_str().expect("one leads");
    let follower = ["n1", "n2", "n3"].into_iter().find(|name| *name != leader).expect("two do not");
    let removed = quorate(&["member", "remove", follower, "--endpoints", &endpoints]);
    assert!(removed.success, "{removed:?}");
    assert_eq!(names(&ask(&endpoints, &["member", "list"]), "voter").len(), 2);
}
