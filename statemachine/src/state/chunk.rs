//! Evaluation of a chunk of entries above the committed state, which stays untouched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use proto::{etcd, quorate};

use crate::admission;
use crate::alarm::Alarms;
use crate::digest::{self, DigestCheck};
use crate::event::{Event, EventKind};
use crate::ids::{EntryMeta, EventId, RequestId};
use crate::keyspace::key_range::KeyRange;
use crate::keyspace::meta::{KeyMeta, RecordHash, version_cost_bytes};
use crate::kv::past;
use crate::lease::{ENDED_TTL_S, LeaseChange};
use crate::limits;
use crate::origin::{Claim, Origin, OriginDraft, outcomes};
use crate::response::{Outcome, Rejection, Response};
use crate::settings::Settings;
use crate::state::State;
use crate::state::commit::{Prepared, RefusedRun, Touched};
use crate::state::counters::Counters;
use crate::state::live_keys::ChunkKeys;
use crate::store::{Changes, Fault, StateRead, Table};
use crate::view::Views;
use crate::{history, table, versions};

/// What the rows of a put hold beside its key and value, about.
const ROWS_BESIDE_BYTES: usize = 128;

/// A committed log entry that holds commands.
#[derive(Clone, Debug)]
pub struct LogEntry {
    pub meta: EntryMeta,
    /// Every node of the cluster as of this entry, ascending; empty where that is not known.
    pub members: Arc<[u64]>,
    /// An encoded `quorate.v1.Batch`.
    pub batch: Bytes,
}

/// Everything that the entries so far changed.
pub(crate) struct Chunk<'a> {
    pub(crate) base: &'a State,
    /// The committed tables.
    pub(crate) store: &'a dyn StateRead,
    pub(crate) changes: Changes,
    pub(crate) keys: BTreeMap<Bytes, Slot>,
    /// Every (lease, key) that the chunk attached, also where the key moved on since.
    attached: BTreeSet<(i64, Bytes)>,
    /// Time to live of leases that were granted, `None` of those that are gone.
    pub(crate) leases: BTreeMap<i64, Option<i64>>,
    pub(crate) settings: Option<Settings>,
    pub(crate) alarms: Option<Alarms>,
    pub(crate) origins: BTreeMap<u64, OriginDraft>,
    pub(crate) forgotten_origins: Vec<u64>,
    pub(crate) counters: Counters,
    /// Bytes superseded up to each revision of the chunk.
    superseded_at: Vec<(i64, u64)>,
    pub(crate) events: Vec<Event>,
    pub(crate) outcomes: Vec<(RequestId, Outcome)>,
    checks: Vec<DigestCheck>,
    pub(crate) refused: Vec<RefusedRun>,
    pub(crate) check_digest: bool,
    pub(crate) touched: Touched,
    readers: Readers,
}

/// For whom answers are made that are too large to be kept. Decides nothing that is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    All,
    /// Clients of this node.
    Of(u64),
}

impl Readers {
    fn include(self, origin: u64) -> bool {
        match self {
            Readers::All => true,
            Readers::Of(node) => node == origin,
        }
    }
}

/// Versions of one key that the chunk wrote.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) newest: Written,
    /// Oldest first.
    older: Vec<Written>,
    /// Whether the committed index holds the key.
    pub(crate) in_index: bool,
}

#[derive(Debug)]
pub(crate) struct Written {
    revision: i64,
    /// `None`: deleted.
    pub(crate) live: Option<Live>,
}

#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) meta: KeyMeta,
    pub(crate) value: Bytes,
}

/// A put that the same command undoes.
struct OwnPut {
    meta: KeyMeta,
    /// What lived before the command.
    replaced: Option<EventId>,
}

/// A live version: its value is at hand, or in the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) meta: KeyMeta,
    pub(crate) value: Option<Bytes>,
}

/// One change of a key that a command decided on.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: Bytes,
    /// The new version without its place and hash; `None` deletes.
    pub(crate) live: Option<Live>,
    pub(crate) replaced: Option<KeyMeta>,
}

impl Found {
    pub(crate) fn stored(meta: KeyMeta) -> Found {
        Found { meta, value: None }
    }

