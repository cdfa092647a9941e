//! Snapshots: built beside writes, carried over, installed; and killed at every step of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use parking_lot::Mutex;
use raft::apply::AppliedEvent;
use raft::snapshot::{OnStep, Receiving, SnapshotData, SnapshotSource};
use raft::storage::{Storage, StorageControl};
use raft::types::Snapshot;

use crate::support::{Disk, close, commit, copy_dir, facts, history, log_id, open, puts, start};

async fn build(storage: &mut Storage) -> Snapshot {
    let builder = storage.machine.try_create_snapshot_builder(true).await;
    builder.unwrap().build_snapshot().await.unwrap()
}

fn source(control: &StorageControl) -> SnapshotSource {
    control.snapshot_source(control.newest_snapshot().unwrap())
}

/// Moves parts until `parts_max` or the end; whether the end was reached.
fn carry(from: &mut SnapshotSource, to: &mut Receiving, parts_max: usize) -> bool {
    for _ in 0..parts_max {
        let Some(part) = from.next_part().unwrap() else {
            return true;
        };
        to.write(&part).unwrap();
    }
    false
}

async fn install(storage: &mut Storage, data: SnapshotData) {
    let manifest = match &data {
        SnapshotData::Staged(staged) => staged.manifest().clone(),
        SnapshotData::Image(image) => image.manifest().clone(),
        SnapshotData::Unbuilt => panic!("a stand-in is not installed"),
    };
    let meta = raft::convert::snapshot_meta_from_manifest(&manifest).unwrap();
    storage.machine.install_snapshot(&meta, data).await.unwrap();
    // As openraft does after it.
    storage.log.purge(meta.last_log_id.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_carried_over_broken_off_resumed_and_installed() {
    let (_from_disk, mut from) = Disk::of_node(8);
    commit(&mut from, history(3_000, 1_000)).await;
    let snapshot = build(&mut from).await;
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(2_999)));
    let expected = facts(&from.control);
    // Not part of it.
    commit(&mut from, puts(3_000..3_100, 1_000)).await;

    let (mut to_disk, mut to) = Disk::new();
    commit(&mut to, history(20, 10)).await;
    let mut followed = to.control.state.subscribe();
    let mut sending = source(&from.control);
    let manifest = sending.manifest().clone();
    let mut receiving = to.control.receive_snapshot(manifest.clone()).unwrap();
    assert!(!carry(&mut sending, &mut receiving, 3), "too small to be broken off");
    drop(receiving);
    drop(sending);

    let mut sending = source(&from.control);
    let mut receiving = to.control.receive_snapshot(manifest).unwrap();
    let total = sending.remaining_bytes();
    sending.resume(receiving.have());
    assert!(sending.remaining_bytes() < total, "nothing of it was kept");
    assert!(carry(&mut sending, &mut receiving, usize::MAX));
    let staged = receiving.finish().unwrap();
    let before = facts(&to.control);
    let old_view = to.control.state.view();
    install(&mut to, staged).await;

    assert_eq!(facts(&to.control), expected);
    // Who still looks at the old state sees the old state.
    assert_eq!(old_view.read(|state| state.revision()), before.1);
    match followed.recv().await.unwrap().as_ref() {
        AppliedEvent::Reset { revision, .. } => assert_eq!(*revision, expected.1),
        AppliedEvent::Applied(_) => panic!("a reset was expected"),
    }
    assert_eq!(to.control.newest_snapshot().unwrap().last_applied(), Some(log_id(2_999)));
    drop(old_view);
    commit(&mut to, puts(3_000..3_100, 1_000)).await;
    assert_eq!(facts(&to.control), facts(&from.control));
    drop(to);
    to_disk.stop();

    let storage = open(to_disk.path(), |_| ()).unwrap();
    assert_eq!(facts(&storage.control), facts(&from.control));
    let generations = std::fs::read_dir(to_disk.path().join("sm")).unwrap().count();
    assert_eq!(generations, 2, "CURRENT and one generation");
    close(storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_way_is_refused() {
    let (_disk, mut from) = Disk::of_node(8);
    commit(&mut from, history(300, 1_000)).await;
    build(&mut from).await;
    let (_disk, to) = Disk::new();
    let mut sending = source(&from.control);
    let manifest = sending.manifest().clone();
    let part = sending.next_part().unwrap().unwrap();

    let mut receiving = to.control.receive_snapshot(manifest.clone()).unwrap();
    let mut edited = part.clone();
    edited.data = bytes::Bytes::from(vec![0; part.data.len()]);
    let text = receiving.write(&edited).unwrap_err().to_string();
    assert!(text.contains("has checksum"), "{text}");
    let mut moved = part.clone();
    moved.offset = 1;
    let text = receiving.write(&moved).unwrap_err().to_string();
    assert!(text.contains("part at 1 of"), "{text}");
    receiving.write(&part).unwrap();
    let text = receiving.finish().err().unwrap().to_string();
    assert!(text.contains("the manifest says"), "{text}");

    // The transfer is whole, its digests are not those of the manifest.
    let mut foreign = manifest.clone();
    foreign.files[0].blake3 = vec![1; 32].into();
    let mut receiving = to.control.receive_snapshot(foreign).unwrap();
    let mut sending = source(&from.control);
    assert!(carry(&mut sending, &mut receiving, usize::MAX));
    let text = receiving.finish().err().unwrap().to_string();
    assert!(text.contains("differs from its digest"), "{text}");

    // The files are whole, they hold something else than the manifest promises.
    let mut foreign = manifest.clone();
    foreign.content_digest = vec![1; 16].into();
    let mut receiving = to.control.receive_snapshot(foreign).unwrap();
    let mut sending = source(&from.control);
    assert!(carry(&mut sending, &mut receiving, usize::MAX));
    let text = receiving.finish().err().unwrap().to_string();
    assert!(text.contains("rows differ from its manifest"), "{text}");

    let mut foreign = manifest.clone();
    foreign.files[0].name = "../escape".into();
    assert!(to.control.receive_snapshot(foreign).is_err());
    let mut foreign = manifest;
    foreign.rocksdb = "12.1".into();
    let text = to.control.receive_snapshot(foreign).err().unwrap().to_string();
    assert!(text.contains("upgrade this node"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_of_an_install_it_recovers() {
    let (_disk, mut from) = Disk::of_node(8);
    commit(&mut from, history(400, 500)).await;
    build(&mut from).await;
    let new = facts(&from.control);

    let killed: Arc<Mutex<Vec<(&'static str, tempfile::TempDir)>>> = Arc::default();
    let dir = tempfile::tempdir().unwrap();
    let (kills, path) = (killed.clone(), dir.path().to_owned());
    let on_step = OnStep::call(move |step| {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&path, copy.path());
        kills.lock().push((step, copy));
    });
    let mut to = open(dir.path(), |options| options.on_step = on_step).unwrap();
    commit(&mut to, history(20, 10)).await;
    to.log.save_committed(Some(log_id(19))).await.unwrap();
    commit(&mut to, puts(20..21, 10)).await;
    to.control.state.flush().unwrap();
    let old = facts(&to.control);
    let mut sending = source(&from.control);
    let mut receiving = to.control.receive_snapshot(sending.manifest().clone()).unwrap();
    assert!(carry(&mut sending, &mut receiving, usize::MAX));
    let staged = receiving.finish().unwrap();
    install(&mut to, staged).await;
    assert_eq!(facts(&to.control), new);
    close(to);

    let killed = std::mem::take(&mut *killed.lock());
    let steps: Vec<_> = killed.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [
            "stage: link",
            "stage: move",
            "stage: load",
            "install: current",
            "install: publish",
            "install: done"
        ]
    );
    for (step, dir) in killed {
        let mut storage = open(dir.path(), |_| ()).unwrap();
        start(&mut storage).await;
        let installed = matches!(step, "install: publish" | "install: done");
        assert_eq!(facts(&storage.control), if installed { new } else { old }, "at {step}");
        if installed {
            // What followers will be offered joins the log; the leader builds it where it is not
            // published yet.
            if storage.control.newest_snapshot().is_none() {
                build(&mut storage).await;
            }
            let snapshot = storage.control.newest_snapshot().unwrap().last_applied();
            assert_eq!(snapshot, Some(log_id(399)), "at {step}");
            commit(&mut storage, puts(400..410, 10)).await;
        } else {
            // The snapshot comes again, and what is left of the last time is no obstacle.
            let mut sending = source(&from.control);
            let mut receiving =
                storage.control.receive_snapshot(sending.manifest().clone()).unwrap();
            sending.resume(receiving.have());
            assert!(carry(&mut sending, &mut receiving, usize::MAX));
            let staged = receiving.finish().unwrap();
            install(&mut storage, staged).await;
            assert_eq!(facts(&storage.control), new, "at {step}");
        }
        close(storage);
        // A replaced one is closed, and deleted, in the background.
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::read_dir(dir.path().join("sm")).unwrap().count() > 2 {
            assert!(Instant::now() < deadline, "more than CURRENT and one generation, at {step}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_built_beside_writes_holds_just_what_it_says() {
    let (disk, mut storage) = Disk::of_node(8);
    commit(&mut storage, history(2_000, 200)).await;
    let mut builder = storage.machine.try_create_snapshot_builder(true).await.unwrap();
    let building = tokio::spawn(async move { builder.build_snapshot().await.unwrap() });
    let mut index = 2_000;
    while !building.is_finished() {
        commit(&mut storage, puts(index..index + 20, 200)).await;
        index += 20;
    }
    let snapshot = building.await.unwrap();
    let built = snapshot.meta.last_log_id.unwrap().index;
    assert!((1_999..index).contains(&built));

    // Applied to a fresh node, the rest of the log leads to the same state.
    let (_disk, mut other) = Disk::new();
    let mut sending = source(&storage.control);
    let mut receiving = other.control.receive_snapshot(sending.manifest().clone()).unwrap();
    assert!(carry(&mut sending, &mut receiving, usize::MAX));
    let staged = receiving.finish().unwrap();
    install(&mut other, staged).await;
    commit(&mut other, puts(built + 1..index, 200)).await;
    assert_eq!(facts(&other.control), facts(&storage.control));
    drop(storage);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_by_bytes_and_not_beyond_a_snapshot_that_is_being_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open(dir.path(), |options| {
        options.retention.snapshot_log_bytes = 4 << 20;
        options.retention.keep_log_bytes = 3 << 20;
    })
    .unwrap();
    commit(&mut storage, history(4_000, 1_000)).await;
    assert!(!storage.control.snapshot_is_due());
    assert_eq!(storage.control.purge_upto(None), None);
    commit(&mut storage, puts(4_000..6_000, 1_000)).await;
    assert!(storage.control.snapshot_is_due());
    build(&mut storage).await;
    assert!(!storage.control.snapshot_is_due());
    let upto = storage.control.purge_upto(None).unwrap();
    assert!((1_000..3_000).contains(&upto), "{upto}");

    let sending = source(&storage.control);
    commit(&mut storage, puts(6_000..14_000, 1_000)).await;
    build(&mut storage).await;
    assert_eq!(storage.control.purge_upto(None), Some(5_999));
    drop(sending);
    assert!(storage.control.purge_upto(None).unwrap() > 9_000);
    storage.log.purge(log_id(9_000)).await.unwrap();
    assert!(storage.control.log.size_bytes() < 6 << 20);
    close(storage);
    let snapshots = std::fs::read_dir(dir.path().join("snap")).unwrap().count();
    assert_eq!(snapshots, 1, "only the newest snapshot is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_built_costs_no_node_and_the_log_is_purged_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let small = |options: &mut raft::storage::StorageOptions| {
        options.retention.snapshot_log_bytes = 1 << 20;
        options.retention.keep_log_bytes = 1 << 20;
        options.retention.unsnapshotted_log_bytes_max = 4 << 20;
    };
    let mut storage = open(dir.path(), small).unwrap();
    let snapshots = dir.path().join("snap");
    std::fs::remove_dir_all(&snapshots).unwrap();
    std::fs::write(&snapshots, "in the way").unwrap();

    commit(&mut storage, history(2_000, 1_000)).await;
    assert!(storage.control.snapshot_is_due());
    assert!(matches!(build(&mut storage).await.snapshot, SnapshotData::Unbuilt));
    let trouble = storage.control.snapshot_trouble().unwrap();
    assert_eq!(trouble.attempts, 1);
    assert!(trouble.error.contains("snap"), "{trouble:?}");
    assert!(!storage.control.snapshot_is_due(), "it is tried again at once");
    assert_eq!(storage.control.purge_upto(None), None, "the log is still short");
    assert_eq!(storage.control.metrics.snapshot_build_failures.get(), 1);

    commit(&mut storage, puts(2_000..6_000, 1_000)).await;
    let stand_in = build(&mut storage).await;
    assert_eq!(stand_in.meta.last_log_id, Some(log_id(5_999)));
    let upto = storage.control.purge_upto(None).unwrap();
    assert!((3_000..6_000).contains(&upto), "{upto}");
    storage.log.purge(log_id(upto)).await.unwrap();
    let expected = facts(&storage.control);
    // A peer that needs a snapshot waits; without one openraft would end.
    let current = storage.machine.get_current_snapshot().await.unwrap().unwrap();
    assert!(matches!(current.snapshot, SnapshotData::Unbuilt));
    close(storage);

    let mut storage = open(dir.path(), small).unwrap();
    start(&mut storage).await;
    assert_eq!(facts(&storage.control), expected);
    std::fs::remove_file(&snapshots).unwrap();
    assert!(matches!(build(&mut storage).await.snapshot, SnapshotData::Image(_)));
    assert_eq!(storage.control.snapshot_trouble(), None);
    close(storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_being_finished_is_not_disturbed_by_another_of_the_same_snapshot() {
    let (_disk, mut from) = Disk::of_node(8);
    commit(&mut from, history(400, 500)).await;
    build(&mut from).await;
    let new = facts(&from.control);
    let manifest = source(&from.control).manifest().clone();

    let dir = tempfile::tempdir().unwrap();
    let (reached, loading) = std::sync::mpsc::sync_channel(1);
    let (resume, resumed) = std::sync::mpsc::sync_channel::<()>(1);
    let resumed = Mutex::new(resumed);
    let on_step = OnStep::call(move |step| {
        if step == "stage: load" {
            reached.send(()).unwrap();
            resumed.lock().recv().unwrap();
        }
    });
    let mut to = open(dir.path(), |options| options.on_step = on_step).unwrap();
    commit(&mut to, history(20, 10)).await;

    // One that was superseded while it was written ends without touching what the other has.
    let mut early = to.control.receive_snapshot(manifest.clone()).unwrap();
    let mut sending = source(&from.control);
    early.write(&sending.next_part().unwrap().unwrap()).unwrap();
    let mut receiving = to.control.receive_snapshot(manifest.clone()).unwrap();
    let part = sending.next_part().unwrap();
    if let Some(part) = part {
        let text = early.write(&part).unwrap_err().to_string();
        assert_eq!(text, "another snapshot is arriving");
    }
    let text = early.finish().err().unwrap().to_string();
    assert_eq!(text, "another snapshot is arriving");
    let mut sending = source(&from.control);
    sending.resume(receiving.have());
    assert!(carry(&mut sending, &mut receiving, usize::MAX));

    let finishing = std::thread::spawn(move || receiving.finish());
    loading.recv().unwrap();
    let busy = |control: &StorageControl| {
        let error = control.receive_snapshot(manifest.clone()).err();
        error.is_some_and(|error| error.to_string().contains("send again later"))
    };
    assert!(busy(&to.control), "a second transfer began while the first was loaded");
    resume.send(()).unwrap();
    let staged = finishing.join().unwrap().unwrap();
    assert!(busy(&to.control), "a second transfer began before the first was installed");
    install(&mut to, staged).await;
    assert_eq!(facts(&to.control), new);
    assert!(!busy(&to.control));
    close(to);
}
