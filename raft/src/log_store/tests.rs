use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use openraft::type_config::TypeConfigExt;

use crate::types::{Endpoints, EntryPayload, LeaderId, Membership, NodeMeta, Payload};

use super::*;

const NODE: u64 = 7;

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: NODE }, index)
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = Payload(Bytes::from(format!("term {term} index {index}")));
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(payload) }
}

fn run(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index)).collect()
}

/// A callback, and where its call arrives.
fn flushing() -> (IOFlushed<TypeConfig>, impl Future<Output = Result<io::Result<()>, impl Debug>>) {
    let (done, flushed) = TypeConfig::oneshot();
    (IOFlushed::signal(done), flushed)
}

/// A log on a disk in memory, with what its failures said.
struct Fixture {
    disk: MemoryLog,
    store: LogStore,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    fn open(disk: MemoryLog) -> Fixture {
        Fixture::open_with(disk, LogOptions::default())
    }

    fn open_with(disk: MemoryLog, options: LogOptions) -> Fixture {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let store = open(&disk, options, failures.clone()).unwrap();
        Fixture { disk, store, failures }
    }

    async fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let (done, flushed) = flushing();
        self.store.append(entries, done).await?;
        flushed.await.unwrap()
    }

    async fn indexes(&mut self, range: std::ops::Range<u64>) -> Vec<(u64, u64)> {
        let entries = self.store.try_get_log_entries(range).await.unwrap();
        entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
    }
}

fn open(
    disk: &MemoryLog,
    options: LogOptions,
    failures: Arc<Mutex<Vec<String>>>,
) -> Result<LogStore, LogOpenError> {
    let on_failure = OnFailure::call(move |failure| failures.lock().push(failure.to_string()));
    LogStore::open(Arc::new(disk.clone()), NODE, options, Arc::default(), on_failure)
}

fn refusal(disk: &MemoryLog) -> String {
    match open(disk, LogOptions::default(), Arc::default()) {
        Ok(_) => panic!("the log was opened"),
        Err(error) => error.to_string(),
    }
}

/// Two terms' worth of entries, with a tail that holds only a few of them.
async fn small_tail() -> Fixture {
    let options = LogOptions { tail_bytes_max: 600, read_bytes_max: 200, ..LogOptions::default() };
    let mut log = Fixture::open_with(MemoryLog::new(), options);
    for index in 0..50 {
        log.append(vec![entry(1 + index / 25, index)]).await.unwrap();
    }
    log
}

#[tokio::test]
async fn an_acknowledged_entry_survives_a_crash_and_an_unsynced_one_need_not() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..3)).await.unwrap();
    log.store.save_vote(&Vote::new(4, NODE)).await.unwrap();
    log.disk.hang_syncs(Duration::from_secs(1));
    // Readable at once, although its sync takes a while.
    log.store.append(run(4, 3..5), IOFlushed::noop()).await.unwrap();
    assert_eq!(log.indexes(0..9).await.len(), 5);

    let mut recovered = Fixture::open(log.disk.crash(0));
    assert_eq!(recovered.indexes(0..9).await, [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(recovered.store.read_vote().await.unwrap(), Some(Vote::new(4, NODE)));
    assert_eq!(recovered.store.durable_index(), Some(2));
}

#[tokio::test]
async fn jobs_that_wait_share_one_sync() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..1)).await.unwrap();
    log.disk.hang_syncs(Duration::from_millis(50));
    let before = log.disk.syncs();
    let (done, first) = flushing();
    log.store.append(run(1, 1..2), done).await.unwrap();
    let mut waiting = Vec::new();
    for index in 2..100 {
        let (done, flushed) = flushing();
        log.store.append(run(1, index..index + 1), done).await.unwrap();
        waiting.push(flushed);
    }
    first.await.unwrap().unwrap();
    for flushed in waiting {
        flushed.await.unwrap().unwrap();
    }
    let syncs = log.disk.syncs() - before;
    assert!(syncs <= 3, "98 appends behind a slow sync took {syncs} syncs");
}

