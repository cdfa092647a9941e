//! The same operations, drawn from a seed, on stock etcd and on three nodes of ours.
//!
//! Every field of every answer must be equal, but for what names a node or counts elections. Ours
//! takes each operation on a node drawn at random; etcd gets all of them on one. What etcd leaves
//! open is left out or put in order first: the order of equal values in a sorted range, the
//! order of a lease's keys, the seconds that a lease has left.

mod answer;
mod compacted;
mod costs;
mod operation;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::fixture::{Fixture, kind, oracle};

use operation::{Draw, Operation};

const OPERATIONS_PER_SEED: usize = 1_500;
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn seed_1_gives_equal_answers() {
    check(1);
}

#[test]
fn seed_2_gives_equal_answers() {
    check(2);
}

#[test]
fn seed_3_gives_equal_answers() {
    check(3);
}

fn check(seed: u64) {
    let etcd = Fixture::start_kind(oracle());
    let ours = Fixture::start_kind(kind());
    let mut random = StdRng::seed_from_u64(seed);
    let mut draw = Draw::default();
    // A node that has just answered a write has applied it, so a local read there is not stale.
    let mut last_writer = 0;
    for number in 0..OPERATIONS_PER_SEED {
        let operation = draw.next(&mut random);
        let node = if operation.is_local() { last_writer } else { random.random_range(0..3) };
        let wanted = answer_of(&etcd, 0, &operation);
        let found = answer_of(&ours, node, &operation);
        draw.learn(&operation, &wanted);
        // A refusal may come from before the log, so it does not prove that the node has caught up.
        if operation.is_write() && found.starts_with("Ok") {
            last_writer = node;
        }
        assert_eq!(
            found, wanted,
            "operation {number} of seed {seed} on node {node}, ours left, etcd right: {operation:#?}"
        );
    }
    for node in 0..3 {
        for operation in draw.whole_history() {
            let wanted = answer_of(&etcd, 0, &operation);
            let found = answer_of(&ours, node, &operation);
            assert_eq!(found, wanted, "history on node {node} of seed {seed}: {operation:#?}");
        }
    }
}

fn answer_of(fixture: &Fixture, node: usize, operation: &Operation) -> String {
    let client = &fixture.cluster.nodes[node].client;
    fixture.runtime.block_on(answer::of(client, operation, PATIENCE))
}