    pub(crate) fn held(live: &Live) -> Found {
        Found { meta: live.meta, value: Some(live.value.clone()) }
    }

    pub(crate) fn value(&self, store: &dyn StateRead) -> Result<Bytes, Fault> {
        match &self.value {
            Some(value) => Ok(value.clone()),
            None => Ok(history::pair(store, self.meta.event_id())?.value),
        }
    }

    pub(crate) fn pair(&self, key: &[u8], store: &dyn StateRead) -> Result<etcd::KeyValue, Fault> {
        match &self.value {
            None => history::pair(store, self.meta.event_id()),
            Some(value) => Ok(key_value(Bytes::copy_from_slice(key), &self.meta, value.clone())),
        }
    }
}

pub(crate) fn key_value(key: Bytes, meta: &KeyMeta, value: Bytes) -> etcd::KeyValue {
    etcd::KeyValue {
        key,
        value,
        create_revision: meta.create_revision,
        mod_revision: meta.mod_revision,
        version: meta.version,
        lease: meta.lease,
    }
}

impl Slot {
    fn at(&self, revision: i64) -> Option<&Written> {
        if self.newest.revision <= revision {
            return Some(&self.newest);
        }
        self.older.iter().rev().find(|written| written.revision <= revision)
    }
}

impl<'a> Chunk<'a> {
    pub(crate) fn new(base: &'a State, store: &'a dyn StateRead, readers: Readers) -> Chunk<'a> {
        Chunk {
            base,
            store,
            changes: Changes::default(),
            keys: BTreeMap::new(),
            attached: BTreeSet::new(),
            leases: BTreeMap::new(),
            settings: None,
            alarms: None,
            origins: BTreeMap::new(),
            forgotten_origins: Vec::new(),
            counters: base.counters,
            superseded_at: Vec::new(),
            events: Vec::new(),
            outcomes: Vec::new(),
            checks: Vec::new(),
            refused: Vec::new(),
            check_digest: false,
            touched: Touched::default(),
            readers,
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.settings.as_ref().unwrap_or(&self.base.settings)
    }

    pub(crate) fn alarms(&self) -> &Alarms {
        self.alarms.as_ref().unwrap_or(&self.base.alarms)
    }

    pub(crate) fn alarms_mut(&mut self) -> &mut Alarms {
        self.alarms.get_or_insert_with(|| self.base.alarms.clone())
    }

    /// Time to live of a lease that has not ended.
    pub(crate) fn lease_ttl_s(&self, id: i64) -> Option<i64> {
        self.lease(id).filter(|ttl_s| *ttl_s != ENDED_TTL_S)
    }

    /// As [`Chunk::lease_ttl_s`], [`ENDED_TTL_S`] for one that has ended and has keys left.
    pub(crate) fn lease(&self, id: i64) -> Option<i64> {
        match self.leases.get(&id) {
            Some(pending) => *pending,
            None => self.base.leases.get(id).map(|lease| lease.ttl_s),
        }
    }

    /// The first keys that hang on a lease, sorted; at least `keys_max` where there are as many.
    pub(crate) fn lease_keys(&self, id: i64, keys_max: usize) -> BTreeSet<Bytes> {
        let committed = self.base.leases.get(id).into_iter().flat_map(|lease| lease.keys.iter());
        let pending = self
            .attached
            .range((id, Bytes::new())..)
            .take_while(|(lease, _)| *lease == id)
            .map(|(_, key)| key);
        let hangs = |key: &&Bytes| self.get(key).is_some_and(|found| found.meta.lease == id);
        let committed = committed.filter(hangs).take(keys_max);
        committed.chain(pending.filter(hangs).take(keys_max)).cloned().collect()
    }

