//! What a put costs the apply thread: prepare and commit, without the store.
//!
//! `cargo run --release -p quorate-statemachine --example apply_bench [keys] [batch] [value bytes]`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::float_arithmetic,
    reason = "a program that measures and prints"
)]

use std::time::Duration;

use bytes::Bytes;
use proto::etcd;
use proto::quorate::command::Kind;
use statemachine::testkit::Machine;
use statemachine::{LogEntry, Readers};

/// Time that this thread ran. Other processes on the machine do not count, as far as the caches are
/// not theirs.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.expect("the first number is nanoseconds"))
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let n_keys: u64 = numbers.next().unwrap_or(1_000_000);
    let batch: u64 = numbers.next().unwrap_or(256);
    let value_bytes = usize::try_from(numbers.next().unwrap_or(300)).expect("a size");
    println!("{n_keys} keys, {batch} puts an entry, values of {value_bytes} bytes");
    for (name, shuffled) in [("ascending", false), ("shuffled", true)] {
        let mut machine = Machine::new();
        for round in ["create", "overwrite"] {
            measure(&mut machine, &format!("{name} {round}"), n_keys, batch, value_bytes, shuffled);
        }
        let memory = machine.state.index_memory_bytes() as f64 / machine.state.n_keys() as f64;
        println!("{name:9} index      {memory:.1} bytes a key, keys included");
        let before = on_cpu();
        let state = statemachine::State::load(&machine.store).expect("the store loads");
        println!("{name:9} load       {:.0} ms", (on_cpu() - before).as_secs_f64() * 1e3);
        assert_eq!(state.digests(), machine.state.digests());
    }
}

fn measure(
    machine: &mut Machine,
    name: &str,
    n_keys: u64,
    batch: u64,
    value_bytes: usize,
    shuffled: bool,
) {
    let (mut prepare, mut store, mut commit) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut rows = 0;
    for first in (0..n_keys).step_by(usize::try_from(batch).expect("a count")) {
        let entry = entry(machine, first..(first + batch).min(n_keys), value_bytes, shuffled);
        let start = on_cpu();
        let prepared = machine
            .state
            .prepare(&machine.store, std::slice::from_ref(&entry), Readers::All)
            .expect("puts apply");
        let prepared_at = on_cpu();
        rows += prepared.changes().len();
        machine.store.apply(prepared.changes());
        let stored_at = on_cpu();
        let applied = machine.state.commit(prepared);
        commit += on_cpu() - stored_at;
        prepare += prepared_at - start;
        store += stored_at - prepared_at;
        assert!(applied.outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "puts are accepted");
    }
    let each = |total: Duration| total.as_secs_f64() * 1e6 / n_keys as f64;
    println!(
        "{name:20} {:.2} us a put: prepare {:.2}, commit {:.2} (store {:.2}; {:.2} rows a put)",
        each(prepare + commit),
        each(prepare),
        each(commit),
        each(store),
        rows as f64 / n_keys as f64,
    );
}

fn entry(
    machine: &mut Machine,
    keys: std::ops::Range<u64>,
    value_bytes: usize,
    shuffled: bool,
) -> LogEntry {
    machine.settled_below = machine.next_seq.saturating_sub(1024);
    let puts = keys.map(|nth| {
        let number = if shuffled { nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 } else { nth };
        Kind::Put(etcd::PutRequest {
            key: format!("by-dev/meta/datacoord-meta/s/{number:020}").into(),
            value: Bytes::from(vec![u8::try_from(nth % 251).expect("small"); value_bytes]),
            ..Default::default()
        })
    });
    machine.entry(puts.collect())
}
