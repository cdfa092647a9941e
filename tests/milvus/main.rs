//! The real Milvus 2.3.5 on three nodes: with its etcd replaced, and with its DataCoord replaced.
//!
//! The server comes out of the PyPI wheel `milvus` 2.3.5 and runs in namespaces of its own; see
//! `run.py` for what each scenario does and checks. On stock etcd, Milvus keeps its own DataCoord:
//! that is how the scenarios are tried.

#![allow(clippy::print_stdout, reason = "what a client said belongs to the test's output")]

use std::process::Command;
use std::time::Duration;

use chaos::cluster::ClusterKind;
use tests::clients::{milvus_python, repository, run};
use tests::fixture::kind;

/// One scenario of `run.py` at its small size, with what it printed.
fn check(scenario: &str, patience: Duration) {
    let kind = kind();
    let (name, coordinator) = match &kind {
        ClusterKind::Etcd(_) => ("etcd", "stock"),
        ClusterKind::Quorate(_) | ClusterKind::Ceiling(_) => ("quorate", "quorate"),
    };
    let mut command = python("run.py");
    command
        .args(["--kind", name, "--coordinator", coordinator, "--size", "small"])
        .args(["--scenario", scenario, "--binary"])
        .arg(kind.binary());
    succeeds(&mut command, patience);
}

fn python(script: &str) -> Command {
    let mut command = Command::new(milvus_python());
    command.arg("-B").arg(format!("tests/milvus/{script}")).current_dir(repository());
    command
}

fn succeeds(command: &mut Command, patience: Duration) {
    let said = run(command, "", patience);
    println!("{}", said.stdout);
    assert!(said.success, "{}{}", said.stdout, said.stderr);
}

#[test]
fn milvus_does_not_notice_that_the_leader_was_killed() {
    check("smoke", Duration::from_secs(300));
}

#[test]
fn the_checks_of_the_coordinator_find_what_is_broken() {
    succeeds(&mut python("checks_test.py"), Duration::from_secs(60));
}

#[test]
fn clients_of_milvus_are_told_what_stock_tells_them() {
    check("coordinator", Duration::from_secs(400));
}

#[test]
fn direct_questions_get_the_answers_of_stock() {
    check("questions", Duration::from_secs(200));
}

#[test]
fn no_row_is_lost_when_the_coordinator_is_killed() {
    check("faults", Duration::from_secs(300));
}

#[test]
fn a_channel_moves_while_it_is_compacted_and_loses_nothing() {
    // Stock has no way to ask for a move.
    if matches!(kind(), ClusterKind::Quorate(_)) {
        check("moving", Duration::from_secs(200));
    }
}

#[test]
fn a_channel_is_watched_soon_when_the_answer_of_its_data_node_is_lost() {
    // Stock takes five minutes for it.
    if matches!(kind(), ClusterKind::Quorate(_)) {
        check("lost-answer", Duration::from_secs(200));
    }
}

#[test]
fn operators_see_and_steer_what_is_done() {
    if matches!(kind(), ClusterKind::Quorate(_)) {
        check("operators", Duration::from_secs(200));
    }
}

#[test]
fn the_role_is_taken_from_stock_and_handed_back_with_nothing_lost() {
    check("handover", Duration::from_secs(300));
}

#[test]
fn deletes_that_overlap_with_compactions_are_in_their_results() {
    check("overlap", Duration::from_secs(200));
}
