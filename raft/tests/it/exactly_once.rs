//! However often leaders change, every command takes effect once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raft::{Consistency, Node};
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, put, read, soon, within};

/// Puts the same key again and again: its version counts how often that took effect.
fn count(node: Node, key: &'static str, stop: Arc<AtomicBool>) -> JoinHandle<i64> {
    tokio::spawn(async move {
        let mut n_acknowledged = 0;
        while !stop.load(Ordering::Relaxed) {
            let committed = node.propose(put(key, "x"), within(20_000)).await.unwrap();
            committed.outcome.unwrap();
            n_acknowledged += 1;
        }
        n_acknowledged
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_takes_effect_once_across_leader_changes() {
    let cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut counters = Vec::new();
    for (n, key) in ["a", "b", "c"].into_iter().enumerate() {
        for _ in 0..4 {
            counters.push((key, count(cluster.node(n).clone(), key, Arc::clone(&stop))));
        }
    }
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let leader = cluster.wait_leader().await;
        if round % 2 == 0 {
            cluster.node(leader).transfer_leader(None, soon()).await.unwrap();
        } else {
            cluster.isolate(leader);
            cluster.wait_other_leader(leader).await;
            cluster.net.heal();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut expected = std::collections::BTreeMap::new();
    for (key, counter) in counters {
        *expected.entry(key).or_insert(0) += counter.await.unwrap();
    }
    for (key, n_acknowledged) in expected {
        println!("{key}: {n_acknowledged}");
        let found = read(cluster.node(0), key, Consistency::Linearizable, soon()).await.unwrap();
        assert_eq!(found.unwrap().1, n_acknowledged, "{key}");
    }
    cluster.stop().await;
}
