//! The Rust client `etcd-client` 0.21, built from crates.io as a package of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tests::clients::{python, repository, run};
use tests::fixture::Fixture;

#[test]
fn etcd_client_finds_an_etcd() {
    let program = build();
    let fixture = Fixture::start();
    let mut command = Command::new(program);
    let said =
        run(command.env("QUORATE_ENDPOINTS", fixture.endpoints()), "", Duration::from_secs(120));
    println!("{}", said.stdout);
    assert!(said.success, "{}{}", said.stdout, said.stderr);
}

/// Builds beside our own binaries, so that it is done once a machine.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let target = test.ancestors().nth(3).expect("it lies in TARGET/release/deps");
    let target = target.join("foreign");
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg("tests/clients/rust/Cargo.toml")
        .arg("--target-dir")
        .arg(&target)
        .current_dir(repository())
        .env("PROTOC", repository().join("tests/clients/protoc"))
        .env("PROTOC_PYTHON", python());
    let said = run(&mut command, "", Duration::from_secs(900));
    assert!(said.success, "{}", said.stderr);
    target.join("release/rust-etcd-client")
}
