//! A backup is whole or it is refused.

use std::path::Path;

use tests::fixture::Fixture;

use crate::{ask, quorate, three_nodes, wait_until};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_backup_is_saved_verified_and_restored_into_a_new_cluster() {
    let fixture = three_nodes();
    let endpoints = fixture.endpoints();
    for number in 0..20 {
        let (key, value) = (format!("k{number}"), "v".repeat(1000));
        assert!(quorate(&["put", &key, &value, "--endpoints", &endpoints]).success);
    }
    let file = fixture.cluster.folder().join("whole.qbk");
    let saved = quorate(&["backup", "save", text(&file), "--endpoints", &endpoints]);
    assert!(saved.success, "{saved:?}");
    let verified = quorate(&["backup", "verify", text(&file)]);
    assert!(verified.success, "{verified:?}");
    let again = quorate(&["backup", "save", text(&file), "--endpoints", &endpoints]);
    assert!(!again.success, "an older backup was overwritten");

    let mut fresh = Fixture::not_started(3);
    let restored = &mut fresh.cluster;
    let members: Vec<String> =
        restored.nodes.iter().map(|node| format!("{}={}", node.name, node.ports.peer())).collect();
    let members = members.join(",");
    for node in &restored.nodes {
        let data_dir = text(&node.data_dir);
        let arguments = [
            ["backup", "restore", text(&file)].as_slice(),
            &["--name", &node.name, "--data-dir", data_dir, "--initial-cluster", &members],
        ]
        .concat();
        let done = quorate(&arguments);
        assert!(done.success, "{done:?}");
        let twice = quorate(&arguments);
        assert!(!twice.success, "a data directory was overwritten");
    }
    restored.start_all().expect("the binary runs");
    let new_endpoints = restored.endpoints().join(",");
    wait_until("the new cluster has the old keys", || {
        quorate(&["get", "k7", "--endpoints", &new_endpoints]).success
    });
    let old = ask(&endpoints, &["status"]);
    let saved = old["nodes"][0]["revision"].as_i64().expect("a revision");
    let revision = serde_json::json!(saved + 1_000_000_000);
    // One node answered the read; the others may still be opening what was restored.
    wait_until("every node is a week of writes after the old revision", || {
        let nodes = ask(&new_endpoints, &["status"])["nodes"].clone();
        let nodes = nodes.as_array().expect("a list of nodes");
        nodes.len() == 3 && nodes.iter().all(|node| node["revision"] == revision)
    });
    let new = ask(&new_endpoints, &["status"]);
    assert_ne!(old["cluster_id"], new["cluster_id"], "a new cluster has a new id");
}

#[test]
fn a_damaged_backup_is_refused() {
    let fixture = three_nodes();
    let endpoints = fixture.endpoints();
    for number in 0..5 {
        let key = format!("k{number}");
        assert!(quorate(&["put", &key, "some value", "--endpoints", &endpoints]).success);
    }
    let file = fixture.cluster.folder().join("whole.qbk");
    assert!(quorate(&["backup", "save", text(&file), "--endpoints", &endpoints]).success);
    let whole = std::fs::read(&file).expect("it was saved");
    let damaged = fixture.cluster.folder().join("damaged.qbk");
    let verify = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).expect("the folder is ours");
        let said = quorate(&["backup", "verify", text(&damaged)]);
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
        said
    };
    assert!(verify(&whole).success);
    // Every part of the file, its ends included.
    for at in (0..whole.len()).step_by(whole.len() / 40 + 1).chain([whole.len() - 1]) {
        let mut edited = whole.clone();
        edited[at] ^= 0x20;
        assert!(!verify(&edited).success, "byte {at} of {} was edited", whole.len());
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert!(!verify(&whole[..length]).success, "cut to {length} bytes");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(!verify(&longer).success, "a byte was added");
}
