//! `quorate status` tells the health by its exit code, and the HTTP pages tell it to probes.

use std::process::Command;
use std::time::Duration;

use proto::etcd;
use serde_json::Value;
use tests::clients::run;
use tests::fixture::Fixture;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

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
    let (next, last) = ((leader + 1) % 3, (leader + 2) % 3);
    let watch = watch_that_needs_a_leader(&fixture, last);
    fixture.cluster.nodes[leader].process.kill().expect("it ran");
    wait_until("degraded", || health(&endpoints) == "degraded");
    fixture.cluster.nodes[next].process.kill().expect("it ran");
    wait_until("no leader", || {
        let said = quorate(&["status", "--endpoints", &endpoints, "--timeout", "3s"]);
        said.code == Some(3)
    });
    names_no_leader(&fixture, last);
    let ended = fixture.runtime.block_on(watch).expect("it ends by itself");
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    fixture.cluster.start_all().expect("they start again");
    wait_until("healthy again", || health(&endpoints) == "healthy");
}

#[test]
fn a_leader_whose_followers_hang_does_not_say_that_it_leads() {
    let mut fixture = three_nodes();
    let endpoints = fixture.endpoints();
    let leader = fixture.runtime.block_on(fixture.cluster.leader()).expect("one leads");
    for follower in [(leader + 1) % 3, (leader + 2) % 3] {
        fixture.cluster.nodes[follower].process.stop().expect("it ran");
    }
    let http = fixture.cluster.nodes[leader].ports.http();
    wait_until("the leader says so", || curl(&format!("http://{http}/leaderz")).ends_with("503"));
    names_no_leader(&fixture, leader);
    let own = fixture.cluster.nodes[leader].ports.client();
    let said = quorate(&["status", "--endpoints", &own, "--timeout", "1s"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    for follower in [(leader + 1) % 3, (leader + 2) % 3] {
        fixture.cluster.nodes[follower].process.resume().expect("it was paused");
    }
    wait_until("healthy", || ask(&endpoints, &["status"])["health"] == "healthy");
}

/// Every face of a node says that no leader has a majority.
fn names_no_leader(fixture: &Fixture, node: usize) {
    let node = &fixture.cluster.nodes[node];
    let http = node.ports.http();
    let get = |path: &str| curl(&format!("http://{http}/{path}"));
    assert!(get("leaderz").ends_with("503"), "{}", get("leaderz"));
    assert!(get("readyz").ends_with("503"), "{}", get("readyz"));
    assert!(get("livez").ends_with("200"), "{}", get("livez"));
    let metrics = get("metrics");
    assert!(metrics.contains("\nquorate_raft_has_leader 0\n"), "{metrics}");
    assert!(metrics.contains("\nquorate_raft_is_leader 0\n"), "{metrics}");
    let status = fixture.runtime.block_on(node.client.status(Duration::from_secs(2)));
    let status = status.expect("it answers by itself");
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));
}

/// Opens a watch at a node; resolves to what ends it.
fn watch_that_needs_a_leader(fixture: &Fixture, node: usize) -> JoinHandle<Status> {
    let mut client = fixture.cluster.nodes[node].client.watch();
    let create = etcd::WatchCreateRequest { key: "key".into(), ..Default::default() };
    let create = etcd::WatchRequest {
        request_union: Some(etcd::watch_request::RequestUnion::CreateRequest(create)),
    };
    // It stays open: the client sends nothing more.
    let requests = tokio_stream::once(create).chain(tokio_stream::pending());
    let mut request = tonic::Request::new(requests);
    request.metadata_mut().insert("hasleader", "true".parse().expect("it is ASCII"));
    let opened = fixture.runtime.block_on(client.watch(request)).expect("there is a leader");
    fixture.runtime.spawn(async move {
        let mut answers = opened.into_inner();
        loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the stream ended"),
                Err(status) => return status,
            }
        }
    })
}

/// The body and the code of an HTTP answer.
fn curl(url: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "5", "-w", "\n%{http_code}", url]);
    run(&mut command, "", Duration::from_secs(10)).stdout
}

#[test]
fn probes_are_answered_on_the_http_port_and_where_etcd_has_them() {
    let fixture = three_nodes();
    let get = |url: String| curl(&url);
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
