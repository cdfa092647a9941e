//! Drops flushed segments that are left of dropped partitions.
//!
//! A data node drops the segments that it knows when it consumes the message of the drop. A segment
//! that it does not know then (a compaction's result that it was not told of, one that was added
//! while the channel was between two nodes) would stay for ever, and RootCoord would wait for it. Once
//! the channel is consumed past the drop, and some time has passed, nothing is left to wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::quorate::segment_command::Kind;
use proto::quorate::{DropSegments, SegmentRef};
use statemachine::Views;
use statemachine::catalog::Lifecycle;
use statemachine::view::{Area, CollectionId, PartitionId, SegmentId};

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead, tso};

const PERIOD: Duration = Duration::from_secs(10);
/// How far a channel must be consumed past the moment in which the drop was seen: RootCoord marks the
/// partition first and sends the message afterwards.
const GRACE_MS: u64 = 60_000;
/// Segments that are looked at under one lock.
const SLICE: usize = 1000;
/// Segments that one command drops.
pub(super) const DROPS_MAX: usize = 128;

type PartitionKey = (CollectionId, PartitionId);

#[derive(Default)]
pub(super) struct DroppedPartitions {
    /// Since which hybrid timestamp a partition has been seen as dropped.
    since: BTreeMap<PartitionKey, u64>,
}

impl Duty for DroppedPartitions {
    const NAME: &'static str = "duty-dropped-partitions";
    const AREAS: &'static [Area] = &[];

    fn period(&self) -> Duration {
        PERIOD
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let leaving = lead.local().read(|state| leaving(state.views()));
        self.since.retain(|partition, _| leaving.contains(partition));
        if leaving.iter().any(|partition| !self.since.contains_key(partition)) {
            let now_ts = lead.tso.fresh().await?;
            for partition in leaving {
                self.since.entry(partition).or_insert(now_ts);
            }
        }
        for (partition, since_ts) in &self.since {
            let mut after = SegmentId(i64::MIN);
            loop {
                let views = lead.local();
                let (left, next) =
                    views.read(|state| left(state.views(), *partition, *since_ts, after, SLICE));
                for some in left.chunks(DROPS_MAX) {
                    drop_segments(lead, some).await?;
                }
                let Some(next) = next else { break };
                after = next;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

/// Partitions that RootCoord is dropping.
fn leaving(views: &Views) -> BTreeSet<PartitionKey> {
    let rows = views.catalog().partition_rows().decoded();
    let leaving = rows.filter(|(_, partition)| match partition.state {
        Lifecycle::Dropping | Lifecycle::Dropped => true,
        Lifecycle::Creating | Lifecycle::Created => false,
    });
    leaving.map(|(key, _)| *key).collect()
}

/// Flushed segments of a partition whose channels are consumed far enough, among the next `n` of its
/// collection above `after`; and where to go on.
fn left(
    views: &Views,
    (collection, partition): PartitionKey,
    since_ts: u64,
    after: SegmentId,
    n: usize,
) -> (Vec<SegmentRef>, Option<SegmentId>) {
    let until_ts = tso::later(since_ts, GRACE_MS);
    let is_consumed = |channel: &str| {
        let checkpoint = views.assignments().checkpoint(channel);
        checkpoint.is_some_and(|checkpoint| checkpoint.position.timestamp >= until_ts)
    };
    let mut found = Vec::new();
    let mut last = None;
    let mut n_seen = 0;
    for (id, segment) in views.segments().of_collection_after(collection, after).take(n) {
        n_seen += 1;
        last = Some(id);
        if segment.partition == partition && segment.is_flushed() && is_consumed(&segment.channel) {
            found.push(segment.reference(id));
        }
    }
    (found, last.filter(|_| n_seen == n))
}

async fn drop_segments(lead: &Lead, segments: &[SegmentRef]) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let command = DropSegments {
        segments: segments.to_vec(),
        dropped_at_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        disowned: false,
        importing: false,
        partition_dropped: true,
    };
    let outcome = lead.propose_segment(Kind::Drop(command)).await?;
    for segment in outcome.changed {
        lead.observed.forget(SegmentId(segment));
        tracing::info!(segment, "segment dropped: its partition is, and its data node left it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcd;
    use proto::milvus::common::SegmentState;
    use proto::milvus::data::SegmentInfo;
    use proto::milvus::etcd::{PartitionInfo, PartitionState};
    use proto::milvus::msg::MsgPosition;

    use super::*;

    const SINCE_TS: u64 = 1000 << 18;

    fn put(views: &mut Views, key: &str, value: &impl Message) {
        views.put(&etcd::KeyValue {
            key: format!("by-dev/meta/{key}").into(),
            value: value.encode_to_vec().into(),
            mod_revision: 1,
            ..etcd::KeyValue::default()
        });
    }

    fn segment(views: &mut Views, id: i64, partition_id: i64, channel: &str, state: SegmentState) {
        let info = SegmentInfo {
            id,
            collection_id: 1,
            partition_id,
            insert_channel: channel.to_owned(),
            state: state.into(),
            ..SegmentInfo::default()
        };
        put(views, &format!("datacoord-meta/s/1/{partition_id}/{id}"), &info);
    }

    fn checkpoint(views: &mut Views, channel: &str, timestamp: u64) {
        let position = MsgPosition { timestamp, ..MsgPosition::default() };
        put(views, &format!("datacoord-meta/channel-cp/{channel}"), &position);
    }

    #[test]
    fn flushed_segments_of_a_dropped_partition_go_when_their_channel_is_consumed_past_the_drop() {
        let mut views = Views::new("by-dev");
        for (id, state) in
            [(2, PartitionState::PartitionDropping), (3, PartitionState::PartitionCreated)]
        {
            let info = PartitionInfo {
                partition_id: id,
                collection_id: 1,
                partition_name: format!("p{id}"),
                state: state.into(),
                ..PartitionInfo::default()
            };
            put(&mut views, &format!("root-coord/partitions/1/{id}"), &info);
        }
        let dropped = (CollectionId(1), PartitionId(2));
        assert_eq!(leaving(&views), BTreeSet::from([dropped]));

        segment(&mut views, 10, 2, "a_1v0", SegmentState::Flushed);
        segment(&mut views, 11, 2, "a_1v0", SegmentState::Growing);
        segment(&mut views, 12, 3, "a_1v0", SegmentState::Flushed);
        segment(&mut views, 13, 2, "b_1v1", SegmentState::Flushed);
        checkpoint(&mut views, "a_1v0", tso::later(SINCE_TS, GRACE_MS));
        checkpoint(&mut views, "b_1v1", tso::later(SINCE_TS, GRACE_MS) - 1);
        let found = |views: &Views, after, n| {
            let (left, next) = left(views, dropped, SINCE_TS, SegmentId(after), n);
            (left.iter().map(|of| of.segment).collect::<Vec<_>>(), next.map(|id| id.0))
        };
        assert_eq!(found(&views, i64::MIN, 100), (vec![10], None));
        assert_eq!(found(&views, i64::MIN, 2), (vec![10], Some(11)));
        assert_eq!(found(&views, 11, 2), (vec![], Some(13)));
        checkpoint(&mut views, "b_1v1", tso::later(SINCE_TS, GRACE_MS));
        assert_eq!(found(&views, 11, 2), (vec![13], Some(13)));
    }
}
