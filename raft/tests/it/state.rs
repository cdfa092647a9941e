//! The state as entries are applied: what followers hear, what goes away, what stops the node.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;
use proto::{etcd, quorate};
use raft::apply::{AppliedEvent, RecvError};
use raft::failure::OnFailure;
use raft::rocks::StateBuilder;
use raft::storage::StorageControl;
use raft::types::{Entry, EntryPayload, Payload};
use statemachine::{Table, digest};

use crate::support::{
    Disk, NODE, Outcomes, apply, close, command_entry, commit, facts, history, log_id, open,
    open_with, puts,
};

fn event_rows(control: &StorageControl) -> usize {
    let (_, pinned) = control.state.view().pin(|_| ());
    let mut n = 0;
    pinned
        .export(&mut |row| {
            n += usize::from(row.table == Table::Event);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    n
}

fn put(index: u64, key: &str) -> Entry {
    let put = etcd::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(vec![1; 50]),
        ..etcd::PutRequest::default()
    };
    command_entry(index, 1, quorate::command::Kind::Put(put))
}

#[tokio::test(flavor = "multi_thread")]
async fn compacted_rows_go_in_the_background_and_no_answer_changes() {
    let (mut disk, mut storage) = Disk::new();
    commit(&mut storage, history(2, 0)).await;
    commit(&mut storage, (2..502).map(|index| put(index, "again and again")).collect()).await;
    let (n_keys, revision, content) = facts(&storage.control);
    assert_eq!((n_keys, event_rows(&storage.control)), (1, 500));

    let compact = etcd::CompactionRequest { revision: revision - 10, physical: false };
    let compact = command_entry(502, 1, quorate::command::Kind::Compact(compact));
    commit(&mut storage, vec![compact]).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while event_rows(&storage.control) > 11 {
        assert!(Instant::now() < deadline, "{} rows are left", event_rows(&storage.control));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(event_rows(&storage.control), 11);
    assert_eq!(facts(&storage.control), (n_keys, revision, content));
    let (_, pinned) = storage.control.state.view().pin(|_| ());
    assert_eq!(digest::recompute(&pinned).unwrap(), content);
    drop((pinned, storage));
    disk.stop();
    let storage = open(disk.path(), |_| ()).unwrap();
    assert_eq!(event_rows(&storage.control), 11);
    assert_eq!(facts(&storage.control), (n_keys, revision, content));
    close(storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_and_events_come_once_they_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = Arc::new(Outcomes::default());
    let mut storage = open_with(dir.path(), outcomes.clone(), |_| ()).unwrap();
    let mut followed = storage.control.state.subscribe();
    let index = storage.control.state.applied_index();
    commit(&mut storage, history(100, 10)).await;
    assert_eq!(*index.borrow(), 99);
    assert_eq!(outcomes.0.lock().len(), 99);
    let (mut n_events, mut last) = (0, 0);
    while n_events < 98 {
        match followed.recv().await.unwrap().as_ref() {
            AppliedEvent::Applied(applied) => {
                n_events += applied.events.len();
                last = applied.revision;
            }
            AppliedEvent::Reset { .. } => panic!("nothing was installed"),
        }
    }
    assert_eq!(last, storage.control.state.view().read(|state| state.revision()));
    close(storage);
    assert_eq!(followed.recv().await.unwrap_err(), RecvError::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_level_beyond_this_binary_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = failures.clone();
    let mut storage = open(dir.path(), |options| {
        options.on_failure = OnFailure::call(move |failure| seen.lock().push(failure.to_string()));
    })
    .unwrap();
    apply(&mut storage, history(10, 10)).await;
    let before = facts(&storage.control);
    let level = statemachine::versions::KNOWN_LEVEL + 1;
    let raise = quorate::command::Kind::RaiseLevel(quorate::RaiseLevel { level });
    let items = futures::stream::iter([Ok((command_entry(10, 1, raise), None))]);
    assert!(storage.machine.apply(items).await.is_err());
    assert_eq!(failures.lock().len(), 1);
    assert!(failures.lock()[0].starts_with("state storage failed: "), "{failures:?}");
    let items = futures::stream::iter(puts(11..12, 10).into_iter().map(|entry| Ok((entry, None))));
    assert!(storage.machine.apply(items).await.is_err(), "it went on after a failure");
    assert_eq!(facts(&storage.control), before);
    assert_eq!(storage.control.state.position().applied, Some(log_id(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_understood_stops_nothing() {
    let (_disk, mut storage) = Disk::new();
    apply(&mut storage, history(10, 10)).await;
    let payload = Payload(Bytes::from_static(b"\xff\xff\xff no batch"));
    let garbage = Entry { log_id: log_id(10), payload: EntryPayload::Normal(payload) };
    apply(&mut storage, vec![garbage]).await;
    apply(&mut storage, puts(11..12, 10)).await;
    assert_eq!(storage.control.state.position().applied, Some(log_id(11)));
    let alarms = storage.control.state.view().read(|state| state.alarms().count());
    assert_eq!(alarms, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_rows_build_the_same_state() {
    let (_disk, mut storage) = Disk::new();
    commit(&mut storage, history(300, 100)).await;
    let (_, pinned) = storage.control.state.view().pin(|_| ());
    let dir = tempfile::tempdir().unwrap();
    let mut builder = StateBuilder::new(dir.path(), NODE).unwrap();
    pinned
        .export(&mut |row| {
            builder.put(row.table, row.key, row.value).unwrap();
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    let applied = pinned.applied().unwrap().unwrap();
    let membership = storage.control.state.position().membership;
    builder.finish(&applied, &membership).unwrap();

    let restored = open(dir.path(), |_| ()).unwrap();
    assert_eq!(facts(&restored.control), facts(&storage.control));
    assert_eq!(restored.control.state.position(), storage.control.state.position());
    close(restored);
    let text = StateBuilder::new(dir.path(), NODE).err().unwrap().to_string();
    assert!(text.contains("already holds a state"), "{text}");
}
