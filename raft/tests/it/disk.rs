//! Log and state on a real disk: what a kill leaves, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::RaftLogStorage;
use parking_lot::Mutex;
use raft::failure::OnFailure;
use raft::types::Vote;

use crate::support::{
    Disk, append, apply, close, commit, facts, history, log_id, open, puts, start,
};

fn refusal(dir: &Path) -> String {
    match open(dir, |_| ()) {
        Ok(storage) => {
            close(storage);
            panic!("the storage was opened");
        }
        Err(error) => error.to_string(),
    }
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == suffix))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_killed_node_applies_again_what_its_state_lost() {
    let (disk, mut storage) = Disk::new();
    storage.log.save_vote(&Vote::new(1, 7)).await.unwrap();
    commit(&mut storage, history(500, 100)).await;
    storage.log.save_committed(Some(log_id(499))).await.unwrap();
    append(&mut storage, puts(500..501, 100)).await;
    let before = facts(&storage.control);

    let killed = disk.killed();
    let mut storage = open(killed.path(), |_| ()).unwrap();
    assert_ne!(facts(&storage.control), before, "nothing was lost, so nothing is tested");
    start(&mut storage).await;
    assert_eq!(facts(&storage.control), before);
    assert_eq!(storage.control.vote(), Some(Vote::new(1, 7)));
    close(storage);

    // Stopped cleanly, all of it is there at once.
    let storage = open(killed.path(), |_| ()).unwrap();
    assert_eq!(facts(&storage.control), before);
    close(storage);
}

#[tokio::test]
async fn a_cut_off_write_is_forgiven_and_an_edited_one_is_not() {
    let (disk, mut storage) = Disk::new();
    for index in 0..50 {
        append(&mut storage, vec![history(50, 300)[index].clone()]).await;
    }
    let wal_of = |dir: &Path| files(&dir.join("raftlog"), "log").pop().unwrap();

    let torn = disk.killed();
    let wal = wal_of(torn.path());
    let size = wal.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(size - 10).unwrap();
    let storage = open(torn.path(), |_| ()).unwrap();
    assert_eq!(storage.log.last_log_id().unwrap().index, 48);
    close(storage);

    let edited = disk.killed();
    let wal = wal_of(edited.path());
    let mut bytes = std::fs::read(&wal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&wal, bytes).unwrap();
    let text = refusal(edited.path());
    assert!(text.contains("raftlog"), "{text}");
    assert!(text.contains("member replace"), "{text}");
}

/// Pages reach a disk in any order: a power cut leaves the last record with a page missing.
#[tokio::test]
async fn a_last_record_with_a_hole_is_cut_off_and_an_earlier_flipped_byte_is_refused() {
    let (disk, mut storage) = Disk::new();
    append(&mut storage, history(50, 300)).await;
    let wal_of = |dir: &Path| files(&dir.join("raftlog"), "log").pop().unwrap();
    let before = wal_of(disk.path()).metadata().unwrap().len();
    append(&mut storage, puts(50..51, 64 << 10)).await;
    let after = wal_of(disk.path()).metadata().unwrap().len();
    assert!(after - before > 64 << 10);

    for hole in [before + 40, before + (20 << 10), after - (8 << 10)] {
        let torn = disk.killed();
        let wal = wal_of(torn.path());
        let mut bytes = std::fs::read(&wal).unwrap();
        bytes[hole as usize..][..4096].fill(0);
        std::fs::write(&wal, bytes).unwrap();
        let mut storage = open(torn.path(), |_| ()).unwrap();
        assert_eq!(storage.log.last_log_id(), Some(log_id(49)), "hole at {hole}");
        append(&mut storage, puts(50..60, 64 << 10)).await;
        close(storage);
        let storage = open(torn.path(), |_| ()).unwrap();
        assert_eq!(storage.log.last_log_id(), Some(log_id(59)), "hole at {hole}");
        close(storage);
    }

    let damaged = disk.killed();
    let wal = wal_of(damaged.path());
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes[(before / 2) as usize] ^= 0x04;
    std::fs::write(&wal, bytes).unwrap();
    let text = refusal(damaged.path());
    assert!(text.contains("a valid one follows at byte"), "{text}");
    assert!(text.contains("member replace"), "{text}");
}

