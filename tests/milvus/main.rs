//! The real Milvus 2.3.5 with its etcd replaced by three nodes.
//!
//! The server comes out of the PyPI wheel `milvus` 2.3.5 and runs in namespaces of its own; see
//! `run.py` for what each scenario does and checks.

#![allow(clippy::print_stdout, reason = "what a client said belongs to the test's output")]

use std::process::Command;
use std::time::Duration;

use chaos::cluster::ClusterKind;
use tests::clients::{milvus_python, repository, run};
use tests::fixture::kind;

/// One scenario, with what it printed.
fn check(scenario: &str, patience: Duration) {
    let kind = kind();
    let name = match &kind {
        ClusterKind::Etcd(_) => "etcd",
        ClusterKind::Quorate(_) | ClusterKind::Ceiling(_) => "quorate",
    };
    let mut command = Command::new(milvus_python());
    command
        .args(["-B", "tests/milvus/run.py", "--kind", name, "--scenario", scenario, "--binary"])
        .arg(kind.binary())
        .current_dir(repository());
    let said = run(&mut command, "", patience);
    println!("{}", said.stdout);
    assert!(said.success, "{}{}", said.stdout, said.stderr);
}

#[test]
fn milvus_does_not_notice_that_the_leader_was_killed() {
    check("smoke", Duration::from_secs(300));
}
