//! Writes, reads, crashes, hand-overs and partitions.

use bytes::Bytes;
use raft::{Consistency, NodeState, ProposeError, ReadError, Role};
use tokio::time::Instant;

use crate::cluster::{Cluster, put, read, soon, until, value, within, write};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_acknowledges_every_node_reads() {
    let cluster = Cluster::start(3).await;
    for (n, node) in &cluster.nodes {
        write(node, "key", &format!("by {n}")).await.unwrap();
        for other in cluster.nodes.values() {
            assert_eq!(value(other, "key").await.unwrap(), format!("by {n}"));
        }
        // A node reads its own writes without asking anybody.
        let local = read(node, "key", Consistency::Local, soon()).await.unwrap();
        assert_eq!(local.unwrap().0, format!("by {n}"));
    }
    let leader = cluster.wait_leader().await;
    let id = cluster.node(leader).id();
    for node in cluster.nodes.values() {
        let mut status = node.status();
        let status = status
            .wait_for(|now| now.leader.as_ref().is_some_and(|leader| leader.id == id))
            .await
            .unwrap();
        assert_eq!(status.members.len(), 3);
        assert_eq!(status.cluster, cluster.node(leader).cluster_id());
        let role = if node.id() == id { Role::Leader } else { Role::Follower };
        assert_eq!(status.role, role);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_is_a_cluster() {
    let mut cluster = Cluster::start(1).await;
    write(cluster.node(0), "key", "one").await.unwrap();
    cluster.crash(0).await;
    cluster.run(0).await.unwrap();
    cluster.wait_ready().await;
    assert_eq!(value(cluster.node(0), "key").await.unwrap(), "one");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_leader_is_replaced_and_comes_back_with_all_it_missed() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    write(cluster.node(leader), "before", "1").await.unwrap();
    cluster.crash(leader).await;
    let survivor = cluster.others(leader)[0];
    let begin = Instant::now();
    write(cluster.node(survivor), "after", "2").await.unwrap();
    println!("acknowledged {:?} after the crash", begin.elapsed());
    cluster.run(leader).await.unwrap();
    cluster.wait_ready().await;
    assert_eq!(value(cluster.node(leader), "before").await.unwrap(), "1");
    assert_eq!(value(cluster.node(leader), "after").await.unwrap(), "2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_crash_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..100 {
        write(cluster.node(n % 3), &format!("key-{n}"), &n.to_string()).await.unwrap();
    }
    for n in 0..3 {
        cluster.crash(n).await;
    }
    for n in 0..3 {
        cluster.run(n).await.unwrap();
    }
    cluster.wait_ready().await;
    for n in 0..100 {
        let found = value(cluster.node((n + 1) % 3), &format!("key-{n}")).await;
        assert_eq!(found.unwrap(), n.to_string());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_is_quick_and_clients_do_not_notice() {
    let cluster = Cluster::start(3).await;
    for _ in 0..3 {
        let old = cluster.wait_leader().await;
        let begin = Instant::now();
        let new = cluster.node(old).transfer_leader(None, soon()).await.unwrap();
        println!("handed over in {:?}", begin.elapsed());
        assert_ne!(new, cluster.node(old).id());
        write(cluster.node(old), "key", "through the old leader").await.unwrap();
        cluster.wait_other_leader(old).await;
    }
    // Asked of a follower, and to a chosen node.
    let leader = cluster.wait_leader().await;
    let target = cluster.others(leader)[0];
    let target_id = cluster.node(target).id();
    let asked = cluster.others(leader)[1];
    let new = cluster.node(asked).transfer_leader(Some(target_id), soon()).await.unwrap();
    assert_eq!(new, target_id);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_stops_answering() {
    let cluster = Cluster::start(3).await;
    let old = cluster.wait_leader().await;
    write(cluster.node(old), "key", "before").await.unwrap();
    cluster.isolate(old);
    let new = cluster.wait_other_leader(old).await;
    write(cluster.node(new), "key", "after").await.unwrap();

    let refused = cluster.node(old).propose(put("key", "stale"), within(1500)).await;
    assert!(matches!(refused, Err(ProposeError::Unknown | ProposeError::NotLeader { .. })));
    let refused = read(cluster.node(old), "key", Consistency::Linearizable, within(1000)).await;
    assert!(matches!(refused, Err(ReadError::NoLeader { .. })), "{refused:?}");
    let refused = cluster.node(old).confirm_leadership(within(1000)).await;
    assert!(matches!(refused, Err(ReadError::NoLeader { .. })), "{refused:?}");
    // What it has may still be read as such.
    let local = read(cluster.node(old), "key", Consistency::Local, soon()).await.unwrap();
    assert_eq!(local.unwrap().0, "before");

    cluster.net.heal();
    assert_eq!(value(cluster.node(old), "key").await.unwrap(), "after");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_that_comes_back_reads_what_its_successor_wrote() {
    let cluster = Cluster::start(3).await;
    for round in 0..3 {
        let old = cluster.wait_leader().await;
        write(cluster.node(old), "key", "before").await.unwrap();
        cluster.isolate(old);
        let new = cluster.wait_other_leader(old).await;
        let after = format!("after {round}");
        write(cluster.node(new), "key", &after).await.unwrap();
        // It still takes itself for the leader, and asks again and again until it gets through.
        assert!(cluster.node(old).tenure().borrow().is_some());
        let node = cluster.node(old).clone();
        let reading = tokio::spawn(async move { value(&node, "key").await });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!reading.is_finished(), "nobody could confirm it");
        cluster.net.heal();
        assert_eq!(reading.await.unwrap(), Some(after));
        let status = cluster.node(old).status();
        until("the old leader follows", || status.borrow().role == Role::Follower).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_from_a_partition_does_not_depose_the_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let away = cluster.others(leader)[0];
    let term = cluster.node(leader).status().borrow().term;
    cluster.isolate(away);
    // Several election timeouts: without a pre-vote it would raise the term in each.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    write(cluster.node(leader), "key", "meanwhile").await.unwrap();
    cluster.net.heal();
    assert_eq!(value(cluster.node(away), "key").await.unwrap(), "meanwhile");
    assert_eq!(cluster.leader(), Some(leader));
    for node in cluster.nodes.values() {
        assert_eq!(node.status().borrow().term, term);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_finds_no_leader_says_so_at_its_deadline() {
    let mut cluster = Cluster::start(3).await;
    for n in [1, 2] {
        cluster.crash(n).await;
    }
    let begin = Instant::now();
    let refused = cluster.node(0).propose(put("key", "lonely"), within(1000)).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(begin.elapsed().as_millis() < 3000, "{:?}", begin.elapsed());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_majority_and_its_last_follower_name_no_leader() {
    let mut cluster = Cluster::start(5).await;
    let leader = cluster.wait_leader().await;
    let others = cluster.others(leader);
    let leads = |node: &raft::Node| node.status().borrow().leader.is_some();
    until("all name the leader", || cluster.nodes.values().all(leads)).await;
    for n in &others[1..] {
        cluster.crash(*n).await;
    }
    let begin = Instant::now();
    until("no node names a leader", || !cluster.nodes.values().any(leads)).await;
    println!("said so {:?} after the last crash", begin.elapsed());
    // The leader goes on asking for a majority, and its follower hears it.
    let later = within(2_500);
    while Instant::now() < later {
        assert!(!cluster.nodes.values().any(leads), "named again without a majority");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(cluster.node(leader).status().borrow().is_without_quorum());
    assert!(!cluster.node(leader).status().borrow().is_leader());

    cluster.run(others[1]).await.unwrap();
    let up = [leader, others[0], others[1]];
    until("they name one again", || up.iter().all(|n| leads(cluster.node(*n)))).await;
    write(cluster.node(others[0]), "key", "with a majority").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_alone_does_not_name_the_leader_of_its_last_vote() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let follower = cluster.others(leader)[0];
    for n in 0..3 {
        cluster.crash(n).await;
    }
    let node = cluster.run(follower).await.unwrap();
    let later = within(1_500);
    while Instant::now() < later {
        assert_eq!(node.status().borrow().leader, None);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_above_the_limit_are_refused_with_both_sizes() {
    let cluster = Cluster::start(1).await;
    let command = put("key", &"x".repeat(3 << 20));
    let refused = cluster.node(0).propose(command, soon()).await.unwrap_err().to_string();
    assert!(refused.contains("2097152 B"), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_ask_each_other() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let asker = cluster.node(cluster.others(leader)[0]);
    let body = Bytes::from_static(b"abc");
    let answer = asker.ask_leader(7, body.clone(), soon()).await.unwrap();
    assert_eq!(answer, format!("{} 7 3", asker.id()));
    let own = asker.ask(asker.id(), 7, body.clone(), soon()).await.unwrap();
    assert_eq!(own, format!("{} 7 3", asker.id()));
    let refused = asker.ask_leader(0, body, soon()).await.unwrap_err().to_string();
    assert_eq!(refused, "topic 0 is refused");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenure_ends_with_its_leadership() {
    let cluster = Cluster::start(3).await;
    let old = cluster.wait_leader().await;
    let tenure = cluster.node(old).tenure().borrow().clone().unwrap();
    let fenced = cluster.node(old).propose_fenced(&tenure, put("key", "fenced"), soon()).await;
    fenced.unwrap().outcome.unwrap();
    cluster.node(old).transfer_leader(None, soon()).await.unwrap();
    until("the tenure is over", || tenure.cancel.is_cancelled()).await;
    let refused = cluster.node(old).propose_fenced(&tenure, put("key", "late"), soon()).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })));
    cluster.node(old).wait_for_state(NodeState::Hot, soon()).await.unwrap();
    cluster.stop().await;
}
