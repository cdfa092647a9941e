//! Whether a file is named by a record or may yet be, as a pure function of the views. The names
//! themselves are in the store: a claim says when to look there.

use std::collections::BTreeSet;

use proto::milvus::common::{IndexState, SegmentState};
use statemachine::Views;
use statemachine::view::{BuildId, SegmentId};

use super::path::{IndexPath, LogPath};

/// What the views say about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It stays, because of that.
    Keep(&'static str),
    /// It is garbage unless the records name it.
    UnlessNamed,
    /// It is garbage.
    Orphan,
}

/// Partitions in which a compaction may be writing a segment that nobody knows yet.
pub(super) fn busy_partitions(views: &Views) -> BTreeSet<(i64, i64)> {
    views.plans().running().map(|(_, plan)| (plan.task.collection, plan.task.partition)).collect()
}

pub(super) fn claim_of_log(views: &Views, busy: &BTreeSet<(i64, i64)>, log: &LogPath) -> Claim {
    let id = SegmentId(log.segment);
    let Some(segment) = views.segments().get(id) else {
        return if views.segments().is_known(id) {
            Claim::Keep("segment that does not decode")
        } else if busy.contains(&(log.collection, log.partition)) {
            Claim::Keep("compaction under way")
        } else {
            Claim::Orphan
        };
    };
    match segment.state {
        SegmentState::Growing
        | SegmentState::Sealed
        | SegmentState::Flushing
        | SegmentState::Importing
        | SegmentState::None
        | SegmentState::NotExist => Claim::Keep("segment being written"),
        SegmentState::Flushed | SegmentState::Dropped => {
            if segment.is_importing {
                Claim::Keep("import under way")
            } else if views.plans().of_input(id).is_some() {
                Claim::Keep("compaction under way")
            } else {
                Claim::UnlessNamed
            }
        }
    }
}

pub(super) fn claim_of_index_file(views: &Views, file: &IndexPath<'_>) -> Claim {
    let id = BuildId(file.build);
    let Some(build) = views.indexes().build(id) else {
        return if views.indexes().is_known(id) {
            Claim::Keep("build that does not decode")
        } else {
            Claim::Orphan
        };
    };
    match build.state {
        IndexState::Finished if file.version == build.version => Claim::UnlessNamed,
        IndexState::Finished if file.version < build.version => Claim::Orphan,
        IndexState::Finished => Claim::Keep("attempt that is not on record"),
        IndexState::None
        | IndexState::Unissued
        | IndexState::InProgress
        | IndexState::Failed
        | IndexState::Retry => Claim::Keep("index being built"),
    }
}
