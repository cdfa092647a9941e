//! How far an index is: the figures that clients poll until their index is built.

use std::collections::BTreeSet;
use std::fmt::Write;

use proto::milvus::common::IndexState;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::{CollectionId, IndexId, SegmentId, Views};

/// Which segments count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    /// All there are.
    Now,
    /// Those that got no rows after this hybrid timestamp: the others came after the request that
    /// made the index.
    Request { ts: u64 },
}

/// Rows and state of one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) total_rows: i64,
    pub(crate) indexed_rows: i64,
    pub(crate) pending_rows: i64,
    pub(crate) state: IndexState,
    /// Of the segments whose build failed, each with its id.
    pub(crate) failure: String,
}

/// Counts over the flushed segments of a collection.
pub(crate) fn progress(
    views: &Views,
    collection: CollectionId,
    index: IndexId,
    since: Since,
) -> Progress {
    let mut count = Count::default();
    for (id, segment) in views.segments().of_collection(collection) {
        if super::is_indexable(segment) {
            count.add(views, index, since, id, segment);
        }
    }
    let indexed_rows = match since {
        Since::Now => count.finished_rows,
        Since::Request { .. } => count.served_rows(views, index),
    };
    Progress {
        total_rows: count.total_rows,
        indexed_rows,
        pending_rows: count.pending_rows,
        state: count.state(),
        failure: count.failure,
    }
}

#[derive(Default)]
struct Count {
    total_rows: i64,
    pending_rows: i64,
    finished_rows: i64,
    indexed_rows: i64,
    unindexed: Vec<SegmentId>,
    n_none: usize,
    n_waiting: usize,
    n_failed: usize,
    failure: String,
}

impl Count {
    fn add(
        &mut self,
        views: &Views,
        index: IndexId,
        since: Since,
        id: SegmentId,
        segment: &Segment,
    ) {
        self.total_rows += segment.rows;
        let in_time = |ts| segment.last_expire_ts <= ts;
        let Some((_, build)) = views.indexes().of_index(id, index) else {
            self.pending_rows += segment.rows;
            self.unindexed.push(id);
            let counts = match since {
                Since::Now => in_time(definition_ts(views, segment.collection, index)),
                Since::Request { ts } => in_time(ts),
            };
            self.n_waiting += usize::from(counts);
            return;
        };
        if build.state == IndexState::Finished {
            self.indexed_rows += segment.rows;
        } else {
            self.pending_rows += segment.rows;
            self.unindexed.push(id);
        }
        let counts = match since {
            Since::Now => true,
            Since::Request { ts } => in_time(ts),
        };
        if !counts {
            return;
        }
        match build.state {
            IndexState::Finished => self.finished_rows += segment.rows,
            IndexState::Unissued | IndexState::InProgress => self.n_waiting += 1,
            IndexState::Failed => {
                self.n_failed += 1;
                let reason = build.failure.as_deref().unwrap_or("");
                write!(self.failure, "{id}: {reason};").expect("a string grows as needed");
            }
            IndexState::None | IndexState::Retry => self.n_none += 1,
        }
    }

    /// Rows of the indexed segments and, for those that are not indexed yet, of the indexed ones
    /// that they were compacted from: these are what is searched meanwhile.
    fn served_rows(&mut self, views: &Views, index: IndexId) -> i64 {
        let mut rows = self.indexed_rows;
        let mut seen = BTreeSet::new();
        while let Some(id) = self.unindexed.pop() {
            let parents = views.segments().get(id).map(|segment| &segment.parents[..]);
            for parent in parents.unwrap_or_default() {
                if !seen.insert(*parent) {
                    continue;
                }
                let build = views.indexes().of_index(*parent, index);
                if build.is_none_or(|(_, build)| build.state != IndexState::Finished) {
                    self.unindexed.push(*parent);
                    continue;
                }
                // One that is not compacted away is among the indexed ones already.
                let gone = views.segments().get(*parent).filter(|it| !super::is_indexable(it));
                rows += gone.map_or(0, |segment| segment.rows);
            }
        }
        rows
    }

    fn state(&self) -> IndexState {
        if self.n_failed > 0 {
            IndexState::Failed
        } else if self.n_waiting > 0 {
            IndexState::InProgress
        } else if self.n_none > 0 {
            IndexState::None
        } else {
            IndexState::Finished
        }
    }
}

fn definition_ts(views: &Views, collection: CollectionId, index: IndexId) -> u64 {
    views.indexes().definition(collection, index).map_or(0, |found| found.create_ts)
}
