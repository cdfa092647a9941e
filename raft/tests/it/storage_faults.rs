//! Full disks and wrong states of nodes in a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::failure::OnFailure;
use raft::{NodeState, RoomLevel, RoomPolicy, ScrubPolicy};

use crate::cluster::{Cluster, soon, until, value, write};
use crate::support::{close, commit, history, open};

/// A low mark that no disk is above.
const NEVER: RoomPolicy = RoomPolicy { low_bytes: u64::MAX / 4, ballast_bytes: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_takes_no_entries_does_not_lead_and_catches_up() {
    let mut cluster = Cluster::plan(3).await;
    for n in 0..2 {
        cluster.run(n).await.unwrap();
    }
    let full = cluster.run_changed(2, |options| options.storage.room = NEVER).await.unwrap();
    let leader = cluster.wait_leader().await;
    for n in 0..2 {
        cluster.node(n).wait_for_state(NodeState::Hot, soon()).await.unwrap();
    }
    for n in 0..100 {
        write(cluster.node(n % 2), &format!("key-{n}"), "kept").await.unwrap();
    }
    assert_ne!(leader, 2);
    let room = || cluster.node(leader).rooms().get(&full.id()).map(|room| room.level);
    until("the leader hears of the full disk", || room() == Some(RoomLevel::Low)).await;
    assert!(!cluster.node(leader).is_tight(), "two of three have room");
    let applied = full.status().borrow().applied.index;
    assert!(applied < 100, "{applied} entries were applied without room");
    drop(full);

    cluster.crash(2).await;
    cluster.run(2).await.unwrap();
    cluster.node(2).wait_for_state(NodeState::Hot, soon()).await.unwrap();
    assert_eq!(value(cluster.node(2), "key-99").await.unwrap(), "kept");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_room_has_a_leader_that_sends_only_what_frees_space() {
    let mut cluster = Cluster::plan(3).await;
    for n in 0..3 {
        cluster.run_changed(n, |options| options.storage.room = NEVER).await.unwrap();
    }
    let leader = cluster.wait_leader().await;
    let node = cluster.node(leader).clone();
    until("the leader finds that nobody has room", || node.is_tight()).await;
    // What is sent is the matter of the layer above; here it passes.
    write(&node, "key", "of a delete").await.unwrap();
    assert_eq!(value(&node, "key").await.unwrap(), "of a delete");
    drop(node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_quarantine_keeps_its_log_and_takes_the_state_of_another() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..300 {
        write(cluster.node(n % 3), &format!("key-{n}"), "kept").await.unwrap();
    }
    let leader = cluster.wait_leader().await;
    let wrong = (leader + 1) % 3;
    let dir = cluster.data_dir(wrong);
    until("the node notes where its peers are", || dir.join("ADDRESSES").exists()).await;
    cluster.crash(wrong).await;
    for generation in std::fs::read_dir(dir.join("sm")).unwrap() {
        let path = generation.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        }
    }
    std::fs::write(dir.join("QUARANTINE"), "planted\n").unwrap();
    write(cluster.node(leader), "key-299", "newer").await.unwrap();

    let node = cluster.run(wrong).await.unwrap();
    assert!(!dir.join("QUARANTINE").exists());
    node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
    assert_eq!(value(&node, "key-0").await.unwrap(), "kept");
    assert_eq!(value(&node, "key-299").await.unwrap(), "newer");
    let digests = |n: usize| cluster.node(n).local_view().read(|state| state.digests());
    until("the states are equal", || digests(wrong) == digests(leader)).await;
    drop(node);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_opened_is_replaced_at_the_next_start() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..300 {
        write(cluster.node(n % 3), &format!("key-{n}"), "kept").await.unwrap();
    }
    let leader = cluster.wait_leader().await;
    let wrong = (leader + 1) % 3;
    let dir = cluster.data_dir(wrong);
    until("the node notes where its peers are", || dir.join("ADDRESSES").exists()).await;
    cluster.crash(wrong).await;
    let manifests: Vec<_> = walk(&dir.join("sm"))
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"))
        .collect();
    assert!(!manifests.is_empty());
    for path in manifests {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let Err(error) = cluster.run(wrong).await else { panic!("a damaged state was opened") };
    assert!(error.to_string().contains("the next start takes the state"), "{error}");

    let node = cluster.run(wrong).await.unwrap();
    node.wait_for_state(NodeState::Hot, soon()).await.unwrap();
    assert_eq!(value(&node, "key-0").await.unwrap(), "kept");
    let digests = |n: usize| cluster.node(n).local_view().read(|state| state.digests());
    until("the states are equal", || digests(wrong) == digests(leader)).await;
    drop(node);
    cluster.stop().await;
}

/// Every file below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn a_wrong_row_is_found_by_the_scrub() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open(dir.path(), |_| ()).unwrap();
    commit(&mut storage, history(200, 500)).await;
    close(storage);
    {
        let families = ["default", "raft", "event", "version", "lease", "domain", "meta"];
        let path = dir.path().join("sm/gen-000001");
        let options = rocksdb::Options::default();
        let db = rocksdb::DB::open_cf(&options, path, families).unwrap();
        let events = db.cf_handle("event").unwrap();
        let (key, mut row) = db
            .iterator_cf(events, rocksdb::IteratorMode::Start)
            .map(Result::unwrap)
            .find(|(_, row)| row.len() > 500)
            .map(|(key, row)| (key, row.to_vec()))
            .unwrap();
        *row.last_mut().unwrap() ^= 1;
        db.put_cf(events, key, row).unwrap();
        db.flush_cf(events).unwrap();
    }
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = failures.clone();
    let storage = open(dir.path(), |options| {
        options.scrub = ScrubPolicy { period: Duration::from_millis(20), ..ScrubPolicy::default() };
        options.on_failure = OnFailure::call(move |failure| seen.lock().push(failure.to_string()));
    })
    .unwrap();
    until("the scrub finds the wrong row", || !failures.lock().is_empty()).await;
    assert!(failures.lock()[0].contains("differs from its hash"), "{failures:?}");
    close(storage);
}
