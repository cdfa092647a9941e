//! Learners, promotion, removal, growth.

use std::sync::Arc;
use std::time::Duration;

use raft::{NodeState, Timers};

use crate::cluster::{Cluster, soon, until, value, within, write};
use crate::net::Pace;

#[tokio::test(flavor = "multi_thread")]
async fn one_node_grows_to_three_and_shrinks_again() {
    let mut cluster = Cluster::start(1).await;
    write(cluster.node(0), "key", "of one").await.unwrap();
    for name in ["n2", "n3"] {
        let n = cluster.plan_another(name).await;
        let node = cluster.run_with(n, Vec::new()).await.unwrap();
        until("the new node waits", || node.status().borrow().state == NodeState::NotMember).await;
        let address = cluster.address(n).to_owned();
        let id = cluster.node(0).add_learner(&address, soon()).await.unwrap();
        assert_eq!(id, node.id());
        node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
        assert_eq!(value(&node, "key").await.unwrap(), "of one");
        // Until it has caught up a promotion is refused with the number of entries.
        let deadline = soon();
        while let Err(error) = cluster.node(0).promote(id, soon()).await {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let status = cluster.node(0).status();
    until("three voters", || status.borrow().voters().count() == 3).await;
    cluster.crash(0).await;
    write(cluster.node(1), "key", "without the first").await.unwrap();
    cluster.run(0).await.unwrap();
    cluster.wait_ready().await;
    assert_eq!(value(cluster.node(0), "key").await.unwrap(), "without the first");

    let leader = cluster.wait_leader().await;
    let leaving = cluster.others(leader)[0];
    let id = cluster.node(leaving).id();
    cluster.node(leader).remove(id, soon()).await.unwrap();
    let status = cluster.node(leader).status();
    until("two members", || status.borrow().members.len() == 2).await;
    cluster.crash(leaving).await;
    write(cluster.node(leader), "key", "of two").await.unwrap();
    let unknown = cluster.node(leader).remove(id, soon()).await.unwrap_err().to_string();
    assert!(unknown.contains("no node with id"), "{unknown}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_would_leave_no_quorum_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let others = cluster.others(leader);
    cluster.crash(others[0]).await;
    let healthy = cluster.node(others[1]).id();
    // The dead one still counts as heard of for two election timeouts.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let refused = cluster.node(leader).remove(healthy, soon()).await.unwrap_err().to_string();
    assert!(refused.contains("answer, 2 are needed"), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_moved_tells_the_cluster_its_new_address() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let moving = cluster.others(leader)[0];
    let id = cluster.node(moving).id();
    cluster.crash(moving).await;
    let spare = cluster.plan_another("spare").await;
    cluster.initial[moving].1 = cluster.initial.remove(spare).1;
    let address = cluster.address(moving).to_owned();
    cluster.run(moving).await.unwrap();
    // Nobody reaches it any more; it reaches the others and tells them.
    let status = cluster.node(leader).status();
    until("the new address is known", || {
        let status = status.borrow();
        status.member(id).is_some_and(|member| member.meta.endpoints.peer == address)
    })
    .await;
    write(cluster.node(moving), "key", "moved").await.unwrap();
    cluster.stop().await;
}

/// Of a net in which an answer takes half a second.
fn patient() -> Timers {
    Timers {
        heartbeat: Duration::from_millis(1000),
        election_min: Duration::from_millis(3000),
        election_max: Duration::from_millis(5000),
        connect: Duration::from_secs(2),
        ..Timers::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_voters_whose_caller_has_gone_is_completed_by_the_same_leader() {
    let mut cluster = Cluster::plan(3).await;
    cluster.tune = Arc::new(|_, options| options.timers = patient());
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: None });
    let mut cluster = cluster.start_all().await;
    let leader = cluster.wait_leader().await;
    let n = cluster.plan_another("n4").await;
    let node = cluster.run_with(n, Vec::new()).await.unwrap();
    let address = cluster.address(n).to_owned();
    let id = cluster.node(leader).add_learner(&address, soon()).await.unwrap();
    node.wait_for_state(NodeState::Hot, soon()).await.unwrap();

    let term = cluster.node(leader).status().borrow().term;
    let status = cluster.node(leader).status();
    let settled = |n_voters: usize| {
        let status = status.borrow();
        !status.joint && status.voters().count() == n_voters
    };
    let one_way = Duration::from_millis(250);
    cluster.net.pace(Pace { delay: one_way, slow: None });
    let late = cluster.node(leader).promote(id, within(350)).await.unwrap_err().to_string();
    assert!(late.contains("not committed yet"), "{late}");
    until("the change has begun", || status.borrow().voters().count() == 4).await;
    let completed = until("the change is completed", || settled(4));
    tokio::time::timeout(Duration::from_secs(5), completed).await.unwrap();
    cluster.node(leader).promote(id, within(350)).await.unwrap();

    // The same for a replacement, which is asked for again by the name or the id of the old one.
    let old = cluster.others(leader)[0];
    let old = cluster.node(old).id();
    let n = cluster.plan_another("n5").await;
    cluster.run_with(n, Vec::new()).await.unwrap();
    let address = cluster.address(n).to_owned();
    let replaced = loop {
        match cluster.node(leader).replace(old, &address, within(350)).await {
            Ok(id) => break id,
            Err(error) => assert!(error.to_string().contains("before the deadline"), "{error}"),
        }
    };
    let completed = until("the replacement is completed", || settled(4));
    tokio::time::timeout(Duration::from_secs(5), completed).await.unwrap();
    for again in [old, replaced] {
        assert_eq!(cluster.node(leader).replace(again, &address, soon()).await.unwrap(), replaced);
    }
    assert_eq!(status.borrow().term, term, "another leader would have completed it");
    cluster.net.pace(Pace { delay: Duration::ZERO, slow: None });
    cluster.stop().await;
}
