//! Founding a cluster, and who is not let in.

use std::sync::Arc;
use std::time::Duration;

use raft::{NodeState, Role, TcpDialer};

use crate::cluster::{Cluster, soon, until, value, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_founded_only_when_all_are_there() {
    let mut cluster = Cluster::plan(3).await;
    cluster.run(0).await.unwrap();
    cluster.run(2).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    for node in cluster.nodes.values() {
        assert_eq!(node.status().borrow().state, NodeState::Founding);
        assert_eq!(node.cluster_id(), 0);
    }
    cluster.run(1).await.unwrap();
    cluster.wait_ready().await;
    let id = cluster.node(0).cluster_id();
    assert_ne!(id, 0);
    assert!(cluster.nodes.values().all(|node| node.cluster_id() == id));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_founding_is_resumed() {
    let mut cluster = Cluster::plan(3).await;
    cluster.run(1).await.unwrap();
    cluster.run(2).await.unwrap();
    // The founder reaches one of the others only after it has handed out identities to none.
    let (founder, last) = (cluster.address(0).to_owned(), cluster.address(2).to_owned());
    let node = cluster.run(0).await.unwrap();
    until("the founder drew a cluster", || node.cluster_id() != 0).await;
    cluster.net.cut(&founder, &last);
    drop(node);
    cluster.crash(0).await;
    cluster.net.heal();
    cluster.run(0).await.unwrap();
    cluster.wait_ready().await;
    write(cluster.node(1), "key", "founded").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_waits_until_it_is_taken_in() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let wiped = cluster.others(leader)[0];
    let old_id = cluster.node(wiped).id();
    write(cluster.node(leader), "key", "kept").await.unwrap();
    cluster.crash(wiped).await;
    cluster.wipe(wiped);
    let node = cluster.run(wiped).await.unwrap();
    assert_ne!(node.id(), old_id);
    until("the node knows that it is no member", || {
        node.status().borrow().state == NodeState::NotMember
    })
    .await;
    // It neither votes nor follows.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(node.cluster_id(), 0);
    assert_eq!(node.status().borrow().last_log_index, 0);
    assert_eq!(node.status().borrow().term, 0);

    let asked = cluster.others(leader)[1];
    let address = cluster.address(wiped).to_owned();
    let new_id = cluster.node(asked).replace(old_id, &address, soon()).await.unwrap();
    assert_eq!(new_id, node.id());
    node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
    assert_eq!(value(&node, "key").await.unwrap(), "kept");
    let status = cluster.node(leader).status();
    until("the voters were swapped", || {
        let status = status.borrow();
        status.member(old_id).is_none() && status.member(new_id).is_some_and(|node| node.voter)
    })
    .await;
    write(&node, "key", "by the new one").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_node_of_a_cluster_grown_from_one_founds_no_second_one() {
    let mut cluster = Cluster::start(1).await;
    let alone = cluster.initial.clone();
    let old_id = cluster.node(0).id();
    let n = cluster.plan_another("n2").await;
    let second = cluster.run_with(n, Vec::new()).await.unwrap();
    let address = cluster.address(n).to_owned();
    let id = cluster.node(0).add_learner(&address, soon()).await.unwrap();
    second.wait_for_state(NodeState::Hot, soon()).await.unwrap();
    while let Err(error) = cluster.node(0).promote(id, soon()).await {
        assert!(error.to_string().contains("lacks"), "{error}");
    }
    write(cluster.node(0), "key", "kept").await.unwrap();
    cluster.crash(0).await;
    cluster.wipe(0);
    // As it was started the first time: with itself alone.
    let wiped = cluster.run_with(0, alone).await.unwrap();
    until("it knows that it is no member", || {
        wiped.status().borrow().state == NodeState::NotMember
    })
    .await;
    assert_ne!(wiped.id(), old_id);
    assert_eq!((wiped.cluster_id(), wiped.status().borrow().term), (0, 0));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_reach_each_other_over_ipv6_and_by_name() {
    for host in ["[::1]", "localhost"] {
        let mut cluster = Cluster::plan_on(host, 3).await;
        cluster.tune = Arc::new(|_, options| options.dialer = Arc::new(TcpDialer::default()));
        let cluster = cluster.start_all().await;
        write(cluster.node(1), "key", host).await.unwrap();
        assert_eq!(value(cluster.node(2), "key").await.unwrap(), host);
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_is_slower_than_a_connection_holds_nobody_up() {
    let mut cluster = Cluster::plan_on("localhost", 3).await;
    cluster.tune = Arc::new(|_, options| {
        let lookup = |name: String| -> futures::future::BoxFuture<'static, _> {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(600)).await;
                Ok(tokio::net::lookup_host(name).await?.collect::<Vec<_>>())
            })
        };
        options.dialer = Arc::new(TcpDialer::with_lookup(Arc::new(lookup)));
    });
    let cluster = cluster.start_all().await;
    write(cluster.node(0), "key", "value").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let mut other = Cluster::start(1).await;
    let address = other.address(0).to_owned();
    let refused = cluster.node(0).add_learner(&address, soon()).await.unwrap_err().to_string();
    let foreign = format!("{:016x}", other.node(0).cluster_id());
    assert!(refused.contains(&foreign), "{refused}");
    assert!(refused.contains(&format!("{:016x}", cluster.node(0).cluster_id())), "{refused}");

    // One that takes over the address of a member does not become it.
    let leader = cluster.wait_leader().await;
    let gone = cluster.others(leader)[0];
    cluster.crash(gone).await;
    other.crash(0).await;
    other.initial[0].1 = cluster.address(gone).to_owned();
    let node = other.run(0).await.unwrap();
    node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
    write(cluster.node(leader), "key", "without the third").await.unwrap();
    assert_eq!(node.status().borrow().role, Role::Leader);
    assert_eq!(value(&node, "key").await, None);
    cluster.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_clusters_that_cannot_work_are_refused() {
    let mut cluster = Cluster::plan(3).await;
    let all = cluster.initial.clone();
    let refused = cluster.run_with(0, all[..2].to_vec()).await.err().unwrap().to_string();
    assert!(refused.contains("it has 2 nodes"), "{refused}");
    let refused = cluster.run_with(0, all[1..2].to_vec()).await.err().unwrap().to_string();
    assert!(refused.contains("does not contain this node n1"), "{refused}");
    let twice = vec![all[0].clone(), all[0].clone(), all[1].clone()];
    let refused = cluster.run_with(0, twice).await.err().unwrap().to_string();
    assert!(refused.contains("names n1 twice"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_node_or_without_its_log_is_refused() {
    let mut cluster = Cluster::start(1).await;
    write(cluster.node(0), "key", "one").await.unwrap();
    cluster.crash(0).await;
    let renamed = cluster.initial[0].0.clone();
    cluster.initial[0].0 = "n9".to_owned();
    std::fs::rename(cluster.data_dir(0).with_file_name(&renamed), cluster.data_dir(0)).unwrap();
    let refused = cluster.run(0).await.err().unwrap().to_string();
    assert!(refused.contains("belongs to node n1"), "{refused}");
    std::fs::rename(cluster.data_dir(0), cluster.data_dir(0).with_file_name(&renamed)).unwrap();
    cluster.initial[0].0 = renamed;
    std::fs::remove_dir_all(cluster.data_dir(0).join("raftlog")).unwrap();
    std::fs::remove_dir_all(cluster.data_dir(0).join("sm")).unwrap();
    let refused = cluster.run(0).await.err().unwrap().to_string();
    assert!(refused.contains("its log is gone"), "{refused}");
}
