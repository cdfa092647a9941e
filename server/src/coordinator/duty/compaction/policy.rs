//! Which segments are worth compacting together. Pure: candidates in, plans out, and a plan prints
//! itself.

mod pack;
mod priority;

use std::fmt;

use statemachine::view::{CollectionId, Name, PartitionId, SegmentId};

use crate::coordinator::settings::CoordinatorSettings;

pub(crate) use priority::Priority;

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// What pays.
    Automatic,
    /// Somebody asked for it: every segment is taken, alone if need be.
    ByHand,
}

/// A flushed segment that no plan has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) id: i64,
    pub(crate) rows: i64,
    /// Of all its files.
    pub(crate) size_bytes: i64,
    pub(crate) stats_files: u32,
    pub(crate) delta_files: u32,
    /// Deleted rows, as its delta logs count them.
    pub(crate) delta_rows: i64,
    pub(crate) delta_bytes: i64,
    /// Rows in logs all of whose rows have outlived the collection's time to live.
    pub(crate) expired_rows: i64,
    pub(crate) expired_bytes: i64,
    pub(crate) is_result: bool,
    /// Its index was built by an older engine, and such are to be replaced.
    pub(crate) has_old_index: bool,
    /// Unix milliseconds, of the compaction that made it or of its last row.
    pub(crate) made_at_ms: u64,
}

/// What may be compacted together: segments of one channel and partition.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) collection: CollectionId,
    pub(crate) partition: PartitionId,
    pub(crate) channel: Name,
    /// Rows at which a segment is full.
    pub(crate) rows_max: i64,
    pub(crate) candidates: Vec<Candidate>,
}

/// The thresholds.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) segments_min: usize,
    pub(crate) segments_max: usize,
    pub(crate) small_proportion: f64,
    pub(crate) compactable_proportion: f64,
    pub(crate) expansion_rate: f64,
    pub(crate) ratio: f64,
    pub(crate) delta_bytes_max: i64,
    pub(crate) expired_bytes_max: i64,
    pub(crate) delta_files_max: u32,
    pub(crate) stats_files_max: i64,
}

impl Limits {
    pub(crate) fn of(settings: &CoordinatorSettings) -> Limits {
        let segment_bytes = settings.segment_max_size_mb << 20;
        Limits {
            segments_min: settings.compaction_min_segments,
            segments_max: settings.compaction_max_segments,
            small_proportion: settings.small_proportion,
            compactable_proportion: settings.compactable_proportion,
            expansion_rate: settings.expansion_rate,
            ratio: settings.single_ratio,
            delta_bytes_max: settings.single_delta_size_bytes,
            expired_bytes_max: settings.single_expired_size_bytes,
            delta_files_max: settings.single_delta_files_max,
            stats_files_max: 2 * (segment_bytes / settings.binlog_max_size_bytes.max(1)),
        }
    }

    /// A segment that waits for others to be merged with.
    pub(crate) fn is_small(&self, rows: i64, rows_max: i64) -> bool {
        part(rows, rows_max) < self.small_proportion
    }

    /// Why a segment is worth compacting by itself.
    pub(crate) fn reason(&self, segment: &Candidate) -> Option<Reason> {
        let Candidate { rows, .. } = *segment;
        let is_much = |of_rows: i64| of_rows > 0 && part(of_rows, rows) >= self.ratio;
        if !segment.is_result && i64::from(segment.stats_files) > self.stats_files_max {
            return Some(Reason::StatsFiles);
        }
        if segment.delta_files > self.delta_files_max {
            return Some(Reason::DeltaFiles);
        }
        if is_much(segment.expired_rows) || segment.expired_bytes > self.expired_bytes_max {
            return Some(Reason::Expired);
        }
        if is_much(segment.delta_rows) || segment.delta_bytes > self.delta_bytes_max {
            return Some(Reason::Deleted);
        }
        segment.has_old_index.then_some(Reason::OldIndex)
    }
}

/// Without rows, everything is much.
#[allow(clippy::cast_precision_loss, reason = "a proportion")]
fn part(of: i64, whole: i64) -> f64 {
    if whole <= 0 { f64::INFINITY } else { of as f64 / whole as f64 }
}

/// Why a plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    StatsFiles,
    DeltaFiles,
    Expired,
    Deleted,
    OldIndex,
    ByHand,
    /// Small segments become a larger one.
    Merge,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reason::StatsFiles => "many statistics logs",
            Reason::DeltaFiles => "many delta logs",
            Reason::Expired => "expired rows",
            Reason::Deleted => "deleted rows",
            Reason::OldIndex => "old index",
            Reason::ByHand => "by hand",
            Reason::Merge => "merge",
        }
    }
}

/// A plan to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proposal {
    pub(crate) inputs: Vec<SegmentId>,
    pub(crate) rows: i64,
    pub(crate) rows_max: i64,
    pub(crate) reason: Reason,
    pub(crate) priority: Priority,
}

impl fmt::Display for Proposal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proposal { inputs, rows, rows_max, reason, priority } = self;
        write!(out, "mix")?;
        for input in inputs {
            write!(out, " {input}")?;
        }
        write!(out, ", rows {rows} of {rows_max}, {}: {priority}", reason.as_str())
    }
}

/// Plans that rewrite segments with many deleted or expired rows and merge small ones.
pub(crate) fn mix(group: &Group, limits: &Limits, wish: Wish, now_ms: u64) -> Vec<Proposal> {
    let buckets = pack::pack(group, limits, wish);
    let proposal = |bucket: pack::Bucket<'_>| Proposal {
        inputs: bucket.segments.iter().map(|segment| SegmentId(segment.id)).collect(),
        rows: bucket.rows,
        rows_max: group.rows_max,
        reason: bucket.reason,
        priority: Priority::of(&bucket.segments, group.rows_max, now_ms),
    };
    buckets.into_iter().map(proposal).collect()
}

#[cfg(test)]
mod tests;
