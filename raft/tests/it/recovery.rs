//! A lost majority, and a cluster made from the rows of another.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use raft::recover::{
    PutRow, RecoverError, RestoreMember, RestorePlan, force_new_cluster, inspect, restore,
};
use raft::{Consistency, Node, NodeState};
use statemachine::{Direction, Fault, StateRead, Table};

use crate::cluster::{Cluster, soon, until, value, within, write};
use crate::support::copy_dir;

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_of_a_lost_majority_goes_on_alone_under_a_new_cluster_id() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..50 {
        write(cluster.node(n % 3), &format!("key-{n}"), "kept").await.unwrap();
    }
    let old_cluster = cluster.node(0).cluster_id();
    let dir = cluster.data_dir(0);
    let refused = inspect(&dir).unwrap_err().to_string();
    assert!(refused.contains("another process uses it"), "{refused}");
    for n in 0..3 {
        cluster.crash(n).await;
    }
    let before = contents(&dir);
    let facts = inspect(&dir).unwrap();
    assert_eq!(contents(&dir), before, "to look changes nothing");
    assert_eq!((facts.name.as_str(), facts.cluster), ("n1", old_cluster));
    let new_cluster = force_new_cluster(&dir).unwrap();
    assert_ne!(new_cluster, old_cluster);
    let node = cluster.run(0).await.unwrap();
    node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
    for n in 0..50 {
        assert_eq!(value(&node, &format!("key-{n}")).await.unwrap(), "kept");
    }
    write(&node, "key", "alone").await.unwrap();
    assert_eq!(node.status().borrow().members.len(), 1);

    // Its former peers are strangers now.
    for n in 1..3 {
        cluster.run(n).await.unwrap();
    }
    let leader = {
        until("the others elect", || {
            [1, 2].into_iter().any(|n| cluster.node(n).tenure().borrow().is_some())
        })
        .await;
        if cluster.node(1).tenure().borrow().is_some() { 1 } else { 2 }
    };
    // A node can lead before it serves: registering in the log is the last step of its start.
    cluster.node(leader).wait_for_state(NodeState::Hot, soon()).await.unwrap();
    assert_eq!(cluster.node(leader).cluster_id(), old_cluster);
    assert_eq!(value(cluster.node(leader), "key").await, None);
    assert_eq!(value(&node, "key").await.unwrap(), "alone");
    cluster.stop().await;
}

/// Every file below `dir` with its length and the time of its last change.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let (path, facts) = (entry.as_ref().unwrap().path(), entry.unwrap().metadata().unwrap());
        if facts.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path, (facts.len(), facts.modified().unwrap()));
        }
    }
    found
}