#[tokio::test]
async fn a_failed_read_of_the_state_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = failures.clone();
    let mut storage = open(dir.path(), |options| {
        options.on_failure = OnFailure::call(move |failure| seen.lock().push(failure.to_string()));
        options.memory.block_cache_bytes = 0;
    })
    .unwrap();
    commit(&mut storage, history(300, 2_000)).await;
    storage.control.state.flush().unwrap();
    for table in files(&dir.path().join("sm/gen-000001"), "sst") {
        let mut bytes = std::fs::read(&table).unwrap();
        let data = bytes.len() / 4;
        bytes[data..data + 64].fill(0x5a);
        std::fs::write(&table, bytes).unwrap();
    }
    let (_, pinned) = storage.control.state.view().pin(|_| ());
    let mut failed = false;
    for table in statemachine::Table::ALL {
        let scanned = statemachine::StateRead::scan(
            &pinned,
            table,
            &[],
            None,
            statemachine::Direction::Forward,
            &mut |_, _| Ok(std::ops::ControlFlow::Continue(())),
        );
        failed |= scanned.is_err();
    }
    assert!(failed, "nothing was damaged");
    let failures = failures.lock();
    assert!(failures[0].starts_with("state storage failed: "), "{failures:?}");
}

#[tokio::test]
async fn a_log_that_went_back_is_refused() {
    let (mut disk, mut storage) = Disk::new();
    commit(&mut storage, history(100, 100)).await;
    let early = disk.killed();
    commit(&mut storage, puts(100..200, 100)).await;
    drop(storage);
    disk.stop();
    let log = disk.path().join("raftlog");
    std::fs::remove_dir_all(&log).unwrap();
    crate::support::copy_dir(&early.path().join("raftlog"), &log);
    let text = refusal(disk.path());
    assert!(text.contains("ends at entry 99, but entry 199 had been made durable"), "{text}");

    std::fs::remove_dir_all(&log).unwrap();
    let text = refusal(disk.path());
    assert!(text.contains("ends at entry nothing"), "{text}");
}

#[tokio::test]
async fn a_truncated_tail_is_no_log_that_went_back() {
    let (mut disk, mut storage) = Disk::new();
    append(&mut storage, history(100, 100)).await;
    apply(&mut storage, history(60, 100)).await;
    storage.log.truncate_after(Some(log_id(70))).await.unwrap();
    drop(storage);
    disk.stop();
    let storage = open(disk.path(), |_| ()).unwrap();
    assert_eq!(storage.log.last_log_id(), Some(log_id(70)));
    close(storage);
}

#[tokio::test]
async fn a_state_ahead_of_the_log_is_fine_and_one_behind_it_is_not() {
    let (mut disk, mut storage) = Disk::new();
    append(&mut storage, history(100, 100)).await;
    // Committed by the others before it was durable here.
    apply(&mut storage, history(150, 100)).await;
    let before = facts(&storage.control);
    drop(storage);
    disk.stop();
    let mut storage = open(disk.path(), |_| ()).unwrap();
    start(&mut storage).await;
    assert_eq!(facts(&storage.control), before);
    assert_eq!(storage.log.purged(), Some(log_id(149)));
    append(&mut storage, puts(150..160, 100)).await;
    storage.log.purge(log_id(155)).await.unwrap();
    close(storage);
    let text = refusal(disk.path());
    assert!(text.contains("begins after entry"), "{text}");
    assert!(text.contains("the state went back"), "{text}");
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let (disk, _storage) = Disk::new();
    let text = refusal(disk.path());
    assert!(text.contains("another process has it open"), "{text}");
}

#[tokio::test]
async fn a_lost_state_and_anothers_state_are_refused() {
    let (mut disk, mut storage) = Disk::new();
    commit(&mut storage, history(10, 100)).await;
    drop(storage);
    disk.stop();
    let current = disk.path().join("sm/CURRENT");
    let line = std::fs::read_to_string(&current).unwrap();

    std::fs::remove_file(&current).unwrap();
    let text = refusal(disk.path());
    assert!(text.contains("CURRENT is missing although this node has a log"), "{text}");

    std::fs::write(&current, line.replace("gen-000001", "gen-000002")).unwrap();
    let text = refusal(disk.path());
    assert!(text.contains("CURRENT is damaged"), "{text}");

    std::fs::write(&current, &line).unwrap();
    let foreign = open(disk.path(), |options| options.node = 8).err().unwrap().to_string();
    assert!(foreign.contains("belongs to node 7"), "{foreign}");

    std::fs::rename(disk.path().join("sm/gen-000001"), disk.path().join("sm/gone")).unwrap();
    let text = refusal(disk.path());
    assert!(text.contains("names generation 1, which is not there"), "{text}");
}
