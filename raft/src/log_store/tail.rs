//! The newest entries in memory: what is not written yet, and what followers are about to ask for.

use std::collections::VecDeque;

use crate::types::Entry;

use super::entry_codec::{OVERHEAD_BYTES, payload_bytes};

/// What an entry takes in memory beside its payload, roughly.
const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<Kept>() + OVERHEAD_BYTES;

struct Kept {
    entry: Entry,
    size_bytes: usize,
    /// The job that writes it.
    job: u64,
}

/// A run of entries without holes that ends with the last entry of the log.
///
/// Invariant: an entry leaves at the front only after the job that writes it has been done, so
/// what is below the tail is on the disk.
pub(super) struct Tail {
    kept: VecDeque<Kept>,
    size_bytes: usize,
    budget_bytes: usize,
    written_job: u64,
}

impl Tail {
    pub(super) fn new(budget_bytes: usize) -> Tail {
        Tail { kept: VecDeque::new(), size_bytes: 0, budget_bytes, written_job: 0 }
    }

    /// Index of the first entry, if any is kept.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.kept.front().map(|kept| kept.entry.log_id.index)
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub(super) fn push(&mut self, entry: Entry, job: u64) {
        let size_bytes = ENTRY_BYTES + payload_bytes(&entry);
        self.size_bytes += size_bytes;
        self.kept.push_back(Kept { entry, size_bytes, job });
    }

    /// Everything up to this job is on the disk.
    pub(super) fn written(&mut self, job: u64) {
        self.written_job = job;
        self.evict();
    }

    fn evict(&mut self) {
        while self.size_bytes > self.budget_bytes
            && self.kept.front().is_some_and(|kept| kept.job <= self.written_job)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.size_bytes -= kept.size_bytes;
        }
    }

    /// Drops entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        while self.kept.back().is_some_and(|kept| kept.entry.log_id.index >= index) {
            if let Some(kept) = self.kept.pop_back() {
                self.size_bytes -= kept.size_bytes;
            }
        }
    }

    /// Drops entries below `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while self.first_index().is_some_and(|first| first < index) {
            self.pop_front();
        }
    }

    /// The kept entries of `start..end`, as many as fit: at least one, then up to `bytes_max`.
    pub(super) fn range(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Entry> {
        let Some(first) = self.first_index() else {
            return Vec::new();
        };
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut taken_bytes = 0_usize;
        let mut entries = Vec::new();
        for kept in self.kept.iter().skip(skip) {
            taken_bytes = taken_bytes.saturating_add(kept.size_bytes);
            let full = taken_bytes > bytes_max && !entries.is_empty();
            if kept.entry.log_id.index >= end || full {
                break;
            }
            entries.push(kept.entry.clone());
        }
        entries
    }
}
