//! Sums over the logs of a segment.

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
            sums.files += 1;
            sums.entries += log.entries_num;
            sums.size_bytes += log.log_size;
            sums.newest_ts = sums.newest_ts.max(log.timestamp_to);
            sums.oldest_ts = sums.oldest_ts.min(log.timestamp_from);
        }
        if sums.files == 0 {
            sums.oldest_ts = 0;
        }
        sums
    }
}

/// Sums of all logs of a segment, one for each key, by kind and field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    pub(super) fields: Vec<(LogKind, i64, LogSums)>,
}

impl Logs {
    pub(super) fn set(&mut self, kind: LogKind, field: i64, sums: LogSums) {
        match self.place(kind, field) {
            Ok(nth) => self.fields[nth].2 = sums,
            Err(nth) => {
                // Few segments ever grow by another field.
                self.fields.reserve_exact(1);
                self.fields.insert(nth, (kind, field, sums));
            }
        }
    }

    pub(super) fn remove(&mut self, kind: LogKind, field: i64) {
        if let Ok(nth) = self.place(kind, field) {
            self.fields.remove(nth);
        }
    }

    fn place(&self, kind: LogKind, field: i64) -> Result<usize, usize> {
        self.fields.binary_search_by(|(k, f, _)| (*k, *f).cmp(&(kind, field)))
    }

    /// By field.
    pub fn of_kind(&self, kind: LogKind) -> impl Iterator<Item = (i64, LogSums)> {
        self.fields
            .iter()
            .filter(move |(other, _, _)| *other == kind)
            .map(|(_, field, sums)| (*field, *sums))
    }

    /// Files, entries and bytes over all fields of a kind.
    pub fn total(&self, kind: LogKind) -> LogSums {
        self.of_kind(kind).fold(LogSums::default(), |mut total, (_, sums)| {
            total.files += sums.files;
            total.entries += sums.entries;
            total.size_bytes += sums.size_bytes;
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
        self.fields.iter().map(|(_, _, sums)| sums.size_bytes).sum()
    }
}
