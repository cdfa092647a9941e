//! The Python clients `etcd3` 0.12.0 and `aetcd` 1.0.0, from PyPI into an environment of their own.

use std::process::Command;
use std::time::Duration;

use tests::clients::{python, repository, run};
use tests::fixture::Fixture;

/// Runs one file of tests against three nodes.
fn check(file: &str) {
    let fixture = Fixture::start();
    let mut command = Command::new(python());
    command
        .args(["-B", &format!("tests/clients/python/{file}")])
        .current_dir(repository())
        .env("QUORATE_ENDPOINTS", fixture.endpoints())
        // The generated code of etcd3 is older than what protobuf's C parser takes.
        .env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
    let said = run(&mut command, "", Duration::from_secs(180));
    println!("{}", said.stderr);
    assert!(said.success, "{}{}", said.stdout, said.stderr);
}

#[test]
fn etcd3_finds_an_etcd() {
    check("etcd3_client.py");
}

#[test]
fn aetcd_finds_an_etcd() {
    check("aetcd_client.py");
}
