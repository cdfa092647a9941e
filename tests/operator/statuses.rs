//! `quorate status` tells the health by its exit code, and the HTTP pages tell it to probes.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::clients::run;

use crate::{ask, quorate, three_nodes, wait_until};

#[test]
fn status_follows_the_loss_of_one_node_and_of_the_majority() {
    let mut fixture = three_nodes();
    let endpoints = fixture.endpoints();
    let health = |endpoints: &str| ask(endpoints, &["status"])["health"].clone();
    wait_until("healthy", || health(&endpoints) == "healthy");
    let status = ask(&endpoints, &["status"]);
    let nodes = status["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3, "{status}");
    assert!(nodes.iter().all(|node| node["error"] == Value::Null), "{status}");
    let leaders = nodes.iter().filter(|node| node["role"] == "leader").count();
    assert_eq!(leaders, 1, "{status}");

    let leader = fixture.runtime.block_on(fixture.cluster.leader()).expect("one leads");
    fixture.cluster.nodes[leader].process.kill().expect("it ran");
    wait_until("degraded", || health(&endpoints) == "degraded");
    let next = (leader + 1) % 3;
    fixture.cluster.nodes[next].process.kill().expect("it ran");
    wait_until("no leader", || {
        let said = quorate(&["status", "--endpoints", &endpoints, "--timeout", "3s"]);
        !said.success
    });
    fixture.cluster.start_all().expect("they start again");
    wait_until("healthy again", || health(&endpoints) == "healthy");
}

#[test]
fn probes_are_answered_on_the_http_port_and_where_etcd_has_them() {
    let fixture = three_nodes();
    let get = |url: String| {
        let mut command = Command::new("curl");
        command.args(["-s", "-m", "5", "-w", "\n%{http_code}", &url]);
        run(&mut command, "", Duration::from_secs(10)).stdout
    };
    let mut leading = 0;
    for node in &fixture.cluster.nodes {
        let (client, http) = (node.ports.client(), node.ports.http());
        for path in ["livez", "readyz"] {
            assert!(get(format!("http://{http}/{path}")).ends_with("200"), "{path}");
        }
        leading += usize::from(get(format!("http://{http}/leaderz")).ends_with("200"));
        let metrics = get(format!("http://{http}/metrics"));
        assert!(metrics.contains("quorate_raft_has_leader 1"), "{metrics}");
        assert!(get(format!("http://{client}/health")).contains("\"health\":\"true\""));
        assert!(get(format!("http://{client}/version")).contains("\"etcdserver\":\"3."));
    }
    assert_eq!(leading, 1, "one leads");
}

#[test]
fn leadership_is_handed_over_and_keys_are_changed_from_the_command_line() {
    let fixture = three_nodes();
    let endpoints = fixture.endpoints();
    let leader = |status: &Value| status["leader"].as_str().unwrap_or_default().to_owned();
    let before = leader(&ask(&endpoints, &["status"]));
    let moved = ask(&endpoints, &["transfer"]);
    assert_ne!(moved["leader"], before.as_str(), "{moved}");
    assert_eq!(leader(&ask(&endpoints, &["status"])), moved["leader"]);
    let put = quorate(&["put", "hello", "world", "--endpoints", &endpoints]);
    assert!(put.success, "{put:?}");
    let got = quorate(&["get", "hello", "--endpoints", &endpoints]);
    assert!(got.success && got.stdout.contains("world"), "{got:?}");
    assert!(quorate(&["del", "hello", "--endpoints", &endpoints]).success);
    let digests = ask(&endpoints, &["digest"]);
    let rows = digests.as_array().expect("one row a node");
    assert!(rows.iter().all(|row| row["content"] == rows[0]["content"]), "{digests}");
}
