//! View of the segments: what duties and hot requests need of them, compactly. Paths and lists of
//! logs stay in the store.

mod grouped;
mod logs;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::etcd;
use proto::milvus::common::SegmentState;
use proto::milvus::data;
use proto::quorate::SegmentRef;

use crate::coordinator::keys::LogKind;
use crate::view::{CollectionId, Name, Names, PartitionId, Row, Rows, SegmentId, Undecodable};

use grouped::Grouped;
pub use logs::{LogSums, Logs};
pub use record::{Growth, Segment, is_healthy};

/// A segment's id and where its records are. Ids are unique unless somebody writes keys raw.
type SegmentKey = (SegmentId, CollectionId, PartitionId);

fn key_of(of: SegmentRef) -> SegmentKey {
    (SegmentId(of.segment), CollectionId(of.collection), PartitionId(of.partition))
}

fn first_of(id: SegmentId) -> SegmentKey {
    (id, CollectionId(i64::MIN), PartitionId(i64::MIN))
}

fn last_of(id: SegmentId) -> SegmentKey {
    (id, CollectionId(i64::MAX), PartitionId(i64::MAX))
}

/// Sums over segments of one collection and state. They wrap around, so that what is added and then
/// taken away leaves nothing, whatever foreign records claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub segments: usize,
    pub rows: i64,
    /// Bytes of all logs.
    pub size_bytes: i64,
}

/// A segment of a channel with its logs: who walks a million of them searches the logs of none.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    segment: Arc<Segment>,
    logs: Logs,
}

/// All segments.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Segments {
    rows: Rows<SegmentKey, Arc<Segment>>,
    logs: BTreeMap<SegmentKey, Logs>,
    growth: Rows<SegmentId, Growth>,
    of_collection: Grouped<CollectionId, Arc<Segment>>,
    of_channel: Grouped<Name, Member>,
    /// Growing, Sealed and Importing ones, by channel.
    open: Grouped<Name, Arc<Segment>>,
    dropped: BTreeSet<SegmentKey>,
    /// Results of compactions by their inputs.
    children: BTreeSet<(SegmentId, SegmentKey)>,
    /// Number of segments in each state, by its number.
    counts: BTreeMap<i32, usize>,
    /// Kept as segments and logs change: summing up a million segments would hold up apply.
    tallies: BTreeMap<(CollectionId, i32), Tally>,
    /// Values of log keys that do not decode, and keys that Milvus never writes; by revision.
    strays: BTreeMap<Bytes, i64>,
}

/// Following the keyspace.
impl Segments {
    pub(crate) fn put_segment(&mut self, names: &mut Names, of: SegmentRef, kv: &etcd::KeyValue) {
        let id = key_of(of);
        self.forget(&id);
        let row = Row::from_result(Segment::decode(names, of, kv).map(Arc::new), kv.mod_revision);
        if let Some(segment) = row.decoded() {
            let channel = segment.channel.clone();
            let logs = self.logs.get(&id).cloned().unwrap_or_default();
            let size_bytes = logs.size_bytes();
            self.of_collection.insert(segment.collection, id, Arc::clone(segment));
            let member = Member { segment: Arc::clone(segment), logs };
            self.of_channel.insert(channel.clone(), id, member);
            if segment.is_open() {
                self.open.insert(channel, id, Arc::clone(segment));
            }
            if segment.state == SegmentState::Dropped {
                self.dropped.insert(id);
            }
            for parent in &segment.parents {
                self.children.insert((*parent, id));
            }
            *self.counts.entry(segment.state.into()).or_default() += 1;
            let tally = self.tallies.entry((segment.collection, segment.state.into())).or_default();
            tally.segments += 1;
            tally.rows = tally.rows.wrapping_add(segment.rows);
            tally.size_bytes = tally.size_bytes.wrapping_add(size_bytes);
        }
        self.rows.put(id, row);
    }

