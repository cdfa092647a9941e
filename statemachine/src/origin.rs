//! Exactly once: what each origin proposed, and what it was answered.
//!
//! An origin is a node that takes commands from clients. It numbers them, and may propose one
//! again under the same number when its fate is unclear. The state keeps the outcomes that the
//! origin has not settled yet; a duplicate gets its outcome and changes nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::limits;
use crate::response::{Outcome, Rejection};
use crate::store::{Changes, Fault, StateRead, Table};
use crate::table;

pub(crate) mod outcomes;

/// What is kept of one origin in memory; the rows of table `domain` hold the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) header: OriginHeader,
    /// By the first number of each run. Invariant: disjoint, none wholly below the floor.
    runs: BTreeMap<u64, StoredRun>,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OriginHeader {
    pub(crate) epoch: u64,
    /// Commands below are settled: proposing one again is refused.
    pub(crate) floor: u64,
    pub(crate) nonce: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    outcomes: u64,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StoredRun {
    n_outcomes: u64,
    row: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origins {
    by_node: BTreeMap<u64, Origin>,
}

/// Changes of one origin by the entries of a chunk, above what is committed.
#[derive(Clone, Debug)]
pub(crate) struct OriginDraft {
    node: u64,
    header: OriginHeader,
    header_changed: bool,
    /// The committed runs do not count any more: the origin started anew.
    reset: bool,
    added: BTreeMap<u64, StoredRun>,
    kept: Kept,
}

/// What a number means to its origin.
pub(crate) enum Claim {
    New,
    Done(Outcome),
    Stale,
}

impl Origins {
    pub(crate) fn load(store: &dyn StateRead) -> Result<Origins, Fault> {
        let mut origins = Origins::default();
        table::domain::scan(store, b'o', &mut |key, row| {
            let [node] = table::domain::words(key)?;
            let [epoch, floor, nonce] = table::domain::words(row)?;
            let header = OriginHeader { epoch, floor, nonce };
            origins.by_node.insert(node, Origin { header, ..Origin::default() });
            Ok(())
        })?;
        table::domain::scan(store, b'r', &mut |key, row| {
            let [node, first_seq] = table::domain::words(key)?;
            let run =
                StoredRun { n_outcomes: outcomes::count(row)?, row: Bytes::copy_from_slice(row) };
            let origin = origins.by_node.get_mut(&node).ok_or_else(|| {
                table::domain::corrupt(&format!("outcomes of origin {node}, which is unknown"))
            })?;
            origin.kept.add(&run);
            origin.runs.insert(first_seq, run);
            Ok(())
        })?;
        Ok(origins)
    }

    pub(crate) fn get(&self, node: u64) -> Option<&Origin> {
        self.by_node.get(&node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Origin)> {
        self.by_node.iter().map(|(node, origin)| (*node, origin))
    }

    pub(crate) fn commit(&mut self, draft: OriginDraft) {
        let origin = self.by_node.entry(draft.node).or_default();
        if draft.reset {
            origin.runs.clear();
        }
        while let Some(first) = origin.runs.first_entry() {
            if first.key() + first.get().n_outcomes > draft.header.floor {
                break;
            }
            first.remove();
        }
        origin.header = draft.header;
        origin.runs.extend(draft.added);
        origin.kept = draft.kept;
    }

    pub(crate) fn forget(&mut self, node: u64) {
        self.by_node.remove(&node);
    }
}

impl Origin {
    pub(crate) fn n_outcomes(&self) -> u64 {
        self.kept.outcomes
    }
}

impl Kept {
    fn add(&mut self, run: &StoredRun) {
        self.outcomes += run.n_outcomes;
        self.bytes += run.row.len() as u64;
    }

    fn subtract(&mut self, run: &StoredRun) {
        self.outcomes -= run.n_outcomes;
        self.bytes -= run.row.len() as u64;
    }

    fn is_above_limits(&self) -> bool {
        self.outcomes > limits::ORIGIN_OUTCOMES_MAX || self.bytes > limits::ORIGIN_OUTCOME_BYTES_MAX
    }
}

impl OriginDraft {
    pub(crate) fn of(node: u64, committed: Option<&Origin>) -> OriginDraft {
        OriginDraft {
            node,
            header: committed.map(|origin| origin.header).unwrap_or_default(),
            header_changed: false,
            reset: false,
            added: BTreeMap::new(),
            kept: committed.map(|origin| origin.kept).unwrap_or_default(),
        }
    }

    pub(crate) fn header(&self) -> OriginHeader {
        self.header
    }

    /// The epoch of the node's start that drew `nonce`.
    pub(crate) fn register(
        &mut self,
        committed: Option<&Origin>,
        nonce: u64,
        index: u64,
        changes: &mut Changes,
    ) -> u64 {
        if self.header.epoch != 0 && self.header.nonce == nonce {
            return self.header.epoch;
        }
        self.drop_runs(committed, changes, u64::MAX);
        let epoch = index.max(self.header.epoch + 1);
        self.header = OriginHeader { epoch, floor: 0, nonce };
        self.header_changed = true;
        self.reset = true;
        epoch
    }

    /// Forgets the origin.
    pub(crate) fn delete_rows(&mut self, committed: Option<&Origin>, changes: &mut Changes) {
        changes.delete(Table::Domain, &table::domain::origin(self.node));
        self.drop_runs(committed, changes, u64::MAX);
    }

    /// Forgets the outcomes of settled commands.
    pub(crate) fn settle(
        &mut self,
        committed: Option<&Origin>,
        settled_below: u64,
        changes: &mut Changes,
    ) {
        if settled_below > self.header.floor {
            self.drop_runs(committed, changes, settled_below);
            self.header.floor = settled_below;
            self.header_changed = true;
        }
    }

    pub(crate) fn claim(
        &self,
        committed: Option<&Origin>,
        epoch: u64,
        seq: u64,
    ) -> Result<Claim, Fault> {
        let numbered = (self.header.floor..limits::SEQ_MAX).contains(&seq);
        if epoch != self.header.epoch || epoch == 0 || !numbered {
            return Ok(Claim::Stale);
        }
        let committed = committed.filter(|_| !self.reset).map(|origin| &origin.runs);
        let found = [Some(&self.added), committed].into_iter().flatten().find_map(|runs| {
            let (first_seq, run) = runs.range(..=seq).next_back()?;
            (seq - first_seq < run.n_outcomes).then_some((seq - first_seq, run))
        });
        match found {
            None => Ok(Claim::New),
            Some((nth, run)) => {
                let outcome = outcomes::read(&run.row, nth)?;
                Ok(Claim::Done(outcome.unwrap_or(Err(Rejection::OutcomeTooLarge))))
            }
        }
    }

    /// Keeps the outcomes of commands with consecutive numbers.
    pub(crate) fn keep(
        &mut self,
        committed: Option<&Origin>,
        first_seq: u64,
        written: outcomes::Writer,
        changes: &mut Changes,
    ) {
        let Some((n_outcomes, row)) = written.finish() else { return };
        changes.put(Table::Domain, &table::domain::outcomes(self.node, first_seq), &row);
        let run = StoredRun { n_outcomes, row: row.into() };
        self.kept.add(&run);
        self.added.insert(first_seq, run);
        while self.kept.is_above_limits() {
            let Some(end) = self.first_run_end(committed) else { break };
            self.settle(committed, end, changes);
        }
    }

    /// Writes the header row where it changed since the last call.
    pub(crate) fn write_header(&mut self, changes: &mut Changes) {
        if !std::mem::take(&mut self.header_changed) {
            return;
        }
        let mut row = [0; 24];
        row[..8].copy_from_slice(&self.header.epoch.to_be_bytes());
        row[8..16].copy_from_slice(&self.header.floor.to_be_bytes());
        row[16..].copy_from_slice(&self.header.nonce.to_be_bytes());
        changes.put(Table::Domain, &table::domain::origin(self.node), &row);
    }

    fn live_committed<'a>(
        &self,
        committed: Option<&'a Origin>,
    ) -> impl Iterator<Item = (&'a u64, &'a StoredRun)> {
        let (reset, floor) = (self.reset, self.header.floor);
        committed
            .into_iter()
            .filter(move |_| !reset)
            .flat_map(|origin| origin.runs.iter())
            .skip_while(move |(first_seq, run)| *first_seq + run.n_outcomes <= floor)
    }

    fn first_run_end(&self, committed: Option<&Origin>) -> Option<u64> {
        let end = |(first_seq, run): (&u64, &StoredRun)| first_seq + run.n_outcomes;
        let committed = self.live_committed(committed).next().map(end);
        let added = self.added.first_key_value().map(end);
        committed.into_iter().chain(added).min()
    }

    /// Deletes runs that end at or below `floor`; the header still has the old one.
    fn drop_runs(&mut self, committed: Option<&Origin>, changes: &mut Changes, floor: u64) {
        let mut kept = self.kept;
        let mut delete = |first_seq: u64, run: &StoredRun| {
            kept.subtract(run);
            changes.delete(Table::Domain, &table::domain::outcomes(self.node, first_seq));
        };
        for (first_seq, run) in self.live_committed(committed) {
            if first_seq + run.n_outcomes > floor {
                break;
            }
            delete(*first_seq, run);
        }
        let first_kept = self
            .added
            .iter()
            .find(|(first_seq, run)| *first_seq + run.n_outcomes > floor)
            .map(|(first_seq, _)| *first_seq);
        for (first_seq, run) in self.added.range(..first_kept.unwrap_or(u64::MAX)) {
            delete(*first_seq, run);
        }
        self.added = match first_kept {
            Some(first_kept) => self.added.split_off(&first_kept),
            None => BTreeMap::new(),
        };
        self.kept = kept;
    }
}

#[cfg(test)]
mod tests;
