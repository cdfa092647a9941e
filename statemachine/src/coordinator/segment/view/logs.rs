//! Sums over the logs of a segment.

use std::sync::Arc;

use proto::milvus::data;

use crate::coordinator::keys::LogKind;

/// Sums over the logs of one kind of one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSums {
    pub files: u32,
    pub entries: i64,
    pub size_bytes: i64,
    /// Largest and smallest hybrid timestamp of an entry.
    pub newest_ts: u64,
    pub oldest_ts: u64,
}

impl LogSums {
    pub(super) fn of(logs: &data::FieldBinlog) -> LogSums {
        let mut sums = LogSums { oldest_ts: u64::MAX, ..LogSums::default() };
        for log in &logs.binlogs {
            sums.files = sums.files.saturating_add(1);
            sums.entries = sums.entries.saturating_add(log.entries_num);
            sums.size_bytes = sums.size_bytes.saturating_add(log.log_size);
            sums.newest_ts = sums.newest_ts.max(log.timestamp_to);
            sums.oldest_ts = sums.oldest_ts.min(log.timestamp_from);
        }
        if sums.files == 0 {
            sums.oldest_ts = 0;
        }
        sums
    }
}

/// Sums of all logs of a segment, one for each key, by kind and field. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    fields: Arc<[FieldLogs]>,
}

/// Sums over one key. Flat: a million segments have millions of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FieldLogs {
    field: i64,
    entries: i64,
    size_bytes: i64,
    newest_ts: u64,
    oldest_ts: u64,
    files: u32,
    kind: LogKind,
}

impl FieldLogs {
    fn new(kind: LogKind, field: i64, sums: LogSums) -> FieldLogs {
        let LogSums { files, entries, size_bytes, newest_ts, oldest_ts } = sums;
        FieldLogs { field, entries, size_bytes, newest_ts, oldest_ts, files, kind }
    }

    fn sums(&self) -> LogSums {
        let FieldLogs { files, entries, size_bytes, newest_ts, oldest_ts, .. } = *self;
        LogSums { files, entries, size_bytes, newest_ts, oldest_ts }
    }
}

impl Logs {
    #[must_use]
    pub(super) fn with(&self, kind: LogKind, field: i64, sums: LogSums) -> Logs {
        let (before, after) = self.around(kind, field);
        let new = std::iter::once(FieldLogs::new(kind, field, sums));
        Logs { fields: before.iter().copied().chain(new).chain(after.iter().copied()).collect() }
    }

    #[must_use]
    pub(super) fn without(&self, kind: LogKind, field: i64) -> Logs {
        let (before, after) = self.around(kind, field);
        Logs { fields: before.iter().chain(after).copied().collect() }
    }

    /// What stands before and after a kind and field.
    fn around(&self, kind: LogKind, field: i64) -> (&[FieldLogs], &[FieldLogs]) {
        let before = self.fields.partition_point(|one| (one.kind, one.field) < (kind, field));
        let upto = self.fields.partition_point(|one| (one.kind, one.field) <= (kind, field));
        (&self.fields[..before], &self.fields[upto..])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// By kind and field.
    pub fn iter(&self) -> impl Iterator<Item = (LogKind, i64, LogSums)> {
        self.fields.iter().map(|one| (one.kind, one.field, one.sums()))
    }

    /// By field.
    pub fn of_kind(&self, kind: LogKind) -> impl Iterator<Item = (i64, LogSums)> {
        let of_kind = self.fields.iter().filter(move |one| one.kind == kind);
        of_kind.map(|one| (one.field, one.sums()))
    }

    /// Files, entries and bytes over all fields of a kind.
    pub fn total(&self, kind: LogKind) -> LogSums {
        self.of_kind(kind).fold(LogSums::default(), |mut total, (_, sums)| {
            total.files = total.files.saturating_add(sums.files);
            total.entries = total.entries.saturating_add(sums.entries);
            total.size_bytes = total.size_bytes.saturating_add(sums.size_bytes);
            total.newest_ts = total.newest_ts.max(sums.newest_ts);
            total.oldest_ts = match (total.oldest_ts, sums.oldest_ts) {
                (0, oldest) | (oldest, 0) => oldest,
                (one, other) => one.min(other),
            };
            total
        })
    }

    /// Rows as the insert logs of the first field count them; 0 where there are none.
    pub fn rows(&self) -> i64 {
        self.of_kind(LogKind::Insert).next().map_or(0, |(_, sums)| sums.entries)
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> i64 {
        self.fields.iter().fold(0, |sum, one| sum.saturating_add(one.size_bytes))
    }
}