    pub(crate) fn delete_segment(&mut self, of: SegmentRef) {
        let id = key_of(of);
        self.forget(&id);
        self.rows.remove(&id);
    }

    fn forget(&mut self, id: &SegmentKey) {
        let Some(old) = self.rows.get(id) else { return };
        self.of_collection.remove(&old.collection, id);
        self.of_channel.remove(&old.channel, id);
        self.open.remove(&old.channel, id);
        self.dropped.remove(id);
        for parent in &old.parents {
            self.children.remove(&(*parent, *id));
        }
        let state: i32 = old.state.into();
        if let Some(count) = self.counts.get_mut(&state) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&state);
            }
        }
        let place = (old.collection, state);
        if let Some(tally) = self.tallies.get_mut(&place) {
            tally.segments -= 1;
            tally.rows = tally.rows.wrapping_sub(old.rows);
            let size_bytes = self.logs.get(id).map_or(0, Logs::size_bytes);
            tally.size_bytes = tally.size_bytes.wrapping_sub(size_bytes);
            if tally.segments == 0 {
                self.tallies.remove(&place);
            }
        }
    }

    /// A segment's logs are others now.
    fn set_logs(&mut self, id: SegmentKey, logs: Logs) {
        let size_bytes = logs.size_bytes();
        let old = match logs.is_empty() {
            true => self.logs.remove(&id),
            false => self.logs.insert(id, logs.clone()),
        };
        let Some(segment) = self.rows.get(&id) else { return };
        if let Some(member) = self.of_channel.get_mut(&segment.channel, &id) {
            member.logs = logs;
        }
        if let Some(tally) = self.tallies.get_mut(&(segment.collection, segment.state.into())) {
            let before = old.map_or(0, |old| old.size_bytes());
            tally.size_bytes = tally.size_bytes.wrapping_add(size_bytes).wrapping_sub(before);
        }
    }

    pub(crate) fn put_log(
        &mut self,
        kind: LogKind,
        of: SegmentRef,
        field: i64,
        kv: &etcd::KeyValue,
    ) {
        match data::FieldBinlog::decode(&kv.value[..]) {
            Ok(logs) => {
                self.strays.remove(&kv.key);
                let id = key_of(of);
                let old = self.logs.get(&id).cloned().unwrap_or_default();
                self.set_logs(id, old.with(kind, field, LogSums::of(&logs)));
            }
            Err(_not_logs) => {
                self.delete_log(kind, of, field);
                self.strays.insert(kv.key.clone(), kv.mod_revision);
            }
        }
    }

    pub(crate) fn delete_log(&mut self, kind: LogKind, of: SegmentRef, field: i64) {
        let id = key_of(of);
        if let Some(logs) = self.logs.get(&id) {
            let left = logs.without(kind, field);
            self.set_logs(id, left);
        }
    }

    pub(crate) fn put_growth(&mut self, segment: SegmentId, kv: &etcd::KeyValue) {
        self.growth.put(segment, Row::from_result(Growth::decode(&kv.value), kv.mod_revision));
    }

    pub(crate) fn delete_growth(&mut self, segment: SegmentId) {
        self.growth.remove(&segment);
    }

    pub(crate) fn put_stray(&mut self, kv: &etcd::KeyValue) {
        self.strays.insert(kv.key.clone(), kv.mod_revision);
    }

    pub(crate) fn delete_stray(&mut self, key: &[u8]) {
        self.strays.remove(key);
    }
}

/// Questions.
impl Segments {
    pub fn get(&self, id: SegmentId) -> Option<&Segment> {
        let mut same = self.rows.range(first_of(id)..=last_of(id));
        same.find_map(|(_, row)| row.decoded()).map(|segment| &**segment)
    }

    /// Whether there is a record of it, even one that does not decode.
    pub fn is_known(&self, id: SegmentId) -> bool {
        self.rows.range(first_of(id)..=last_of(id)).next().is_some()
    }

