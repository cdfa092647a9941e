//! Cluster time on three nodes whose clocks are set to anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use proto::quorate;
use proto::quorate::command::Kind;
use raft::{Clock, Node, SystemClock};
use statemachine::{Response, State};

use crate::cluster::{Cluster, soon, until, write};

const DAY_MS: i64 = 86_400_000;
/// What two readings may differ by on a busy machine.
const SLACK_MS: u64 = 1_500;

/// A wall clock that is set to some distance from the machine's.
#[derive(Default)]
struct SetClock {
    ahead_ms: AtomicI64,
}

impl SetClock {
    fn set(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn unix_ms(&self) -> u64 {
        SystemClock.unix_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }
}

/// Three nodes that run, with clocks that begin at these distances.
async fn start(ahead_ms: [i64; 3]) -> (Cluster, Vec<Arc<SetClock>>) {
    let mut cluster = Cluster::plan(3).await;
    let clocks: Vec<Arc<SetClock>> = ahead_ms
        .into_iter()
        .map(|ahead_ms| {
            let clock = Arc::new(SetClock::default());
            clock.set(ahead_ms);
            clock
        })
        .collect();
    for (n, clock) in clocks.iter().enumerate() {
        cluster.clocks.insert(n, Arc::clone(clock) as Arc<dyn Clock>);
        cluster.run(n).await.unwrap();
    }
    cluster.wait_ready().await;
    (cluster, clocks)
}

/// The time that an entry proposed now gets.
async fn stamped_ms(node: &Node) -> u64 {
    write(node, "k", "v").await.unwrap();
    node.local_view().read(State::at_ms)
}

/// Checks that recorded times differ by what has passed, and gives the last one.
async fn assert_durations_are_right(node: &Node, what: &str) -> u64 {
    let before = stamped_ms(node).await;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let after = stamped_ms(node).await;
    let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
    let recorded = after - before;
    // The rate is bounded by a tenth; the rest is what a write takes here.
    assert!(
        recorded >= passed * 9 / 10 - SLACK_MS.min(passed / 2) && recorded <= passed + SLACK_MS,
        "{what}: {recorded} ms are on record, {passed} ms have passed"
    );
    after
}

fn assert_near(time_ms: u64, expected_ms: u64, what: &str) {
    let off_ms = time_ms.abs_diff(expected_ms);
    assert!(off_ms < 4 * SLACK_MS, "{what}: {off_ms} ms off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_begins_at_the_time_of_a_majority_whoever_leads() {
    for wrong in 0..3 {
        for ahead_ms in [DAY_MS, -DAY_MS] {
            let mut clocks = [0; 3];
            clocks[wrong] = ahead_ms;
            let (cluster, _) = start(clocks).await;
            let leader = cluster.wait_leader().await;
            let what = format!("node {wrong} is {ahead_ms} ms ahead, {leader} leads");
            // The first entries of a cluster may come before its voters are known.
            let node = cluster.node(leader);
            until("time is known", || node.now_ms() > 1_000_000_000_000).await;
            let time = assert_durations_are_right(node, &what).await;
            assert_near(time, SystemClock.unix_ms(), &what);
            cluster.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_set_while_a_cluster_runs_end_no_time_out_early_or_late() {
    let (mut cluster, clocks) = start([0; 3]).await;
    let leader = cluster.wait_leader().await;
    let others = cluster.others(leader);
    stamped_ms(cluster.node(leader)).await;
    let set = |ahead_ms: [i64; 3]| {
        clocks[leader].set(ahead_ms[0]);
        clocks[others[0]].set(ahead_ms[1]);
        clocks[others[1]].set(ahead_ms[2]);
    };
    let heartbeats = Duration::from_millis(300);
    for (what, ahead_ms) in [
        ("the leader is a day ahead", [DAY_MS, 0, 0]),
        ("the leader is a day behind", [-DAY_MS, 0, 0]),
        ("two of three are a day ahead", [DAY_MS, DAY_MS, 0]),
        ("two of three are a day behind", [-DAY_MS, -DAY_MS, 0]),
    ] {
        set(ahead_ms);
        tokio::time::sleep(heartbeats).await;
        let time = assert_durations_are_right(cluster.node(leader), what).await;
        assert_near(time, SystemClock.unix_ms(), what);
    }
    // One of the others goes down, and what it said last stays.
    set([0; 3]);
    tokio::time::sleep(heartbeats).await;
    cluster.crash(others[1]).await;
    for (what, ahead_ms) in [
        ("the leader is a day ahead, one is down", [DAY_MS, 0, 0]),
        ("the leader is a day behind, one is down", [-DAY_MS, 0, 0]),
        ("both that run are a day ahead", [DAY_MS, DAY_MS, 0]),
    ] {
        set(ahead_ms);
        tokio::time::sleep(heartbeats).await;
        let time = assert_durations_are_right(cluster.node(leader), what).await;
        assert_near(time, SystemClock.unix_ms(), what);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_over_goes_on_from_the_clusters_time_not_from_its_own() {
    let (cluster, clocks) = start([0; 3]).await;
    let leader = cluster.wait_leader().await;
    let next = cluster.others(leader)[0];
    let before = stamped_ms(cluster.node(leader)).await;
    clocks[next].set(DAY_MS);
    let id = cluster.node(next).id();
    cluster.node(leader).transfer_leader(Some(id), soon()).await.unwrap();
    until("the other leads", || cluster.leader() == Some(next)).await;
    let node = cluster.node(next);
    let time = assert_durations_are_right(node, "the new leader is a day ahead").await;
    assert!(time > before);
    assert_near(time, SystemClock.unix_ms(), "the new leader is a day ahead");
    assert_near(node.clock_skew_ms().unsigned_abs(), DAY_MS.unsigned_abs(), "its skew");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_ahead_is_set_back_on_every_node() {
    let (cluster, clocks) = start([DAY_MS; 3]).await;
    let leader = cluster.wait_leader().await;
    let node = cluster.node(leader);
    until("time is known", || node.now_ms() > 1_000_000_000_000).await;
    let ahead = stamped_ms(node).await;
    assert_near(ahead, SystemClock.unix_ms() + DAY_MS.unsigned_abs(), "founded a day ahead");
    clocks.iter().for_each(|clock| clock.set(0));
    let is_ahead = || node.time_ahead_ms().is_some_and(|ahead| ahead > DAY_MS / 2);
    until("the leader finds that time is ahead", is_ahead).await;

    let ahead_ms = node.time_ahead_ms().unwrap().unsigned_abs();
    let at_ms = node.now_ms() - ahead_ms;
    let set = Kind::SetTime(quorate::SetTime { at_ms });
    let command = quorate::Command { fence: None, kind: Some(set) };
    let outcome = node.propose(command, soon()).await.unwrap().outcome.unwrap();
    assert_eq!(outcome, Response::TimeSet { at_ms, clipped: 0, more: false });
    let time = assert_durations_are_right(node, "set back").await;
    assert_near(time, SystemClock.unix_ms(), "set back");
    let is_right = |node: &Node| node.local_view().read(State::at_ms) == time;
    let last = || node.local_view().read(State::at_ms) == time;
    assert!(last(), "nothing else writes");
    until("all have the time", || cluster.nodes.values().all(is_right)).await;
    // Whoever leads next goes on from there.
    let next = cluster.others(leader)[0];
    let id = cluster.node(next).id();
    node.transfer_leader(Some(id), soon()).await.unwrap();
    until("the other leads", || cluster.leader() == Some(next)).await;
    let time = assert_durations_are_right(cluster.node(next), "after a change of leader").await;
    assert_near(time, SystemClock.unix_ms(), "after a change of leader");
    cluster.stop().await;
}
