//! The Rust client `etcd-client` 0.21, built from crates.io as a package of its own.

use std::process::Command;
use std::time::Duration;

use tests::clients::{repository, run};
use tests::fixture::{Fixture, target_dir};

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

fn build() -> String {
    let mut command = Command::new("tests/clients/build-rust");
    command.current_dir(repository()).env("CARGO_TARGET_DIR", target_dir());
    let said = run(&mut command, "", Duration::from_secs(900));
    assert!(said.success, "{}", said.stderr);
    said.stdout.trim().to_owned()
}
