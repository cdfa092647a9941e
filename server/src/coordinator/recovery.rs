//! What a query node is to load of a channel: which segments as they are on disk, which from the
//! message queue, which not at all, and from where to read on.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use proto::milvus::common::{IndexState, SegmentState};
use proto::milvus::{data, msg};
use raft::Pinned;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::{CollectionId, IndexId, PartitionId, SegmentId};
use statemachine::{EventId, State, Views};

use super::{Failure, records};

/// Segments of a channel by what is to be done with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) flushed: BTreeSet<SegmentId>,
    pub(crate) unflushed: BTreeSet<SegmentId>,
    pub(crate) dropped: BTreeSet<SegmentId>,
    /// Segments of the channel, in a list or not.
    pub(crate) n_looked_at: usize,
}

/// Sorts a channel's segments. A result of a compaction that has no index yet is left out, and its
/// inputs take its place, so that nobody searches without an index what had one.
///
/// No partition stands for all.
pub(crate) fn lists(
    views: &Views,
    channel: &str,
    partitions: &BTreeSet<PartitionId>,
    index_min_rows: i64,
) -> Lists {
    let mut n_looked_at = 0;
    let considered: Vec<(SegmentId, &Segment)> = views
        .segments()
        .of_channel(channel)
        .inspect(|_| n_looked_at += 1)
        .filter(|(_, segment)| {
            !segment.is_fake
                && !segment.is_importing
                && (partitions.is_empty() || partitions.contains(&segment.partition))
                && (segment.start_ts.is_some() || segment.dml_ts.is_some())
        })
        .collect();
    // Asked for only where a segment may have been indexed.
    let indexes = OnceCell::new();
    let collection = considered.first().map(|(_, segment)| segment.collection);
    let is_indexed = |id| {
        indexes.get_or_init(|| vector_indexes(views, collection)).iter().any(|index| {
            let build = views.indexes().of_index(id, *index);
            build.is_some_and(|(_, build)| build.state == IndexState::Finished)
        })
    };
    Lists { n_looked_at, ..sort(&considered, index_min_rows, is_indexed) }
}

/// Indexes on the first vector field of a collection.
fn vector_indexes(views: &Views, collection: Option<CollectionId>) -> Vec<IndexId> {
    let Some(collection) = collection else { return Vec::new() };
    let fields = views.catalog().fields(collection);
    let Some((field, _)) = fields.iter().find(|(_, field)| is_vector(field.data_type)) else {
        return Vec::new();
    };
    let live = views.indexes().live_of(collection);
    live.filter(|(_, index)| index.field == *field).map(|(id, _)| id).collect()
}

fn sort(
    considered: &[(SegmentId, &Segment)],
    index_min_rows: i64,
    is_indexed: impl Fn(SegmentId) -> bool,
) -> Lists {
    let mut lists = Lists::default();
    let (mut indexed, mut raw) = (BTreeSet::new(), BTreeSet::new());
    for (id, segment) in considered {
        match segment.state {
            SegmentState::Dropped => lists.dropped.insert(*id),
            SegmentState::Flushed | SegmentState::Flushing => {
                let as_if_indexed = segment.rows < index_min_rows || is_indexed(*id);
                if as_if_indexed { indexed.insert(*id) } else { raw.insert(*id) }
            }
            SegmentState::None
            | SegmentState::NotExist
            | SegmentState::Growing
            | SegmentState::Sealed
            | SegmentState::Importing => lists.unflushed.insert(*id),
        };
    }
    let find = |id: SegmentId| {
        let nth = considered.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(considered[nth].1)
    };
    // Inputs may be results themselves.
    let mut open: Vec<SegmentId> = raw.iter().copied().collect();
    while let Some(id) = open.pop() {
        let Some(segment) = find(id) else { continue };
        let has_inputs = !segment.parents.is_empty()
            && segment.parents.iter().all(|parent| find(*parent).is_some());
        if !has_inputs {
            continue;
        }
        raw.remove(&id);
        for parent in &segment.parents {
            lists.dropped.remove(parent);
            if is_indexed(*parent) {
                indexed.insert(*parent);
            } else if raw.insert(*parent) {
                open.push(*parent);
            }
        }
    }
    lists.flushed = indexed;
    lists.flushed.append(&mut raw);
    lists
}

fn is_vector(kind: proto::milvus::schema::DataType) -> bool {
    // All kinds of vectors are numbered from 100 on.
    kind as i32 >= proto::milvus::schema::DataType::BinaryVector as i32
}

/// A position to read on from, as of one moment.
pub(crate) enum Seek {
    Known(Option<msg::MsgPosition>),
    /// In the record of the segment whose rows come first.
    OfSegment(Option<EventId>),
}

