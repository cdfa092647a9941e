//! A lost majority, and a cluster made from the rows of another.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use raft::recover::{
    PutRow, RecoverError, RestoreMember, RestorePlan, force_new_cluster, inspect, restore,
};
use raft::{Consistency, NodeState};
use statemachine::{Direction, Fault, StateRead, Table};

use crate::cluster::{Cluster, soon, until, value, within, write};

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

#[tokio::test(flavor = "multi_thread")]
async fn three_restored_directories_form_a_cluster_with_the_same_content() {
    let source = Cluster::start(1).await;
    for n in 0..200 {
        write(source.node(0), &format!("key-{n:03}"), &n.to_string()).await.unwrap();
    }
    let view = source.node(0).view(Consistency::Linearizable, soon()).await.unwrap();
    let ((revision, index), pinned) = view.pin(|state| (state.revision(), state.last_index()));

    let mut target = Cluster::plan(3).await;
    let members: Vec<RestoreMember> = (0..3)
        .map(|n| RestoreMember {
            id: 1001 + n as u64,
            name: target.initial[n].0.clone(),
            peer: target.address(n).to_owned(),
        })
        .collect();
    for n in 0..3 {
        let plan = RestorePlan {
            data_dir: target.data_dir(n),
            node: members[n].id,
            cluster: 77,
            members: members.clone(),
            index,
            term: 5,
            revision_bump: 1_000,
        };
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