#[tokio::test]
async fn a_failed_sync_is_reported_once_and_never_acknowledged() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..3)).await.unwrap();
    log.disk.fail_next_sync();
    assert!(log.append(run(1, 3..4)).await.is_err());
    assert_eq!(*log.failures.lock(), ["log storage failed: injected failure of a sync"]);
    // Nothing works after it: what is on the disk is unknown.
    assert!(log.append(run(1, 4..5)).await.is_err());
    assert!(log.store.save_vote(&Vote::new(9, NODE)).await.is_err());
    assert_eq!(log.store.read_vote().await.unwrap(), None);
    assert_eq!(log.failures.lock().len(), 1);
    assert_eq!(log.store.durable_index(), Some(2));
    assert_eq!(Fixture::open(log.disk.crash(0)).indexes(0..9).await.len(), 3);
}

#[tokio::test]
async fn a_hanging_sync_is_seen_while_it_hangs() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..1)).await.unwrap();
    assert_eq!(log.store.stall(), Duration::ZERO);
    log.disk.hang_syncs(Duration::from_millis(300));
    let (done, flushed) = flushing();
    log.store.append(run(1, 1..2), done).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while log.store.stall() < Duration::from_millis(100) {
        assert!(Instant::now() < deadline, "the stall was never seen");
        tokio::task::yield_now().await;
    }
    flushed.await.unwrap().unwrap();
    assert_eq!(log.store.stall(), Duration::ZERO);
}

#[tokio::test]
async fn reads_cross_from_disk_to_memory_without_a_hole() {
    let mut log = small_tail().await;
    let tail_first = log.store.shared.log.lock().tail.first_index().unwrap();
    assert!(tail_first > 30, "the tail kept everything from {tail_first}");
    let all: Vec<_> = (0..50).map(|index| (1 + index / 25, index)).collect();
    assert_eq!(log.indexes(0..50).await, all);
    assert_eq!(log.indexes(20..30).await, all[20..30]);
    let few = log.store.limited_get_log_entries(3, 50).await.unwrap();
    assert_eq!(few[0].log_id.index, 3);
    assert!(few.len() < 10, "a limited read gave {}", few.len());
    let stream = log.store.entries_stream(0..50).await;
    let streamed: Vec<_> = stream.map(|entry| entry.unwrap().log_id.index).collect().await;
    assert_eq!(streamed, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn truncated_below_the_tail_and_appended_again() {
    let mut log = small_tail().await;
    log.store.truncate_after(Some(log_id(1, 9))).await.unwrap();
    assert_eq!(log.indexes(8..50).await, [(1, 8), (1, 9)]);
    log.append(run(3, 10..12)).await.unwrap();
    assert_eq!(log.indexes(8..50).await, [(1, 8), (1, 9), (3, 10), (3, 11)]);
    let mut recovered = Fixture::open(log.disk.crash(0));
    assert_eq!(recovered.indexes(8..50).await, [(1, 8), (1, 9), (3, 10), (3, 11)]);
}

#[tokio::test]
async fn purged_entries_stay_away_after_a_restart() {
    let mut log = small_tail().await;
    log.store.purge(log_id(1, 19)).await.unwrap();
    assert_eq!(log.indexes(0..22).await, [(1, 20), (1, 21)]);
    log.store.stop().unwrap();
    let mut recovered = Fixture::open(log.disk.crash(0));
    assert_eq!(recovered.store.purged(), Some(log_id(1, 19)));
    assert_eq!(recovered.indexes(0..22).await, [(1, 20), (1, 21)]);
    let state = recovered.store.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(log_id(2, 49)));
    // Beyond the end: as after the install of a snapshot.
    recovered.store.purge(log_id(5, 100)).await.unwrap();
    assert_eq!(recovered.indexes(0..200).await, []);
    recovered.append(run(5, 101..102)).await.unwrap();
    assert_eq!(recovered.indexes(0..200).await, [(5, 101)]);
    let mut again = Fixture::open(recovered.disk.crash(0));
    assert_eq!(again.indexes(0..200).await, [(5, 101)]);
}

#[tokio::test]
async fn the_saved_committed_entry_is_never_ahead_of_the_durable_log() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..3)).await.unwrap();
    log.store.save_committed(Some(log_id(1, 5))).await.unwrap();
    log.append(run(1, 3..4)).await.unwrap();
    let mut recovered = Fixture::open(log.disk.crash(0));
    assert_eq!(recovered.store.read_committed().await.unwrap(), None);
    log.append(run(1, 4..7)).await.unwrap();
    let mut recovered = Fixture::open(log.disk.crash(0));
    assert_eq!(recovered.store.read_committed().await.unwrap(), Some(log_id(1, 5)));
}

