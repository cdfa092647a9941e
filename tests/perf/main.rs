//! `etcdctl check perf`, alone: it judges latencies, and other tests would fill the machine.

#![allow(clippy::print_stdout, reason = "what a client said belongs to the test's output")]

use std::time::Duration;

use tests::clients::{etcdctl, run};
use tests::fixture::Fixture;

/// One minute of 150 writes a second by 50 clients; `etcdctl` judges rate and latency itself.
#[test]
fn check_perf_passes() {
    let fixture = Fixture::start();
    let mut command = etcdctl(&fixture.endpoints());
    let said = run(command.args(["check", "perf", "--load", "s"]), "", Duration::from_secs(150));
    let verdicts: Vec<&str> =
        said.stdout.lines().filter(|line| line.contains("PASS") || line.contains("FAIL")).collect();
    println!("{}", verdicts.join("\n"));
    assert!(said.success, "{said:?}");
    assert!(verdicts.iter().all(|line| !line.contains("FAIL")), "{verdicts:?}");
}