    /// All records of an id, `None` where one does not decode: more than one if somebody wrote raw.
    pub(crate) fn with_id(
        &self,
        id: SegmentId,
    ) -> impl Iterator<Item = (SegmentRef, Option<&Segment>)> {
        self.rows.range(first_of(id)..=last_of(id)).map(|((id, collection, partition), row)| {
            let (segment, collection, partition) = (id.0, collection.0, partition.0);
            let of = SegmentRef { collection, partition, segment };
            (of, row.decoded().map(|segment| &**segment))
        })
    }

    /// A segment that is neither missing nor dropped.
    pub fn healthy(&self, id: SegmentId) -> Option<&Segment> {
        self.get(id).filter(|segment| segment.is_healthy())
    }

    pub fn logs(&self, id: SegmentId) -> Option<&Logs> {
        self.logs.range(first_of(id)..=last_of(id)).next().map(|(_, logs)| logs)
    }

    pub fn growth(&self, id: SegmentId) -> Option<&Growth> {
        self.growth.get(&id)
    }

    /// All segments that decode, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.rows.decoded().map(|((id, _, _), segment)| (*id, &**segment))
    }

    /// Rows that do not decode included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Segments of a collection in any state, by ascending id.
    pub fn of_collection(
        &self,
        collection: CollectionId,
    ) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.of_collection.of(&collection).map(plain)
    }

    /// As [`Segments::of_collection`], those with an id above `after`.
    pub fn of_collection_after(
        &self,
        collection: CollectionId,
        after: SegmentId,
    ) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.of_collection.of_after(&collection, after).map(plain)
    }

    /// Segments of a virtual channel in any state, by ascending id.
    pub fn of_channel(&self, channel: &str) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.of_channel.of(channel).map(|(id, member)| (id, &*member.segment))
    }

    /// Those of them above an id, and their logs: whoever walks a long channel does it in slices.
    pub fn of_channel_after(
        &self,
        channel: &str,
        after: SegmentId,
    ) -> impl Iterator<Item = (SegmentId, &Segment, &Logs)> {
        let members = self.of_channel.of_after(channel, after);
        members.map(|(id, member)| (id, &*member.segment, &member.logs))
    }

    /// Growing, Sealed and Importing segments of a virtual channel, by ascending id.
    pub fn open_of_channel(&self, channel: &str) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.open.of(channel).map(plain)
    }

    /// All Growing, Sealed and Importing segments, by channel.
    pub fn open(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.open.iter().map(plain)
    }

    /// Dropped segments above an id, by ascending id.
    pub fn dropped_after(&self, after: SegmentId) -> impl Iterator<Item = (SegmentId, &Segment)> {
        let above = (std::ops::Bound::Excluded(last_of(after)), std::ops::Bound::Unbounded);
        self.dropped.range(above).filter_map(|key| Some((key.0, &**self.rows.get(key)?)))
    }

    /// The result of the compaction that took this segment in.
    pub fn child_of(&self, parent: SegmentId) -> Option<SegmentId> {
        let first = (parent, first_of(SegmentId(i64::MIN)));
        let last = (parent, last_of(SegmentId(i64::MAX)));
        self.children.range(first..=last).next().map(|(_, (child, _, _))| *child)
    }

    /// All results of compactions that took this segment in: more than one if somebody wrote raw.
    pub(crate) fn children_of(&self, parent: SegmentId) -> impl Iterator<Item = SegmentRef> {
        let first = (parent, first_of(SegmentId(i64::MIN)));
        let last = (parent, last_of(SegmentId(i64::MAX)));
        self.children.range(first..=last).map(|(_, (child, collection, partition))| SegmentRef {
            collection: collection.0,
            partition: partition.0,
            segment: child.0,
        })
    }

    /// How many segments are in each state.
    pub fn counts(&self) -> impl Iterator<Item = (SegmentState, usize)> {
        self.counts.iter().filter_map(|(state, n)| Some((SegmentState::try_from(*state).ok()?, *n)))
    }

    /// Sums by collection and state.
    pub fn tallies(&self) -> impl Iterator<Item = (CollectionId, SegmentState, Tally)> {
        self.tallies.iter().filter_map(|((collection, state), tally)| {
            Some((*collection, SegmentState::try_from(*state).ok()?, *tally))
        })
    }

    pub fn undecodable(&self) -> usize {
        self.rows.undecodable() + self.growth.undecodable() + self.strays.len()
    }

    pub(crate) fn troubles(&self) -> impl Iterator<Item = (SegmentId, &Undecodable)> {
        let segments = self.rows.troubles().map(|((id, _, _), why)| (*id, why));
        segments.chain(self.growth.troubles().map(|(id, why)| (*id, why)))
    }

    pub(crate) fn strays(&self) -> &BTreeMap<Bytes, i64> {
        &self.strays
    }
}

