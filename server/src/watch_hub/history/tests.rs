//! Watchers that read history and watchers in sync, on a store in memory, without a node.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::noop_waker_ref;
use proptest::prelude::*;
use prost::Message;
use statemachine::testkit::{Machine, MemoryStore};
use statemachine::{Direction, Table, Visit};

use super::*;
use crate::watch_hub::feed::distribute;
use crate::watch_hub::registry::{Joined, Registry, WatchBounds};
use crate::watch_hub::stream::{Outgoing, StreamBounds, StreamQueue};

const ROOMY: StreamBounds =
    StreamBounds { bytes_max: 64 << 20, responses_max: 10_000, answers_max: 10_000 };
const BOUNDS: WatchBounds = WatchBounds {
    stream_watchers_max: 1_000,
    member_watchers_max: 1_000,
    member_range_bytes_max: 1 << 20,
};

/// Counts the rows of history that are read.
struct Counting<'a> {
    store: &'a MemoryStore,
    n_rows: Cell<usize>,
}

impl StateRead for Counting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        self.store.scan(table, start, end, direction, &mut |key, row| {
            self.n_rows.set(self.n_rows.get() + usize::from(table == Table::Event));
            visit(key, row)
        })
    }
}

/// What a watcher got: revision, key, and the value before it.
type Got = Vec<(i64, Bytes, Option<Bytes>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Open,
    Compacted,
}

/// A keyspace, its watchers, and what they got.
struct Stage {
    machine: Machine,
    registry: Registry,
    streams: Vec<Arc<StreamQueue>>,
    cursor: i64,
    got: BTreeMap<(u64, i64), (Got, End)>,
    asked: BTreeMap<(u64, i64), etcd::WatchCreateRequest>,
    /// Every change of the keyspace.
    changes: Vec<Event>,
}

