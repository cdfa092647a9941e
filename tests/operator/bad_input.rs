//! A wrong configuration or address gets a message that names what was given, the bound and what to
//! do; nothing hangs and nothing panics.

use std::net::TcpListener;
use std::time::Duration;

use tests::clients::Said;
use tests::fixture::Fixture;

use crate::{quorate, three_nodes, wait_until};

/// Refused with all of these words in the message, and without a panic.
fn refuses(said: &Said, words: &[&str]) {
    assert!(!said.success, "it was accepted: {}", said.stdout);
    for word in words {
        let told = said.stderr.contains(word) || said.stdout.contains(word);
        assert!(told, "`{word}` is not in: {}{}", said.stdout, said.stderr);
    }
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
}

#[test]
fn a_setting_that_does_not_fit_is_named_with_its_place() {
    let fixture = Fixture::not_started(1);
    let cluster = &fixture.cluster;
    let folder = cluster.folder();
    let file = folder.join("quorate.toml");
    let serve = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("the folder is ours");
        let file = file.to_str().expect("UTF-8");
        let data_dir = folder.join("n1");
        let mut arguments = vec!["serve", "--config", file, "--data-dir"];
        arguments.push(data_dir.to_str().expect("UTF-8"));
        arguments.extend(more);
        quorate(&arguments)
    };
    refuses(
        &serve("name = \"n1\"\nlisten-clent = \"127.0.0.1:1\"\n", &[]),
        &["quorate.toml:2", "listen-clent", "did you mean `listen-client`"],
    );
    refuses(
        &serve("name = \"n1\"\nmax-request-bytes = \"12 parsecs\"\n", &[]),
        &["max-request-bytes", "12 parsecs"],
    );
    refuses(&serve("name = \"n1\n", &[]), &["quorate.toml:1", "TOML"]);
    refuses(
        &serve("name = \"n1\"\n", &["--listen-client", "nowhere"]),
        &["listen-client", "nowhere"],
    );
    refuses(
        &serve("name = \"n1\"\n", &["--heartbeat-interval", "1s", "--election-timeout-min", "1s"]),
        &["election-timeout"],
    );
    refuses(
        &serve("name = \"n1\"\n", &["--initial-cluster", "n2=127.0.0.1:1,n3=127.0.0.1:2"]),
        &["initial-cluster", "n1"],
    );
    refuses(&serve("", &[]), &["name"]);
}

#[test]
fn a_port_in_use_is_named() {
    let mut fixture = Fixture::not_started(1);
    let cluster = &mut fixture.cluster;
    let taken = cluster.nodes[0].ports.client();
    let _listener = TcpListener::bind(&taken).expect("it was free");
    cluster.nodes[0].process.start().expect("the binary runs");
    wait_until("the node gave up", || cluster.nodes[0].process.exited_by_itself().is_some());
    let log = cluster.log_tails();
    assert!(log.contains(&taken) && log.contains("in use"), "{log}");
}

#[test]
fn a_data_directory_belongs_to_one_node() {
    let mut fixture = three_nodes();
    let cluster = &mut fixture.cluster;
    cluster.nodes[0].process.kill().expect("it ran");
    let arguments = crate::with_argument(cluster, 0, "--name", "n2");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refuses(&quorate(&arguments), &["n1", "n2"]);
    // While it runs, nobody else gets it.
    cluster.nodes[0].process.start().expect("the binary runs");
    let node = &cluster.nodes[0];
    fixture.runtime.block_on(async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while node.client.status(Duration::from_secs(1)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "it does not serve again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let arguments = crate::with_argument(cluster, 0, "--listen-client", "127.0.0.1:0");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = quorate(&arguments);
    assert!(!said.success && !said.stderr.contains("panicked"), "{said:?}");
}

#[test]
fn an_endpoint_that_does_not_answer_is_named_in_time() {
    let fixture = Fixture::not_started(1);
    let cluster = &fixture.cluster;
    let nobody = cluster.nodes[0].ports.client();
    for command in [["status"].as_slice(), &["get", "k"], &["put", "k", "v"], &["member", "list"]] {
        let mut arguments = command.to_vec();
        arguments.extend(["--endpoints", &nobody, "--timeout", "2s"]);
        refuses(&quorate(&arguments), &[&nobody]);
    }
    refuses(&quorate(&["status", "--endpoints", "no-port"]), &["no-port"]);
}