    /// The newest version of a key, if it lives.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Found> {
        match self.keys.get(key) {
            Some(slot) => slot.newest.live.as_ref().map(Found::held),
            None => self.base.index.get(key).copied().map(Found::stored),
        }
    }

    /// The version of a key that lived at a revision that is not compacted.
    pub(crate) fn get_at(&self, key: &[u8], revision: i64) -> Result<Option<Found>, Fault> {
        if revision < self.base.revision() {
            return Ok(past::get(self.store, key, revision)?.map(Found::stored));
        }
        let mut found = None;
        self.visit(&KeyRange::single(key), revision, &mut |_key, version| {
            found = Some(version);
            ControlFlow::Break(())
        });
        Ok(found)
    }

    /// Visits the keys of a range that lived at `revision`, in order.
    ///
    /// Invariant: `revision` is not below the committed one; for older ones see `history`.
    pub(crate) fn visit(
        &self,
        range: &KeyRange<'_>,
        revision: i64,
        visit: &mut dyn FnMut(&[u8], Found) -> ControlFlow<()>,
    ) {
        assert!(revision >= self.base.revision(), "older revisions are read from the store");
        let Some(bounds) = range.bounds() else { return };
        let mut pending = self.keys.range::<[u8], _>(bounds).peekable();
        let mut stopped = false;
        self.base.index.visit(range, &mut |key, meta| {
            while let Some((pending_key, slot)) = pending.next_if(|(pending, _)| *pending < key) {
                if visit_slot(pending_key, slot, revision, visit).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match pending.next_if(|(pending, _)| *pending == key) {
                Some((_, slot)) if slot.at(revision).is_some() => {
                    visit_slot(key, slot, revision, visit)
                }
                Some(_) | None => visit(key, Found::stored(*meta)),
            };
            stopped = flow.is_break();
            flow
        });
        for (key, slot) in pending {
            if stopped || visit_slot(key, slot, revision, visit).is_break() {
                return;
            }
        }
    }

    /// Number of keys of a range that live now.
    pub(crate) fn count(&self, range: &KeyRange<'_>) -> usize {
        let Some(bounds) = range.bounds() else { return 0 };
        let mut count = self.base.index.count(range);
        for (_, slot) in self.keys.range::<[u8], _>(bounds) {
            match (slot.in_index, slot.newest.live.is_some()) {
                (false, true) => count += 1,
                (true, false) => count -= 1,
                (true, true) | (false, false) => {}
            }
        }
        count
    }

    /// Bytes superseded up to a revision that exists and is not compacted.
    pub(crate) fn superseded_bytes_at(&self, revision: i64) -> Result<u64, Fault> {
        if revision > self.base.revision() {
            let nth = self.superseded_at.partition_point(|(at, _)| *at <= revision);
            let (_, bytes) = self.superseded_at[nth - 1];
            return Ok(bytes);
        }
        history::superseded_bytes_at(self.store, revision)
    }

    /// Takes in what a command decided: one revision for all its writes.
    pub(crate) fn absorb(&mut self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        self.counters.revision += 1;
        let revision = self.counters.revision;
        // One command may delete a million keys.
        let key_bytes: usize = writes.iter().map(|write| write.key.len()).sum();
        self.changes.reserve(writes.len() * 2, key_bytes * 2 + writes.len() * ROWS_BESIDE_BYTES);
        self.events.reserve(writes.len());
        for (sub, write) in (0..).zip(writes) {
            self.absorb_write(EventId { revision, sub }, write);
        }
        self.superseded_at.push((revision, self.counters.superseded_bytes));
    }

    fn absorb_write(&mut self, id: EventId, write: Write) {
        let Write { key, live, mut replaced } = write;
        let own = self.own_put(&key, replaced.as_ref(), id.revision);
        if let Some(own) = &own {
            replaced = Some(own.meta);
        }
        if let Some(replaced) = replaced {
            let cost_bytes = replaced.cost_bytes(&key);
            self.counters.live_bytes -= cost_bytes;
            self.counters.superseded_bytes += cost_bytes;
            self.counters.subtract_content(replaced.hash.to_u128());
        }
        let tombstone = live.is_none();
        if tombstone {
            self.counters.superseded_bytes += version_cost_bytes(key.len(), 0);
        }
        let row = table::event::NewEvent {
            superseded_bytes: self.counters.superseded_bytes,
            tombstone,
            create_revision: live.as_ref().map_or(0, |live| live.meta.create_revision),
            version: match (&live, &own) {
                (Some(live), _) => live.meta.version,
                (None, Some(own)) => table::event::shadow_of(own.meta.sub),
                (None, None) => 0,
            },
            lease: live.as_ref().map_or(0, |live| live.meta.lease),
            key: &key,
            value: live.as_ref().map_or(&[], |live| &live.value),
        };
        let hash = self.write_event(id, &row);
        let live = live.map(|live| Live {
            meta: KeyMeta { mod_revision: id.revision, sub: id.sub, hash, ..live.meta },
            value: live.value,
        });
        let kv = match &live {
            Some(live) => {
                self.counters.live_bytes += live.meta.cost_bytes(&key);
                self.counters.add_content(hash.to_u128());
                if live.meta.lease != 0 {
                    self.attached.insert((live.meta.lease, key.clone()));
                }
                key_value(key.clone(), &live.meta, live.value.clone())
            }
            None => {
                etcd::KeyValue { key: key.clone(), mod_revision: id.revision, ..Default::default() }
            }
        };
        self.write_version(&key, id, hash, live.as_ref());
        self.events.push(Event {
            revision: id.revision,
            sub: id.sub,
            kind: if tombstone { EventKind::Delete } else { EventKind::Put },
            kv,
            replaced: match own {
                Some(own) => own.replaced,
                None => replaced.map(|meta| meta.event_id()),
            },
        });
        let written = Written { revision: id.revision, live };
        match self.keys.entry(key) {
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                let slot = slot.get_mut();
                slot.older.push(std::mem::replace(&mut slot.newest, written));
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                let in_index = replaced.is_some();
                place.insert(Slot { newest: written, older: Vec::new(), in_index });
            }
        }
    }

    /// The put that the same command made before it deletes the key. Its place and hash are known
    /// only since it was absorbed.
    fn own_put(&self, key: &[u8], replaced: Option<&KeyMeta>, revision: i64) -> Option<OwnPut> {
        replaced.filter(|meta| meta.mod_revision == revision)?;
        let slot = self.keys.get(key).expect("the put was absorbed before the delete");
        let live = slot.newest.live.as_ref().expect("the newest write of the key is that put");
        let replaced = match slot.older.last() {
            Some(older) => older.live.as_ref().map(|live| live.meta.event_id()),
            None => self.base.index.get(key).map(KeyMeta::event_id),
        };
        Some(OwnPut { meta: live.meta, replaced })
    }

    fn write_event(&mut self, id: EventId, row: &table::event::NewEvent<'_>) -> RecordHash {
        let key = table::event::encode_key(id);
        let row = self.changes.put_with(
            Table::Event,
            |out| out.extend_from_slice(&key),
            |out| row.encode(out),
        );
        table::event::record_hash(row, id.revision)
    }

    fn write_version(&mut self, key: &[u8], id: EventId, hash: RecordHash, live: Option<&Live>) {
        let dead = KeyMeta {
            mod_revision: id.revision,
            create_revision: 0,
            version: 0,
            lease: 0,
            hash,
            sub: id.sub,
            value_bytes: 0,
        };
        let version = table::version::Version {
            meta: live.map_or(dead, |live| live.meta),
            tombstone: live.is_none(),
        };
        self.changes.put_with(
            Table::Version,
            |out| table::version::encode_key(key, id.revision, out),
            |out| version.encode(out),
        );
    }

    /// Evaluates all commands of one entry.
    pub(crate) fn apply_entry(&mut self, entry: &LogEntry) -> Result<(), Fault> {
        let index = entry.meta.index;
        if index <= self.counters.last_index {
            let reason = format!("entry {index} after entry {}", self.counters.last_index);
            return Err(Fault::Invariant(reason));
        }
        let batch = match admission::read_batch(entry.batch.clone(), self.counters.level) {
            Ok(batch) => batch,
            Err(refused) => {
                self.note_refused(&entry.meta, refused);
                quorate::Batch::default()
            }
        };
        let read = |bytes: Bytes| (admission::read_run(bytes.clone()), bytes);
        let runs: Vec<_> = batch.runs.into_iter().map(read).collect();
        let n_commands: usize =
            runs.iter().flat_map(|(run, _)| run).map(|run| run.commands.len()).sum();
        self.changes.reserve(
            n_commands * 2 + runs.len() * 2,
            entry.batch.len() * 2 + n_commands * ROWS_BESIDE_BYTES,
        );
        self.events.reserve(n_commands);
        self.outcomes.reserve(n_commands);
        let mark = self.changes.mark();
        self.counters.last_index = index;
        // A stamp from before the time was set back says nothing of the time since.
        if batch.time_epoch == self.counters.time_epoch {
            self.counters.at_ms = self.counters.at_ms.max(batch.at_ms);
        }
        for (run, bytes) in runs {
            let level = self.counters.level;
            match run.and_then(|run| admission::check_level(&run, level).map(|()| run)) {
                Ok(run) => self.apply_run(entry, run)?,
                Err(refused) => self.refuse_run(&entry.meta, &bytes, refused)?,
            }
        }
        let (n_rows, rows) = self.changes.since(mark);
        self.counters.digests.chain = digest::chain(
            self.counters.digests.chain,
            &digest::Link {
                index,
                at_ms: self.counters.at_ms,
                revision: self.counters.revision,
                compacted_revision: self.counters.compacted_revision,
                n_rows,
                rows,
            },
        );
        if std::mem::take(&mut self.check_digest) {
            self.checks.push(DigestCheck {
                index,
                revision: self.counters.revision,
                digests: self.counters.digests,
            });
        }
        Ok(())
    }

    fn apply_run(&mut self, entry: &LogEntry, run: quorate::Run) -> Result<(), Fault> {
        let node = run.origin;
        let committed = self.committed_origin(node);
        let mut origin =
            self.origins.remove(&node).unwrap_or_else(|| OriginDraft::of(node, committed));
        let is_known = origin.header().epoch != 0;
        if is_known && run.epoch == origin.header().epoch {
            origin.settle(committed, run.settled_below, &mut self.changes);
        }
        let mut kept = outcomes::Writer::default();
        let mut kept_from = run.first_seq;
        for (nth, command) in (0_u64..).zip(run.commands) {
            let seq = run.first_seq.wrapping_add(nth);
            let id = RequestId { origin: node, epoch: run.epoch, seq };
            if let Some(quorate::command::Kind::RegisterOrigin(register)) = &command.kind {
                origin.keep(committed, kept_from, std::mem::take(&mut kept), &mut self.changes);
                let outcome =
                    self.register_origin(entry, node, run.first_seq, register, &mut origin);
                self.outcomes.push((id, outcome));
                continue;
            }
            let outcome = match origin.claim(committed, run.epoch, seq)? {
                Claim::New => {
                    if kept.is_empty() {
                        kept_from = seq;
                    }
                    let outcome = self.execute(&entry.meta, command)?;
                    kept.add(&outcome);
                    match outcome {
                        Ok(Response::Deferred(_)) if !self.readers.include(node) => {
                            Err(Rejection::OutcomeTooLarge)
                        }
                        outcome => outcome,
                    }
                }
                // Numbers of kept outcomes are consecutive, so a gap ends the row.
                Claim::Done(outcome) => {
                    origin.keep(committed, kept_from, std::mem::take(&mut kept), &mut self.changes);
                    outcome
                }
                Claim::Stale => {
                    origin.keep(committed, kept_from, std::mem::take(&mut kept), &mut self.changes);
                    Err(Rejection::StaleRequest)
                }
            };
            self.outcomes.push((id, outcome));
        }
        origin.keep(committed, kept_from, kept, &mut self.changes);
        origin.write_header(&mut self.changes);
        if origin.header().epoch != 0 {
            self.origins.insert(node, origin);
        }
        Ok(())
    }

    fn register_origin(
        &mut self,
        entry: &LogEntry,
        node: u64,
        first_seq: u64,
        register: &quorate::RegisterOrigin,
        origin: &mut OriginDraft,
    ) -> Outcome {
        if register.node != node {
            return Err(Rejection::StaleRequest);
        }
        let committed = self.committed_origin(node);
        let is_new = origin.header().epoch == 0;
        let nonce = if register.nonce == 0 { first_seq } else { register.nonce };
        let epoch = origin.register(committed, nonce, entry.meta.index, &mut self.changes);
        if is_new {
            self.make_room_for_origin(&entry.members);
        }
        Ok(Response::OriginRegistered { epoch })
    }

    /// An origin as it was before the chunk, unless the chunk has forgotten it.
    pub(crate) fn committed_origin(&self, node: u64) -> Option<&'a Origin> {
        let base: &'a State = self.base;
        base.origins.get(node).filter(|_| !self.forgotten_origins.contains(&node))
    }

    /// Forgets an origin where there are too many: first those that are no members any more, and
    /// among equals the one that registered longest ago.
    fn make_room_for_origin(&mut self, members: &[u64]) {
        let is_committed =
            |node: &u64| !self.origins.contains_key(node) && !self.forgotten_origins.contains(node);
        let committed = self.base.origins.iter().filter(|(node, _)| is_committed(node));
        let headers: Vec<(u64, u64)> = committed
            .map(|(node, origin)| (node, origin.header.epoch))
            .chain(self.origins.iter().map(|(node, draft)| (*node, draft.header().epoch)))
            .collect();
        if headers.len() < limits::ORIGINS_MAX {
            return;
        }
        let has_members = self.counters.level >= versions::HARDENING;
        let is_member = |node: u64| has_members && members.contains(&node);
        let given_up = headers.into_iter().min_by_key(|(node, epoch)| (is_member(*node), *epoch));
        let Some((node, _)) = given_up else { return };
        let committed = self.committed_origin(node);
        let mut draft =
            self.origins.remove(&node).unwrap_or_else(|| OriginDraft::of(node, committed));
        draft.delete_rows(committed, &mut self.changes);
        if committed.is_some() {
            self.forgotten_origins.push(node);
        }
    }

    /// Closes the chunk: rows of the counters, and views where the root path changed.
    pub(crate) fn finish(mut self) -> Result<Prepared, Fault> {
        table::meta::put_counters(&mut self.changes, &self.counters);
        let root_path = &self.settings().root_path;
        let views = if *root_path == self.base.settings.root_path {
            None
        } else {
            Some(Views::rebuild(root_path, &mut ChunkKeys { chunk: &self })?)
        };
        Ok(Prepared {
            changes: self.changes,
            keys: self.keys,
            leases: self.leases,
            settings: self.settings,
            alarms: self.alarms,
            origins: self.origins,
            forgotten_origins: self.forgotten_origins,
            counters: self.counters,
            views,
            events: self.events,
            outcomes: self.outcomes,
            checks: self.checks,
            refused: self.refused,
            touched: self.touched,
        })
    }

    pub(crate) fn grant_lease(&mut self, id: i64, ttl_s: i64) {
        self.leases.insert(id, Some(ttl_s));
        table::lease::put(&mut self.changes, id, ttl_s);
        self.counters.add_content(digest::lease_hash(id, ttl_s));
        self.counters.live_bytes += limits::LEASE_COST_BYTES;
        self.touched.leases.push(LeaseChange::Granted { id, ttl_s });
    }

    pub(crate) fn mark_lease_ended(&mut self, id: i64, ttl_s: i64) {
        self.leases.insert(id, Some(ENDED_TTL_S));
        table::lease::put(&mut self.changes, id, ENDED_TTL_S);
        self.counters.subtract_content(digest::lease_hash(id, ttl_s));
        self.counters.add_content(digest::lease_hash(id, ENDED_TTL_S));
        self.touched.leases.push(LeaseChange::Ended { id });
    }

    pub(crate) fn drop_lease(&mut self, id: i64, ttl_s: i64) {
        self.leases.insert(id, None);
        table::lease::delete(&mut self.changes, id);
        self.counters.subtract_content(digest::lease_hash(id, ttl_s));
        self.counters.live_bytes -= limits::LEASE_COST_BYTES;
        self.touched.leases.push(LeaseChange::Revoked { id });
    }
}

fn visit_slot(
    key: &[u8],
    slot: &Slot,
    revision: i64,
    visit: &mut dyn FnMut(&[u8], Found) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match slot.at(revision).and_then(|written| written.live.as_ref()) {
        Some(live) => visit(key, Found::held(live)),
        None => ControlFlow::Continue(()),
    }
}