#[tokio::test]
async fn an_append_with_a_hole_is_refused() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..3)).await.unwrap();
    let error = log.append(run(1, 4..5)).await.unwrap_err();
    assert_eq!(error.to_string(), "entry 4 appended after entry 2");
}

#[tokio::test]
async fn damage_is_refused_with_what_was_found() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..10)).await.unwrap();

    let edited = log.disk.crash(0);
    edited.edit(4, |row| row[20] ^= 1);
    let text = refusal(&edited);
    assert!(text.contains("entry 4 has checksum"), "{text}");
    assert!(text.contains("member replace"), "{text}");

    let holed = log.disk.crash(0);
    holed.remove(5);
    let text = refusal(&holed);
    assert!(text.contains("no entry 5 although 6 is there"), "{text}");

    log.store.purge(log_id(1, 2)).await.unwrap();
    log.store.stop().unwrap();
    let beheaded = log.disk.crash(0);
    beheaded.remove(3);
    let text = refusal(&beheaded);
    assert!(text.contains("no entry 3 although 4 is there"), "{text}");
}

#[tokio::test]
async fn damage_found_while_reading_stops_the_node() {
    let mut log = small_tail().await;
    log.disk.edit(3, |row| row[20] ^= 1);
    assert!(log.store.try_get_log_entries(0..50).await.is_err());
    let failures = log.failures.lock();
    assert!(failures[0].contains("entry 3 has checksum"), "{failures:?}");
}

#[tokio::test]
async fn another_nodes_log_and_another_layout_are_refused() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..1)).await.unwrap();
    let foreign = LogStore::open(
        Arc::new(log.disk.crash(0)),
        NODE + 1,
        LogOptions::default(),
        Arc::default(),
        OnFailure::call(|_| {}),
    );
    let text = foreign.err().unwrap().to_string();
    assert!(text.contains("belongs to node 7"), "{text}");

    let newer = log.disk.crash(0);
    let record = LogChange::Record { fact: Fact::Schema, value: 9_u32.to_le_bytes().to_vec() };
    newer.write(LogBatch { changes: vec![record] }, true).unwrap();
    let text = refusal(&newer);
    assert!(text.contains("layout version 9"), "{text}");

    let bare = MemoryLog::new();
    bare.write(LogBatch { changes: vec![LogChange::Put { index: 0, row: vec![0] }] }, true)
        .unwrap();
    let text = refusal(&bare);
    assert!(text.contains("no layout version"), "{text}");
}