fn all_rows(store: &dyn StateRead, put: &mut PutRow<'_>) -> Result<(), Fault> {
    for table in Table::ALL {
        store.scan(table, &[], None, Direction::Forward, &mut |key, row| {
            put(table, key, row)?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

/// What member `n` of a restored cluster is made from.
fn plan_for(target: &Cluster, n: usize) -> RestorePlan {
    let members: Vec<RestoreMember> = (0..3)
        .map(|n| RestoreMember {
            id: 1001 + n as u64,
            name: target.initial[n].0.clone(),
            peer: target.address(n).to_owned(),
        })
        .collect();
    RestorePlan {
        data_dir: target.data_dir(n),
        node: members[n].id,
        cluster: 77,
        members,
        index: 3,
        term: 5,
        revision_bump: 1_000,
    }
}

/// A cluster of three directories that were restored from nothing; none runs.
async fn three_restored() -> Cluster {
    let cluster = Cluster::plan(3).await;
    for n in 0..3 {
        restore(&plan_for(&cluster, n), &mut |_| Ok(())).unwrap();
    }
    cluster
}

fn is_out(node: &Node) -> bool {
    node.status().borrow().refused.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_restored_again_never_stands_for_what_the_first_one_acknowledged() {
    let mut cluster = three_restored().await.start_all().await;
    let leader = cluster.wait_leader().await;
    let others = cluster.others(leader);
    let (away, again) = (others[0], others[1]);
    cluster.isolate(away);
    for n in 0..100 {
        write(cluster.node(leader), &format!("key-{n}"), "kept").await.unwrap();
    }
    cluster.crash(again).await;
    cluster.wipe(again);
    restore(&plan_for(&cluster, again), &mut |_| Ok(())).unwrap();
    let second = cluster.run(again).await.unwrap();
    cluster.crash(leader).await;
    cluster.net.heal();
    // Together they would be a majority that knows none of the keys.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.leader(), None);
    cluster.run(leader).await.unwrap();
    for n in [leader, away] {
        cluster.node(n).wait_for_state(NodeState::Hot, soon()).await.unwrap();
    }
    for n in 0..100 {
        let value = value(cluster.node(away), &format!("key-{n}")).await;
        assert_eq!(value.as_deref(), Some("kept"), "key-{n}");
    }
    until("the second directory is refused", || is_out(&second)).await;
    let reason = second.status().borrow().refused.clone().unwrap();
    assert!(reason.contains("quorate member replace"), "{reason}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_begins_once_all_its_members_know_each_other() {
    let mut cluster = three_restored().await;
    cluster.run(0).await.unwrap();
    cluster.run(1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for node in cluster.nodes.values() {
        assert_eq!(node.status().borrow().state, NodeState::Founding);
    }
    // A member may still be made again: it has acknowledged nothing.
    cluster.crash(1).await;
    cluster.wipe(1);
    restore(&plan_for(&cluster, 1), &mut |_| Ok(())).unwrap();
    cluster.run(1).await.unwrap();
    cluster.run(2).await.unwrap();
    // Interrupted as soon as one of them has begun.
    until("one has begun", || {
        cluster.nodes.values().any(|node| node.status().borrow().state > NodeState::NotMember)
    })
    .await;
    for n in 0..3 {
        cluster.crash(n).await;
    }
    let cluster = cluster.start_all().await;
    write(cluster.node(2), "key", "founded").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_put_back_as_a_whole_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_leader().await;
    let back = cluster.others(leader)[0];
    write(cluster.node(back), "key", "old").await.unwrap();
    cluster.crash(back).await;
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&cluster.data_dir(back), copy.path());
    cluster.run(back).await.unwrap();
    cluster.wait_ready().await;
    for n in 0..20 {
        write(cluster.node(back), "key", &n.to_string()).await.unwrap();
    }
    cluster.crash(back).await;
    cluster.wipe(back);
    copy_dir(copy.path(), &cluster.data_dir(back));
    let node = cluster.run(back).await.unwrap();
    until("the directory is refused", || is_out(&node)).await;
    let reason = node.status().borrow().refused.clone().unwrap();
    assert!(reason.contains("put back to an earlier state"), "{reason}");
    write(cluster.node(leader), "key", "new").await.unwrap();
    // Whoever leads does not count on it any more.
    let id = node.id();
    let status = cluster.node(leader).status();
    until("it counts as one that forgot", || status.borrow().peers[&id].forgot).await;
    let refused = cluster.node(leader).transfer_leader(Some(id), soon()).await.unwrap_err();
    assert!(refused.to_string().contains("lacks what it had acknowledged"), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_restored_directories_form_a_cluster_with_the_same_content() {
    let source = Cluster::start(1).await;
    for n in 0..200 {
        write(source.node(0), &format!("key-{n:03}"), &n.to_string()).await.unwrap();
    }
    let view = source.node(0).view(Consistency::Linearizable, soon()).await.unwrap();
    let ((revision, index), pinned) = view.pin(|state| (state.revision(), state.last_index()));

    let mut target = Cluster::plan(3).await;
    for n in 0..3 {
        let plan = RestorePlan { index, ..plan_for(&target, n) };
        restore(&plan, &mut |put| all_rows(&pinned, put)).unwrap();
        let again = restore(&plan, &mut |put| all_rows(&pinned, put));
        assert!(matches!(again, Err(RecoverError::NotEmpty { .. })));
    }
    for n in 0..3 {
        target.run(n).await.unwrap();
    }
    target.wait_ready().await;
    for node in target.nodes.values() {
        assert_eq!(node.cluster_id(), 77);
        assert_eq!(value(node, "key-123").await.unwrap(), "123");
        let view = node.view(Consistency::Linearizable, within(5000)).await.unwrap();
        view.read(|state| {
            assert_eq!(state.revision(), revision + 1_000);
            assert_eq!(state.compacted_revision(), revision + 1_000);
            assert_eq!(state.n_keys(), 200);
        });
    }
    write(target.node(1), "key", "new").await.unwrap();

    // A node that joins gets what the log no longer holds as a snapshot.
    let leader = target.wait_leader().await;
    let n = target.plan_another("n4").await;
    let node = target.run_with(n, Vec::new()).await.unwrap();
    let address = target.address(n).to_owned();
    target.node(leader).add_learner(&address, soon()).await.unwrap();
    node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
    assert_eq!(value(&node, "key-042").await.unwrap(), "42");
    target.stop().await;
    source.stop().await;
}
