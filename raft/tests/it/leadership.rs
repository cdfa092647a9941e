//! Leaders that hang, and leaders that hand over.

use std::time::Duration;

use raft::Consistency;

use crate::cluster::{Cluster, put, read, soon, until, within, write};
use crate::net::Pace;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_apply_hangs_holds_up_no_write_and_hands_over() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let follower = cluster.others(leader)[0];
    write(cluster.node(follower), "key", "before").await.unwrap();
    // A reader that does not come to an end: apply waits for it.
    let view = cluster.node(leader).local_view();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || view.read(|_| released.recv().is_err()));
    // More batches than the window of uncommitted ones holds.
    for n in 0..40 {
        write(cluster.node(follower), "key", &n.to_string()).await.unwrap();
    }
    let next = cluster.wait_other_leader(leader).await;
    until("the old leader follows", || cluster.node(leader).tenure().borrow().is_none()).await;
    assert!(cluster.node(leader).metrics().storage.apply_stall() >= Duration::from_secs(1));
    let last = write(cluster.node(next), "key", "after").await.unwrap();

    drop(release);
    reader.join().unwrap();
    let status = cluster.node(leader).status();
    until("it applies the rest", || status.borrow().applied.index >= last.index).await;
    let value = read(cluster.node(leader), "key", Consistency::Local, soon()).await.unwrap();
    assert_eq!(value.unwrap().0, "after");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_to_a_node_that_does_not_answer_is_refused_and_costs_nothing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let target = cluster.others(leader)[0];
    let term = cluster.node(leader).status().borrow().term;
    cluster.isolate(target);
    // It was heard of a moment ago.
    let id = cluster.node(target).id();
    let refused = cluster.node(leader).transfer_leader(Some(id), soon()).await.unwrap_err();
    assert!(refused.to_string().contains("it does not answer"), "{refused}");
    write(cluster.node(leader), "key", "as before").await.unwrap();
    let status = cluster.node(leader).status().borrow().clone();
    assert!(status.is_leader());
    assert_eq!(status.term, term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_to_a_node_that_is_far_behind_is_refused_with_its_lag() {
    let cluster = Cluster::plan(3).await;
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: None });
    let cluster = cluster.start_all().await;
    let leader = cluster.wait_leader().await;
    let target = cluster.others(leader)[0];
    let address = cluster.address(target).parse().unwrap();
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: Some((address, 64 << 10)) });
    let value = "x".repeat(32 << 10);
    for n in 0..200 {
        write(cluster.node(leader), &format!("key-{n}"), &value).await.unwrap();
    }
    let id = cluster.node(target).id();
    let refused = cluster.node(leader).transfer_leader(Some(id), soon()).await.unwrap_err();
    assert!(refused.to_string().contains("64 at most may lack"), "{refused}");
    // Without a target the other one is chosen.
    let other = cluster.others(leader).into_iter().find(|n| *n != target).unwrap();
    let next = cluster.node(leader).transfer_leader(None, soon()).await.unwrap();
    assert_eq!(next, cluster.node(other).id());
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: None });
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_hand_over_that_failed_writes_go_on_within_seconds() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let target = cluster.others(leader)[0];
    // It hears that it shall lead, and reaches no node for a vote.
    for other in cluster.others(target) {
        cluster.net.cut(cluster.address(target), cluster.address(other));
    }
    let id = cluster.node(target).id();
    drop(cluster.node(leader).transfer_leader(Some(id), within(2_000)).await);
    let written = cluster.node(leader).propose(put("key", "value"), within(5_000)).await;
    written.unwrap().outcome.unwrap();
    cluster.stop().await;
}
