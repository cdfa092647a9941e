//! What a person does with the binary `quorate`, and what it says when that is wrong.

mod backups;
mod bad_input;
mod edge;
mod members;
mod statuses;

use std::process::Command;
use std::time::{Duration, Instant};

use chaos::cluster::{Cluster, ClusterKind};
use serde_json::Value;
use tests::clients::{Said, run};
use tests::fixture::{Fixture, binary};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `quorate` with these arguments to its end.
fn quorate(arguments: &[&str]) -> Said {
    run(Command::new(binary("quorate")).args(arguments), "", PATIENCE)
}

/// Runs a command that takes endpoints, and reads the JSON that it prints.
fn ask(endpoints: &str, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--endpoints", endpoints, "--output", "json"]);
    let said = quorate(&all);
    serde_json::from_str(&said.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}{}", said.stdout, said.stderr))
}

/// Three nodes of ours, whatever the other tests run on: these are commands of ours.
fn three_nodes() -> Fixture {
    Fixture::start_kind(ClusterKind::Quorate(binary("quorate")))
}

/// Waits until `holds` does, and says what it waits for when it never does.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The arguments of a node with one of them replaced.
fn with_argument(cluster: &Cluster, node: usize, name: &str, value: &str) -> Vec<String> {
    let line = cluster.nodes[node].process.command_line();
    let mut arguments: Vec<String> =
        line.split_ascii_whitespace().skip(1).map(str::to_owned).collect();
    let at = arguments.iter().position(|argument| argument == name).expect("it is given");
    value.clone_into(&mut arguments[at + 1]);
    arguments
}
