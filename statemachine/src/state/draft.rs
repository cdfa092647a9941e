//! What one command decided so far, above the chunk. Dropping it is the roll-back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::coordinator::Refusal;
use crate::keyspace::key_range::KeyRange;
use crate::keyspace::meta::{KeyMeta, RecordHash};
use crate::response::Rejection;
use crate::state::chunk::{Chunk, Found, Live, Write};
use crate::store::Fault;

/// Why a command stops: refused, or the node is broken.
#[derive(Debug)]
pub(crate) enum Stop {
    Rejected(Rejection),
    Failed(Fault),
}

impl Stop {
    /// The refusal of a coordinator's step.
    ///
    /// # Errors
    /// Whatever else stopped it.
    pub(crate) fn into_refusal(self) -> Result<Refusal, Stop> {
        match self {
            Stop::Rejected(Rejection::Coordinator(refusal)) => Ok(refusal),
            other @ (Stop::Rejected(_) | Stop::Failed(_)) => Err(other),
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Rejected(refusal.into())
    }
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Stop {
        Stop::Rejected(rejection)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Failed(fault)
    }
}

/// Splits a step's end into what replicas agree on and what stops the node.
pub(crate) fn outcome_of<T>(step: Result<T, Stop>) -> Result<Result<T, Rejection>, Fault> {
    match step {
        Ok(done) => Ok(Ok(done)),
        Err(Stop::Rejected(rejection)) => Ok(Err(rejection)),
        Err(Stop::Failed(fault)) => Err(fault),
    }
}

pub(crate) struct Draft<'c, 'a> {
    pub(crate) chunk: &'c Chunk<'a>,
    /// In the order of execution.
    writes: Vec<Write>,
    by_key: BTreeMap<Bytes, Written>,
}

/// What the command did to one key.
struct Written {
    /// Place in `writes` of the newest write.
    newest: usize,
    /// The key lived before the command.
    was_live: bool,
}

impl<'c, 'a> Draft<'c, 'a> {
    pub(crate) fn new(chunk: &'c Chunk<'a>) -> Draft<'c, 'a> {
        Draft { chunk, writes: Vec::new(), by_key: BTreeMap::new() }
    }

    pub(crate) fn into_writes(self) -> Vec<Write> {
        self.writes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The revision of the command if it changes a key.
    pub(crate) fn next_revision(&self) -> i64 {
        self.chunk.counters.revision + 1
    }

    /// The revision that a read here stands at.
    pub(crate) fn revision(&self) -> i64 {
        self.chunk.counters.revision + i64::from(!self.is_empty())
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Found> {
        match self.by_key.get(key) {
            Some(written) => self.writes[written.newest].live.as_ref().map(Found::held),
            None => self.chunk.get(key),
        }
    }

    /// Visits the keys of a range as the command sees them, its own writes included.
    pub(crate) fn visit(
        &self,
        range: &KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], Found) -> ControlFlow<()>,
    ) {
        let Some(bounds) = range.bounds() else { return };
        let mut own = self.by_key.range::<[u8], _>(bounds).peekable();
        let mut stopped = false;
        let visit_own =
            |key: &Bytes,
             written: &Written,
             visit: &mut dyn FnMut(&[u8], Found) -> ControlFlow<()>| {
                match &self.writes[written.newest].live {
                    Some(live) => visit(key, Found::held(live)),
                    None => ControlFlow::Continue(()),
                }
            };
        self.chunk.visit(range, self.chunk.counters.revision, &mut |key, found| {
            while let Some((own_key, written)) = own.next_if(|(own_key, _)| *own_key < key) {
                if visit_own(own_key, written, visit).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match own.next_if(|(own_key, _)| *own_key == key) {
                Some((own_key, written)) => visit_own(own_key, written, visit),
                None => visit(key, found),
            };
            stopped = flow.is_break();
            flow
        });
        for (key, written) in own {
            if stopped || visit_own(key, written, visit).is_break() {
                return;
            }
        }
    }

    /// Number of keys of a range that the command itself wrote.
    pub(crate) fn n_written(&self, range: &KeyRange<'_>) -> usize {
        range.bounds().map_or(0, |bounds| self.by_key.range::<[u8], _>(bounds).count())
    }

    /// Number of keys of a range as the command sees them.
    pub(crate) fn count(&self, range: &KeyRange<'_>) -> usize {
        let Some(bounds) = range.bounds() else { return 0 };
        let mut count = self.chunk.count(range);
        for (_, written) in self.by_key.range::<[u8], _>(bounds) {
            match (written.was_live, self.writes[written.newest].live.is_some()) {
                (false, true) => count += 1,
                (true, false) => count -= 1,
                (true, true) | (false, false) => {}
            }
        }
        count
    }

    /// Decides on a put. `before` is what [`Draft::get`] said of the key.
    pub(crate) fn put(
        &mut self,
        key: Bytes,
        value: Bytes,
        lease: i64,
        before: Option<&Found>,
        alone: Alone,
    ) {
        let revision = self.next_revision();
        let replaced = before.map(|found| found.meta);
        let meta = KeyMeta {
            mod_revision: revision,
            create_revision: replaced.map_or(revision, |meta| meta.create_revision),
            version: replaced.map_or(1, |meta| meta.version + 1),
            lease,
            hash: RecordHash::default(),
            sub: 0,
            value_bytes: u32::try_from(value.len()).expect("requests are bounded far below 4 GiB"),
        };
        self.write(Write { key, live: Some(Live { meta, value }), replaced }, alone);
    }

    /// Makes room for writes to come.
    pub(crate) fn reserve(&mut self, n_writes: usize) {
        self.writes.reserve(n_writes);
    }

    pub(crate) fn delete(&mut self, key: Bytes, replaced: KeyMeta, alone: Alone) {
        self.write(Write { key, live: None, replaced: Some(replaced) }, alone);
    }

    fn write(&mut self, write: Write, alone: Alone) {
        match alone {
            Alone::Yes => {}
            Alone::No => self.note(&write),
        }
        self.writes.push(write);
    }

    fn note(&mut self, write: &Write) {
        let newest = self.writes.len();
        match self.by_key.entry(write.key.clone()) {
            Entry::Vacant(place) => {
                place.insert(Written { newest, was_live: write.replaced.is_some() });
            }
            Entry::Occupied(mut written) => {
                assert!(write.live.is_none(), "static checks let a second write only delete");
                written.get_mut().newest = newest;
            }
        }
    }
}

/// Whether an operation is a whole command, so that nothing will read what it wrote before it is
/// absorbed. Saves a lone put the bookkeeping of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alone {
    Yes,
    No,
}
