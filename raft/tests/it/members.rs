//! Learners, promotion, removal, growth.

use raft::NodeState;

use crate::cluster::{Cluster, soon, until, value, write};

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
