//! A segment's record and what we keep beside it, compactly.

use std::fmt;

use prost::Message;
use proto::etcd;
use proto::milvus::common::SegmentState;
use proto::milvus::data;
use proto::quorate::{self, HasRows, SegmentRef};

use crate::view::{CollectionId, Name, Names, PartitionId, SegmentId};

/// A segment's record, without its logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub collection: CollectionId,
    pub partition: PartitionId,
    /// Virtual channel that its rows came through.
    pub channel: Name,
    pub state: SegmentState,
    pub rows: i64,
    /// Rows at which it counts as full.
    pub rows_max: i64,
    /// Hybrid timestamp after which no row arrives.
    pub last_expire_ts: u64,
    /// Hybrid timestamps of its positions, where it has them.
    pub start_ts: Option<u64>,
    pub dml_ts: Option<u64>,
    /// Unix nanoseconds, 0 while it lives or where nobody said.
    pub dropped_at_ns: u64,
    pub is_importing: bool,
    pub is_compacted: bool,
    pub is_compaction_result: bool,
    pub is_fake: bool,
    pub level: i32,
    /// Inputs of the compaction that made it.
    pub parents: Box<[SegmentId]>,
    /// Revision of the put.
    pub revision: i64,
}

impl Segment {
    pub(super) fn decode(
        names: &mut Names,
        key: SegmentRef,
        kv: &etcd::KeyValue,
    ) -> Result<Segment, String> {
        let info = data::SegmentInfo::decode(&kv.value[..]).map_err(|error| error.to_string())?;
        let named = (info.collection_id, info.partition_id, info.id);
        if named != (key.collection, key.partition, key.segment) {
            return Err(format!("the record is of {named:?}, the key of another segment"));
        }
        Segment::of(&info, names.intern(&info.insert_channel), kv.mod_revision)
    }

    pub(crate) fn of(
        info: &data::SegmentInfo,
        channel: Name,
        revision: i64,
    ) -> Result<Segment, String> {
        let state = SegmentState::try_from(info.state)
            .map_err(|_unknown| format!("no segment state has the number {}", info.state))?;
        Ok(Segment {
            collection: CollectionId(info.collection_id),
            partition: PartitionId(info.partition_id),
            channel,
            state,
            rows: info.num_of_rows,
            rows_max: info.max_row_num,
            last_expire_ts: info.last_expire_time,
            start_ts: info.start_position.as_ref().map(|position| position.timestamp),
            dml_ts: info.dml_position.as_ref().map(|position| position.timestamp),
            dropped_at_ns: info.dropped_at,
            is_importing: info.is_importing,
            is_compacted: info.compacted,
            is_compaction_result: info.created_by_compaction,
            is_fake: info.is_fake,
            level: info.level,
            parents: info.compaction_from.iter().map(|id| SegmentId(*id)).collect(),
            revision,
        })
    }

    /// Exists and is not dropped.
    pub fn is_healthy(&self) -> bool {
        is_healthy(self.state)
    }

    /// Flushing or Flushed.
    pub fn is_flushed(&self) -> bool {
        matches!(self.state, SegmentState::Flushing | SegmentState::Flushed)
    }

    /// May still get rows, or has some that are not written.
    pub fn is_open(&self) -> bool {
        matches!(self.state, SegmentState::Growing | SegmentState::Sealed | SegmentState::Importing)
    }

    pub fn reference(&self, id: SegmentId) -> SegmentRef {
        SegmentRef { collection: self.collection.0, partition: self.partition.0, segment: id.0 }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Segment { collection, partition, channel, state, rows, rows_max, .. } = self;
        write!(
            out,
            "{state:?} {collection}/{partition} channel {channel} rows {rows} of {rows_max} expire \
             {} dropped {} level {} revision {}",
            self.last_expire_ts, self.dropped_at_ns, self.level, self.revision
        )?;
        for (name, ts) in [("start", self.start_ts), ("dml", self.dml_ts)] {
            if let Some(ts) = ts {
                write!(out, " {name} {ts}")?;
            }
        }
        for (set, word) in [
            (self.is_importing, "importing"),
            (self.is_compacted, "compacted"),
            (self.is_compaction_result, "result"),
            (self.is_fake, "fake"),
        ] {
            if set {
                write!(out, " {word}")?;
            }
        }
        for parent in &self.parents {
            write!(out, " from {parent}")?;
        }
        Ok(())
    }
}

/// Whether a segment in this state exists and is not dropped.
pub fn is_healthy(state: SegmentState) -> bool {
    !matches!(state, SegmentState::None | SegmentState::NotExist | SegmentState::Dropped)
}

/// What we keep beside the record of a segment that is not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    pub has_rows: HasRows,
    pub window_rows: i64,
    pub window_expire_ts: u64,
    pub window_at_ms: u64,
    pub sealed_at_ms: u64,
}

impl Growth {
    pub(super) fn decode(value: &[u8]) -> Result<Growth, String> {
        let growth = quorate::Growth::decode(value).map_err(|error| error.to_string())?;
        Ok(Growth {
            has_rows: growth.has_rows(),
            window_rows: growth.window_rows,
            window_expire_ts: growth.window_expire_ts,
            window_at_ms: growth.window_at_ms,
            sealed_at_ms: growth.sealed_at_ms,
        })
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Growth { has_rows, window_rows, window_expire_ts, window_at_ms, sealed_at_ms } = self;
        write!(
            out,
            "rows {has_rows:?} window {window_rows} until {window_expire_ts} at {window_at_ms} \
             sealed at {sealed_at_ms}"
        )
    }
}
