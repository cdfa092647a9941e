//! `etcdctl check perf`, alone: it judges latencies, and other tests would fill the machine.

#![allow(clippy::print_stdout, reason = "what a client said belongs to the test's output")]

use std::time::Duration;

use chaos::synced_writes::SyncedWrites;
use tests::clients::{etcdctl, run};
use tests::fixture::Fixture;

/// `etcdctl` allows a request half a second. A disk that took this long for one synced write has
/// used it up: a write of ours waits for one that is under way and for its own.
const DISK_STALL_MS: f64 = 200.0;
/// A disk that stands still in each of them is no disk to measure on.
const MINUTES_MAX: usize = 3;

/// One minute of 150 writes a second by 50 clients; `etcdctl` judges rate and latency itself. A
/// minute in which the disk stood still beside the servers says nothing of them: it is repeated.
#[test]
fn check_perf_passes() {
    let fixture = Fixture::start();
    for _ in 0..MINUTES_MAX {
        let disk = SyncedWrites::start(fixture.cluster.folder()).expect("a folder of the test");
        let mut command = etcdctl(&fixture.endpoints());
        let said =
            run(command.args(["check", "perf", "--load", "s"]), "", Duration::from_secs(150));
        let longest_ms = disk.end().expect("the disk takes it").longest_ms;
        let lines = said.stdout.lines().flat_map(|line| line.split('\r'));
        let is_verdict = |line: &&str| {
            ["PASS", "FAIL", "too long", "too high", "too low"]
                .iter()
                .any(|word| line.contains(word))
        };
        let verdicts: Vec<&str> = lines.filter(is_verdict).collect();
        println!("{}\nlongest synced write beside it: {longest_ms:.0} ms", verdicts.join("\n"));
        let is_passed = said.success && verdicts.iter().all(|line| line.starts_with("PASS"));
        if is_passed {
            return;
        }
        assert!(longest_ms >= DISK_STALL_MS, "the disk was well ({longest_ms:.0} ms): {said:?}");
    }
    panic!("the disk stood still in each of {MINUTES_MAX} minutes");
}