impl Stage {
    fn new(n_streams: u64, bounds: StreamBounds) -> Stage {
        let machine = Machine::new();
        let mut registry = Registry::new(machine.state.revision(), BOUNDS);
        let open = |id| Arc::new(StreamQueue::new(id, bounds, Arc::default()));
        let streams: Vec<_> = (1..=n_streams).map(open).collect();
        streams.iter().for_each(|stream| registry.open(Arc::clone(stream)));
        Stage {
            machine,
            registry,
            streams,
            cursor: 0,
            got: BTreeMap::new(),
            asked: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Applies a command and hands its events to the watchers in sync, as the feed does.
    fn apply(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let entry = self.machine.entry(vec![statemachine::testkit::script::command(&words)]);
        let applied = self.machine.apply(&[entry]).unwrap();
        let compacted = self.machine.state.compacted_revision();
        let wanted = self.registry.replaced_wanted(&applied.events);
        let previous = PreviousPairs::read(&self.machine.store, compacted, &wanted, &|fault| {
            panic!("{fault}")
        });
        let done = self.registry.revision();
        let behind =
            distribute(&mut self.registry, &applied.events, applied.revision.max(done), &previous);
        for watcher in &behind {
            self.registry.fall_behind(watcher, done + 1);
        }
        self.registry.set_revision(applied.revision);
        self.changes.extend(applied.events);
    }

    fn watch(&mut self, stream: u64, request: &etcd::WatchCreateRequest) {
        let current = self.machine.state.revision();
        let joined = self.registry.create(stream, request, current);
        assert_ne!(joined, Joined::Refused);
        let id = self.asked.keys().filter(|(of, _)| *of == stream).count();
        let mut request = request.clone();
        if request.start_revision == 0 {
            request.start_revision = current + 1;
        }
        let id = (stream, i64::try_from(id).unwrap());
        self.asked.insert(id, request);
        self.got.insert(id, (Vec::new(), End::Open));
    }

    /// One step of the task that reads history; the rows that it read, `None` with no watcher
    /// to read for.
    fn catch_up(&mut self, watchers_max: usize) -> Option<usize> {
        let group = self.registry.next_group(self.cursor, watchers_max);
        if group.is_empty() {
            return None;
        }
        let store = Counting { store: &self.machine.store, n_rows: Cell::new(0) };
        let state = &self.machine.state;
        let part = hand_out(&store, state.revision(), state.compacted_revision(), &group).unwrap();
        for watcher in &part.compacted {
            self.registry.cancel_compacted(watcher, part.compacted_revision);
        }
        self.cursor = part.through + 1;
        Some(store.n_rows.get())
    }

    /// The client of a stream reads up to `responses_max` responses.
    fn read(&mut self, stream: u64, responses_max: usize) {
        let queue = Arc::clone(&self.streams[usize::try_from(stream - 1).unwrap()]);
        let mut context = Context::from_waker(noop_waker_ref());
        for _ in 0..responses_max {
            let Poll::Ready(Some(next)) = queue.poll_next(&mut context) else { return };
            match next.unwrap() {
                Outgoing::Events { watcher, batch, from } => {
                    let (got, end) = self.got.get_mut(&(stream, watcher.id)).unwrap();
                    assert_eq!(*end, End::Open, "nothing follows a cancel");
                    let response = etcd::WatchResponse::decode(batch.whole(from).events).unwrap();
                    assert!(batch.through() >= batch.last_revision());
                    for event in response.events {
                        let kv = event.kv.unwrap();
                        got.push((kv.mod_revision, kv.key, event.prev_kv.map(|kv| kv.value)));
                    }
                }
                Outgoing::Control(response) if response.canceled => {
                    assert_ne!(response.compact_revision, 0);
                    self.got.get_mut(&(stream, response.watch_id)).unwrap().1 = End::Compacted;
                }
                Outgoing::Control(_) | Outgoing::Progress { .. } => {}
            }
        }
    }

    /// Reads everything that is left, then holds what each watcher got against all changes.
    fn check(mut self) {
        loop {
            for stream in 1..=self.streams.len() as u64 {
                self.read(stream, usize::MAX);
            }
            if self.catch_up(7).is_none() {
                break;
            }
        }
        assert_eq!(self.registry.n_behind(), 0);
        let compacted = self.machine.state.compacted_revision();
        for (id, request) in &self.asked {
            let range =
                crate::watch_hub::range::KeyRange::of_watch(&request.key, &request.range_end);
            let range = range.unwrap();
            let form = Form::of(request);
            let wanted: Vec<&Event> = self
                .changes
                .iter()
                .filter(|event| event.revision >= request.start_revision)
                .filter(|event| range.contains(event.key()) && form.wants(event.kind))
                .collect();
            let (got, end) = &self.got[id];
            match end {
                End::Open => assert_eq!(got.len(), wanted.len(), "{id:?} {request:?}"),
                End::Compacted => assert!(request.start_revision < compacted),
            }
            for ((revision, key, before), event) in got.iter().zip(wanted) {
                assert_eq!((*revision, key), (event.revision, event.key()), "{id:?} {request:?}");
                let earlier = self.changes.iter().rev().filter(|it| it.revision < *revision);
                let last = earlier.clone().find(|it| it.key() == key);
                let last = last.filter(|it| it.kind == statemachine::EventKind::Put);
                let value = last.map(|it| it.kv.value.clone()).filter(|_| form.prev_kv);
                let may_be_compacted = *revision <= compacted && before.is_none();
                assert!(*before == value || may_be_compacted, "{id:?} {revision} {before:?}");
            }
        }
    }
}

fn on(key: &str, end: &str, start_revision: i64) -> etcd::WatchCreateRequest {
    etcd::WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        start_revision,
        ..Default::default()
    }
}

#[test]
fn history_is_read_once_for_all_watchers_that_lack_it() {
    let mut stage = Stage::new(4, ROOMY);
    for nth in 0..10_000 {
        stage.apply(&format!("put k{:03} {nth}", nth % 200));
    }
    for nth in 0..200_u64 {
        let request = on(&format!("k{nth:03}"), "", 2 + i64::try_from(nth).unwrap());
        stage.watch(1 + nth % 4, &request);
    }
    let mut n_rows = 0;
    while let Some(rows) = stage.catch_up(super::super::catch_up::GROUP_WATCHERS_MAX) {
        n_rows += rows;
    }
    assert!(n_rows <= 10_000 + 2 * 10, "{n_rows} rows were read for 10,000 changes");
    stage.check();
}

#[test]
fn a_watcher_with_an_old_revision_does_not_hold_up_those_that_are_further_on() {
    let mut stage = Stage::new(2, ROOMY);
    for nth in 0..9_000 {
        stage.apply(&format!("put k {nth}"));
    }
    stage.watch(1, &on("k", "", 2));
    stage.catch_up(10);
    let first = stage.cursor;
    // Somebody comes with an old revision before every step.
    let mut n_steps = 0;
    while stage.cursor < stage.machine.state.revision() {
        stage.watch(2, &on("k", "", 2));
        stage.catch_up(10);
        n_steps += 1;
    }
    assert!(n_steps <= 9_000 / (first - 2), "{n_steps} steps of {first} revisions");
    stage.check();
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8),
    Delete,
    Compact(u8),
    CompactRows,
    Watch { stream: u64, range: usize, back: u8, prev_kv: bool, no_puts: bool },
    CatchUp(usize),
    Read(u64, usize),
    Skip,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (0..6_u8).prop_map(Act::Put),
        1 => Just(Act::Delete),
        1 => any::<u8>().prop_map(Act::Compact),
        1 => Just(Act::CompactRows),
        3 => (1..4_u64, 0..5_usize, any::<u8>(), any::<bool>(), any::<bool>()).prop_map(
            |(stream, range, back, prev_kv, no_puts)| {
                Act::Watch { stream, range, back, prev_kv, no_puts }
            }
        ),
        6 => (1..5_usize).prop_map(Act::CatchUp),
        3 => (1..4_u64, 1..6_usize).prop_map(|(stream, n)| Act::Read(stream, n)),
        1 => Just(Act::Skip),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_watcher_gets_every_event_of_its_range_once_and_in_order(
        acts in prop::collection::vec(act(), 1..150),
    ) {
        let tight = StreamBounds { bytes_max: 400, responses_max: 4, answers_max: 10_000 };
        let mut stage = Stage::new(3, tight);
        let ranges = [("k0", ""), ("k1", "k3"), ("k2", "k9"), ("k", "\0"), ("x", "z")];
        for act in acts {
            let revision = stage.machine.state.revision();
            match act {
                Act::Put(key) => stage.apply(&format!("put k{key} v{revision}")),
                Act::Delete => stage.apply("del k1 k4"),
                Act::Compact(back) => {
                    let to = revision - i64::from(back % 20);
                    if to > stage.machine.state.compacted_revision() {
                        stage.apply(&format!("compact {to}"));
                    }
                }
                Act::CompactRows => stage.machine.compact_rows(3),
                Act::Watch { stream, range, back, prev_kv, no_puts } => {
                    let (key, end) = ranges[range];
                    let start = (revision + 3 - i64::from(back % 40)).max(0);
                    let filters = if no_puts && back % 3 == 0 { vec![0] } else { vec![] };
                    let request =
                        etcd::WatchCreateRequest { prev_kv, filters, ..on(key, end, start) };
                    stage.watch(stream, &request);
                }
                Act::CatchUp(watchers_max) => drop(stage.catch_up(watchers_max)),
                Act::Read(stream, n) => stage.read(stream, n),
                Act::Skip => drop(stage.registry.all_behind(stage.registry.revision() + 1)),
            }
        }
        stage.check();
    }
}
