//! A store of ordered maps and a driver of the state machine, for tests here and elsewhere.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::quorate;

use crate::compaction;
use crate::ids::{EntryMeta, RequestId};
use crate::response::{Outcome, Response};
use crate::state::State;
use crate::state::chunk::{LogEntry, Readers};
use crate::state::commit::Applied;
use crate::state::counters::Counters;
use crate::store::{Changes, Direction, Fault, StateRead, Table, Visit};

pub mod script;

/// The tables in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    tables: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
}

impl MemoryStore {
    pub fn apply(&mut self, changes: &Changes) {
        for (table, key, value) in changes.iter() {
            let rows = self.tables.entry(table).or_default();
            match value {
                Some(value) => {
                    rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                }
                None => {
                    rows.remove(key);
                }
            }
        }
    }

    /// All rows of a table, in order.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.tables.get(&table).into_iter().flatten()
    }

    /// For tests that damage rows.
    pub fn rows_mut(&mut self, table: Table) -> &mut BTreeMap<Bytes, Bytes> {
        self.tables.entry(table).or_default()
    }
}

impl StateRead for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let Some(rows) = self.tables.get(&table) else { return Ok(()) };
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = rows.range::<[u8], _>((Bound::Included(start), end));
        loop {
            let row = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            let Some((key, value)) = row else { return Ok(()) };
            if visit(key, value)? == ControlFlow::Break(()) {
                return Ok(());
            }
        }
    }
}

/// A state, its store, and an origin that proposes.
#[derive(Debug)]
pub struct Machine {
    pub state: State,
    pub store: MemoryStore,
    /// The entry that comes next.
    pub index: u64,
    pub term: u64,
    /// The leader of all entries.
    pub node: u64,
    pub origin: u64,
    pub epoch: u64,
    pub next_seq: u64,
    pub settled_below: u64,
    pub at_ms: u64,
    pub time_epoch: u64,
    /// Of the cluster, as entries say from now on.
    pub members: Arc<[u64]>,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}

impl Machine {
    /// A fresh state on which origin 1 is registered by entry 1.
    pub fn new() -> Machine {
        Machine::on(MemoryStore::default())
    }

    /// As `new`, in a cluster that is still at an older feature level.
    pub fn at_level(level: u32) -> Machine {
        let mut store = MemoryStore::default();
        let mut changes = Changes::default();
        let counters = Counters { level, ..Counters::fresh() };
        crate::table::meta::put_counters(&mut changes, &counters);
        store.apply(&changes);
        Machine::on(store)
    }

    fn on(store: MemoryStore) -> Machine {
        let state = State::load(&store).expect("an empty store is a fresh state");
        let mut machine = Machine {
            state,
            store,
            index: 1,
            term: 1,
            node: 1,
            origin: 1,
            epoch: 0,
            next_seq: 1,
            settled_below: 0,
            at_ms: 1_000,
            time_epoch: 0,
            members: Arc::default(),
        };
        machine.register(1);
        machine
    }

    /// Starts the origin anew.
    pub fn register(&mut self, nonce: u64) {
        self.epoch = 0;
        let register = quorate::RegisterOrigin { node: self.origin, nonce };
        let outcome = self.run(quorate::command::Kind::RegisterOrigin(register));
        match outcome {
            Ok(Response::OriginRegistered { epoch }) => self.epoch = epoch,
            other => panic!("registration was answered with {other:?}"),
        }
        self.next_seq = 1;
        self.settled_below = 0;
    }

    /// Applies one command as an entry of its own and takes its outcome.
    pub fn run(&mut self, kind: quorate::command::Kind) -> Outcome {
        self.run_all(vec![kind]).pop().expect("one outcome for one command")
    }

    /// Applies commands as one entry.
    pub fn run_all(&mut self, kinds: Vec<quorate::command::Kind>) -> Vec<Outcome> {
        let entry = self.entry(kinds);
        let applied = self.apply(&[entry]).expect("commands of this binary apply");
        applied.outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// The next entry, of commands under new numbers.
    pub fn entry(&mut self, kinds: Vec<quorate::command::Kind>) -> LogEntry {
        let commands =
            kinds.into_iter().map(|kind| quorate::Command { fence: None, kind: Some(kind) });
        self.entry_of(commands.collect())
    }

    /// The next entry, of commands under new numbers, fences included.
    pub fn entry_of(&mut self, commands: Vec<quorate::Command>) -> LogEntry {
        let first_seq = self.next_seq;
        self.next_seq += commands.len() as u64;
        let run = quorate::Run {
            origin: self.origin,
            epoch: self.epoch,
            first_seq,
            settled_below: self.settled_below,
            commands,
        };
        self.entry_of_runs(vec![run])
    }

    /// The next entry, of runs as they are.
    pub fn entry_of_runs(&mut self, runs: Vec<quorate::Run>) -> LogEntry {
        self.entry_of_bytes(runs.iter().map(|run| run.encode_to_vec().into()).collect())
    }

    /// The next entry, of bytes where runs should be.
    pub fn entry_of_bytes(&mut self, runs: Vec<Bytes>) -> LogEntry {
        let time_epoch = self.time_epoch;
        let batch = quorate::Batch { at_ms: self.at_ms, runs, time_epoch };
        let meta = EntryMeta { index: self.index, term: self.term, node: self.node };
        self.index += 1;
        LogEntry { meta, members: self.members.clone(), batch: batch.encode_to_vec().into() }
    }

    /// Applies a chunk of entries as a node does: prepare, write, commit.
    ///
    /// # Errors
    /// A fault of the state machine.
    pub fn apply(&mut self, entries: &[LogEntry]) -> Result<Applied, Fault> {
        let prepared = self.state.prepare(&self.store, entries, Readers::All)?;
        self.store.apply(prepared.changes());
        let mut applied = self.state.commit(prepared);
        applied.fetch_deferred(&self.store)?;
        Ok(applied)
    }

    /// The name of the command that was numbered last.
    pub fn last_request(&self) -> RequestId {
        RequestId { origin: self.origin, epoch: self.epoch, seq: self.next_seq - 1 }
    }

    /// Runs a [script].
    pub fn script(&mut self, text: &str) -> String {
        script::run(self, text)
    }

    /// Checks what must hold after any history: the memory equals what the tables give, and the
    /// content digest equals its scan.
    pub fn check(&self) {
        let loaded = State::load(&self.store).expect("the store does not fail");
        assert_eq!(loaded.counters, self.state.counters);
        assert_eq!(loaded.leases, self.state.leases);
        assert_eq!(loaded.settings, self.state.settings);
        assert_eq!(loaded.alarms, self.state.alarms);
        assert_eq!(loaded.origins, self.state.origins);
        assert_eq!(loaded.views, self.state.views);
        assert_eq!(loaded.index.to_vec(), self.state.index.to_vec());
        let content = crate::digest::recompute(&self.store).expect("the store does not fail");
        assert_eq!(content, self.state.digests().content);
    }

    /// Physical compaction to its end.
    pub fn compact_rows(&mut self, changes_max: usize) {
        let compacted = self.state.compacted_revision();
        let mut cursor = compaction::Cursor::load(&self.store).expect("the store does not fail");
        while !cursor.is_finished(compacted) {
            let step = compaction::step(&self.store, compacted, cursor, changes_max)
                .expect("the store does not fail");
            self.store.apply(&step.changes);
            cursor = step.cursor;
        }
    }
}