fn plain((id, segment): (SegmentId, &Arc<Segment>)) -> (SegmentId, &Segment) {
    (id, segment)
}

impl fmt::Display for Segments {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((id, _, _), row) in self.rows.iter() {
            writeln!(out, "segment {id}: {row}")?;
        }
        for ((id, _, _), logs) in &self.logs {
            for (kind, field, sums) in logs.iter() {
                writeln!(
                    out,
                    "logs of segment {id}: {} field {field} files {} entries {} bytes {} from {} to {}",
                    kind.as_str(),
                    sums.files,
                    sums.entries,
                    sums.size_bytes,
                    sums.oldest_ts,
                    sums.newest_ts
                )?;
            }
        }
        for (id, row) in self.growth.iter() {
            writeln!(out, "growth of segment {id}: {row}")?;
        }
        for (key, revision) in &self.strays {
            writeln!(out, "segment stray {key:?} revision {revision}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv<M: Message>(value: &M) -> etcd::KeyValue {
        etcd::KeyValue { value: value.encode_to_vec().into(), ..Default::default() }
    }

    fn logs(size: i64) -> data::FieldBinlog {
        let log = data::Binlog { log_size: size, ..Default::default() };
        data::FieldBinlog { field_id: 100, binlogs: vec![log] }
    }

    fn info(of: SegmentRef, state: SegmentState, rows: i64) -> data::SegmentInfo {
        data::SegmentInfo {
            id: of.segment,
            collection_id: of.collection,
            partition_id: of.partition,
            state: state.into(),
            num_of_rows: rows,
            ..Default::default()
        }
    }

    #[test]
    fn sums_over_foreign_records_do_not_overflow() {
        let (mut segments, mut names) = (Segments::default(), Names::default());
        let of = |segment| SegmentRef { collection: 1, partition: 2, segment };
        let log =
            data::Binlog { entries_num: i64::MAX, log_size: i64::MAX, ..data::Binlog::default() };
        for id in [3, 4] {
            segments.put_segment(
                &mut names,
                of(id),
                &kv(&info(of(id), SegmentState::Flushed, i64::MAX)),
            );
            for field_id in [100, 101] {
                let logs = data::FieldBinlog { field_id, binlogs: vec![log.clone(), log.clone()] };
                segments.put_log(LogKind::Insert, of(id), field_id, &kv(&logs));
            }
        }
        let logs = segments.logs(SegmentId(3)).expect("logs");
        assert_eq!((logs.rows(), logs.size_bytes()), (i64::MAX, i64::MAX));
        assert_eq!(logs.total(LogKind::Insert).entries, i64::MAX);
        for id in [3, 4] {
            segments.delete_segment(of(id));
            for field in [100, 101] {
                segments.delete_log(LogKind::Insert, of(id), field);
            }
        }
        assert_eq!(segments, Segments::default());
    }

    fn shown(segments: &Segments) -> String {
        segments
            .tallies()
            .map(|(collection, state, Tally { segments, rows, size_bytes })| {
                format!("{collection} {state:?} {segments} {rows} {size_bytes}\n")
            })
            .collect()
    }

    #[test]
    fn groups_are_walked_from_an_id_on_and_follow_their_segments() {
        let (mut segments, mut names) = (Segments::default(), Names::default());
        let of = |segment| SegmentRef { collection: 1, partition: 2, segment };
        let put = |segments: &mut Segments, names: &mut Names, id, channel: &str, state| {
            let insert_channel = channel.to_owned();
            let info = data::SegmentInfo { insert_channel, ..info(of(id), state, 0) };
            segments.put_segment(names, of(id), &kv(&info));
        };
        for (id, channel) in [(5, "a"), (3, "a"), (4, "b"), (6, "a")] {
            put(&mut segments, &mut names, id, channel, SegmentState::Growing);
        }
        let ids = |found: &mut dyn Iterator<Item = (SegmentId, &Segment)>| -> Vec<i64> {
            found.map(|(id, _)| id.0).collect()
        };
        let after = |segments: &Segments, channel: &str, id| -> Vec<i64> {
            segments.of_channel_after(channel, SegmentId(id)).map(|(id, _, _)| id.0).collect()
        };
        assert_eq!(ids(&mut segments.of_channel("a")), [3, 5, 6]);
        assert_eq!(after(&segments, "a", 3), [5, 6]);
        assert_eq!(after(&segments, "a", 4), [5, 6]);
        assert_eq!(after(&segments, "c", 0), Vec::<i64>::new());
        assert_eq!(ids(&mut segments.of_collection_after(CollectionId(1), SegmentId(4))), [5, 6]);
        put(&mut segments, &mut names, 5, "a", SegmentState::Flushed);
        put(&mut segments, &mut names, 3, "b", SegmentState::Growing);
        assert_eq!(ids(&mut segments.open_of_channel("a")), [6]);
        assert_eq!(ids(&mut segments.of_channel("b")), [3, 4]);
        assert_eq!(ids(&mut segments.open()), [6, 3, 4]);
        for id in 3..=6 {
            segments.delete_segment(of(id));
        }
        assert_eq!(segments, Segments::default());
    }

    #[test]
    fn tallies_follow_segments_and_logs_in_any_order() {
        let (mut segments, mut names) = (Segments::default(), Names::default());
        let one = SegmentRef { collection: 1, partition: 2, segment: 3 };
        let other = SegmentRef { collection: 1, partition: 2, segment: 4 };
        // Either may come first, however views come about.
        segments.put_log(LogKind::Insert, one, 100, &kv(&logs(10)));
        segments.put_segment(&mut names, one, &kv(&info(one, SegmentState::Growing, 5)));
        segments.put_segment(&mut names, other, &kv(&info(other, SegmentState::Growing, 7)));
        segments.put_log(LogKind::Insert, other, 100, &kv(&logs(20)));
        segments.put_log(LogKind::Insert, other, 100, &kv(&logs(30)));
        assert_eq!(shown(&segments), "1 Growing 2 12 40\n");
        segments.put_segment(&mut names, one, &kv(&info(one, SegmentState::Flushed, 6)));
        assert_eq!(shown(&segments), "1 Growing 1 7 30\n1 Flushed 1 6 10\n");
        let told: Vec<(SegmentId, i64)> = segments
            .of_channel_after("", SegmentId(i64::MIN))
            .map(|(id, _, logs)| (id, logs.size_bytes()))
            .collect();
        assert_eq!(told, [(SegmentId(3), 10), (SegmentId(4), 30)]);
        segments.delete_log(LogKind::Insert, one, 100);
        assert!(
            segments
                .of_channel_after("", SegmentId(0))
                .all(|(id, _, logs)| { *logs == segments.logs(id).cloned().unwrap_or_default() })
        );
        segments.delete_segment(other);
        assert_eq!(shown(&segments), "1 Flushed 1 6 0\n");
        segments.delete_segment(one);
        segments.delete_log(LogKind::Insert, other, 100);
        assert_eq!(segments, Segments::default());
    }
}