/// Whatever part of the unsynced batches a crash keeps, the log opens and has no hole.
#[tokio::test]
async fn every_crash_point_of_a_busy_log_recovers() {
    use rand::{Rng, SeedableRng};
    for seed in 0..20_u64 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut log = Fixture::open(MemoryLog::new());
        let mut acknowledged: Option<u64> = None;
        let (mut last, mut term, mut purged) = (0_u64, 1_u64, None);
        log.append(run(1, 0..1)).await.unwrap();
        for _ in 0..60 {
            match random.random_range(0..10) {
                0..6 => {
                    let n = random.random_range(1..5);
                    log.append(run(term, last + 1..last + 1 + n)).await.unwrap();
                    last += n;
                    acknowledged = Some(last);
                }
                6 => {
                    let keep = random.random_range(purged.unwrap_or(0)..=last);
                    let kept = log.store.try_get_log_entries(keep..=keep).await.unwrap();
                    let Some(kept) = kept.first().map(|entry| entry.log_id) else { continue };
                    log.store.truncate_after(Some(kept)).await.unwrap();
                    last = keep;
                    acknowledged = acknowledged.min(Some(last));
                    term += 1;
                }
                7 => {
                    let upto = random.random_range(purged.unwrap_or(0)..=last);
                    let found = log.store.try_get_log_entries(upto..=upto).await.unwrap();
                    let Some(found) = found.first().map(|entry| entry.log_id) else { continue };
                    log.store.purge(found).await.unwrap();
                    purged = Some(upto);
                }
                _ => log.store.save_vote(&Vote::new(term, NODE)).await.unwrap(),
            }
            let crashed = log.disk.crash(random.random_range(0..4));
            let mut recovered = Fixture::open(crashed);
            let state = recovered.store.get_log_state().await.unwrap();
            assert!(state.last_log_id.map(|id| id.index) >= acknowledged, "seed {seed}");
            let first = state.last_purged_log_id.map_or(0, |id| id.index + 1);
            let end = state.last_log_id.map_or(0, |id| id.index + 1);
            let found = recovered.indexes(first..end).await.len() as u64;
            assert_eq!(found, end - first, "seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_vote_counts_before_it_can_be_given() {
    let mut log = Fixture::open(MemoryLog::new());
    log.store.save_vote(&Vote::new(4, NODE)).await.unwrap();
    assert_eq!(log.store.newest_vote(), Some(Vote::new(4, NODE)));
    // The disk hangs: nobody has been told of the new vote, and nobody may count on the old one.
    log.disk.hang_syncs(Duration::from_millis(300));
    let mut store = log.store.clone();
    let saving = tokio::spawn(async move { store.save_vote(&Vote::new(5, NODE)).await });
    let deadline = Instant::now() + Duration::from_secs(5);
    while log.store.newest_vote() != Some(Vote::new(5, NODE)) {
        assert!(Instant::now() < deadline, "the new vote was never seen");
        tokio::task::yield_now().await;
    }
    assert_eq!(log.store.vote(), Some(Vote::new(4, NODE)), "it was seen only when it was durable");
    saving.await.unwrap().unwrap();
    assert_eq!(log.store.vote(), Some(Vote::new(5, NODE)));
    log.store.stop().unwrap();
    let recovered = Fixture::open(log.disk.crash(0));
    assert_eq!(recovered.store.newest_vote(), Some(Vote::new(5, NODE)));
}

#[tokio::test]
async fn the_committed_index_is_the_highest_that_anyone_heard_of() {
    let mut log = Fixture::open(MemoryLog::new());
    assert_eq!(log.store.committed_index(), None);
    log.append(run(1, 0..9)).await.unwrap();
    log.store.note_committed(3);
    assert_eq!(log.store.committed_index(), Some(3));
    log.store.save_committed(Some(log_id(1, 5))).await.unwrap();
    log.store.note_committed(4);
    assert_eq!(log.store.committed_index(), Some(5));
}

#[tokio::test]
async fn a_membership_is_known_from_its_append_until_it_is_truncated() {
    let mut log = Fixture::open(MemoryLog::new());
    log.append(run(1, 0..2)).await.unwrap();
    assert_eq!(log.store.newest_membership(), None);
    let membership = Entry { log_id: log_id(1, 2), payload: EntryPayload::Membership(voters()) };
    log.store.append(vec![membership], IOFlushed::noop()).await.unwrap();
    log.append(run(1, 3..5)).await.unwrap();
    assert_eq!(log.store.newest_membership(), Some(2));
    log.store.truncate_after(Some(log_id(1, 2))).await.unwrap();
    assert_eq!(log.store.newest_membership(), Some(2));
    log.store.truncate_after(Some(log_id(1, 1))).await.unwrap();
    assert_eq!(log.store.newest_membership(), None);
}

fn voters() -> Membership {
    let node = NodeMeta { name: "a".to_owned(), endpoints: Endpoints::default() };
    Membership::new(vec![BTreeSet::from([NODE])], BTreeMap::from([(NODE, node)])).unwrap()
}