/// From where whoever consumes the channel reads on: its checkpoint, else where the oldest unwritten
/// rows may begin, else where the collection begins. It must be of the moment of the lists: with a
/// newer one, rows that came in between would be in neither.
pub(crate) fn seek(state: &State, channel: &str, partitions: &BTreeSet<PartitionId>) -> Seek {
    let views = state.views();
    if let Some(checkpoint) = views.assignments().checkpoint(channel) {
        return Seek::Known(Some(checkpoint.position.clone()));
    }
    let earliest = views
        .segments()
        .of_channel(channel)
        .filter(|(_, segment)| segment.state != SegmentState::Dropped && !segment.is_importing)
        .filter(|(_, segment)| partitions.is_empty() || partitions.contains(&segment.partition))
        .filter_map(|(id, segment)| {
            Some((segment.dml_ts.or(segment.start_ts)?, id, segment.reference(id)))
        })
        .min_by_key(|(timestamp, id, _)| (*timestamp, *id));
    match earliest {
        Some((_, _, of)) => Seek::OfSegment(records::row(state, &records::keys(state).segment(of))),
        None => {
            let assignment = views.assignments().get(channel);
            Seek::Known(assignment.and_then(|assignment| assignment.beginning.clone()))
        }
    }
}

/// The position, from an image of the moment of `seek`.
///
/// # Errors
/// The store cannot be read, or a record is no record.
pub(crate) fn fetch(image: &Pinned, seek: Seek) -> Result<Option<msg::MsgPosition>, Failure> {
    match seek {
        Seek::Known(position) => Ok(position),
        Seek::OfSegment(row) => {
            let info: Option<data::SegmentInfo> = records::fetch(image, row)?;
            Ok(info.and_then(|info| info.dml_position.or(info.start_position)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::expect;
    use statemachine::view::Name;

    use super::*;

    /// One segment a word: id, `g`rowing, `f`lushed or `d`ropped, `i` where it is indexed, `s` where
    /// it is small, its parents.
    fn check(segments: &str) -> String {
        let mut rows = Vec::new();
        let mut indexed = BTreeSet::new();
        for word in segments.split_whitespace() {
            let mut parts = word.split(':');
            let id = SegmentId(parts.next().expect("an id").parse().expect("a number"));
            let marks = parts.next().expect("marks");
            let parents = parts.next().unwrap_or_default();
            let parents = parents.split(',').filter(|parent| !parent.is_empty());
            if marks.contains('i') {
                indexed.insert(id);
            }
            let segment = Segment {
                collection: CollectionId(1),
                partition: PartitionId(2),
                channel: Name::from("c"),
                state: match &marks[..1] {
                    "g" => SegmentState::Growing,
                    "f" => SegmentState::Flushed,
                    _ => SegmentState::Dropped,
                },
                rows: if marks.contains('s') { 10 } else { 5000 },
                rows_max: 0,
                last_expire_ts: 0,
                start_ts: Some(1),
                dml_ts: None,
                dropped_at_ns: 0,
                is_importing: false,
                is_compacted: false,
                is_compaction_result: false,
                is_fake: false,
                level: 0,
                parents: parents.map(|id| SegmentId(id.parse().expect("a number"))).collect(),
                revision: 1,
            };
            rows.push((id, segment));
        }
        let considered: Vec<(SegmentId, &Segment)> =
            rows.iter().map(|(id, segment)| (*id, segment)).collect();
        let lists = sort(&considered, 1024, |id| indexed.contains(&id));
        let mut told = String::new();
        for (name, ids) in [
            ("flushed", &lists.flushed),
            ("unflushed", &lists.unflushed),
            ("dropped", &lists.dropped),
        ] {
            let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
            write!(told, "{name} {ids:?} ").expect("a string grows");
        }
        told
    }

    #[test]
    fn results_without_an_index_wait_behind_their_inputs() {
        expect!["flushed [2, 3, 4] unflushed [1] dropped [5] "]
            .assert_eq(&check("1:g 2:f 3:fi 4:fs 5:di"));
        expect!["flushed [1, 2] unflushed [] dropped [] "].assert_eq(&check("1:di 2:di 3:f:1,2"));
        expect!["flushed [3] unflushed [] dropped [1, 2] "].assert_eq(&check("1:di 2:di 3:fi:1,2"));
        // Small ones are searched without.
        expect!["flushed [3] unflushed [] dropped [1, 2] "].assert_eq(&check("1:ds 2:ds 3:fs:1,2"));
        // An input is gone already.
        expect!["flushed [3] unflushed [] dropped [2] "].assert_eq(&check("2:di 3:f:1,2"));
    }

    #[test]
    fn inputs_that_are_results_give_way_in_turn() {
        expect!["flushed [1, 2, 4] unflushed [] dropped [] "]
            .assert_eq(&check("1:di 2:d 3:d:1,2 4:d 5:f:3,4"));
        expect!["flushed [3, 4] unflushed [] dropped [1, 2] "]
            .assert_eq(&check("1:di 2:di 3:di:1,2 4:d 5:f:3,4"));
    }
}
