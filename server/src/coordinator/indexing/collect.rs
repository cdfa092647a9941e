//! Removes records of indexes that nobody needs any more: what a drop left behind, and builds of
//! segments that are gone. Their files go afterwards, as files that no record names.

use proto::quorate::index_command::Kind;
use proto::quorate::{self, BuildRef};
use statemachine::view::{BuildId, CollectionId, IndexId, Views};

use crate::coordinator::{Failure, Lead};

/// Builds looked at under one lock, and removed by one command at most.
const SLICE: usize = 2048;

/// How many records went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub(crate) n_indexes: usize,
    pub(crate) n_builds: usize,
}

/// Definitions that are marked deleted, then builds without a segment or a definition. Part of a
/// round of garbage collection.
///
/// # Errors
/// Whatever kept a command from being carried out; the next round goes on.
pub(crate) async fn collect(lead: &Lead) -> Result<Collected, Failure> {
    let mut collected = Collected::default();
    let dead = lead.local().read(|state| dead_indexes(state.views()));
    for (collection, index) in dead {
        let remove = quorate::RemoveIndexes { collection: collection.0, indexes: vec![index.0] };
        let done = lead.propose_index(Kind::RemoveIndexes(remove)).await?;
        collected.n_indexes += done.changed.len();
    }
    let mut after = Some(BuildId(i64::MIN));
    while let Some(from) = after {
        let (dead, next) = lead.local().read(|state| dead_builds(state.views(), from, SLICE));
        after = next;
        if !dead.is_empty() {
            let remove = quorate::RemoveBuilds { builds: dead };
            let done = lead.propose_index(Kind::RemoveBuilds(remove)).await?;
            collected.n_builds += done.changed.len();
        }
    }
    if collected != Collected::default() {
        let Collected { n_indexes, n_builds } = collected;
        tracing::info!(n_indexes, n_builds, "records of indexes collected");
    }
    Ok(collected)
}

/// Definitions that are marked deleted.
fn dead_indexes(views: &Views) -> Vec<(CollectionId, IndexId)> {
    let definitions = views.indexes().definitions().decoded();
    definitions.filter(|(_, definition)| definition.is_deleted).map(|(key, _)| *key).collect()
}

/// Of the next `n` builds above `after`, those whose segment or definition is gone; and where to go
/// on from, `None` at the end.
fn dead_builds(views: &Views, after: BuildId, n: usize) -> (Vec<BuildRef>, Option<BuildId>) {
    let mut dead = Vec::new();
    let (mut last, mut n_seen) = (None, 0);
    for (id, build) in views.indexes().builds_after(after).take(n) {
        (last, n_seen) = (Some(id), n_seen + 1);
        let definition = views.indexes().definition(build.collection, build.index);
        let has_index = definition.is_some_and(|found| !found.is_deleted);
        if !has_index || build.is_deleted || views.segments().get(build.segment).is_none() {
            dead.push(build.reference(id));
        }
    }
    (dead, last.filter(|_| n_seen == n))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::coordinator::indexing::tests::{Shelf, pairs};

    #[test]
    fn records_go_with_their_index_or_their_segment() {
        let mut shelf = Shelf::new();
        shelf.index(10, 101, &pairs("HNSW"));
        shelf.index(11, 102, &pairs("Trie"));
        shelf.drop_index(11);
        shelf.segment(5, 2000, "Flushed");
        shelf.build(20, 5, 10, "Finished");
        shelf.build(21, 5, 11, "Finished");
        shelf.build(22, 6, 10, "InProgress");
        shelf.build(23, 5, 12, "Unissued");
        expect!["[(CollectionId(1), IndexId(11))]"]
            .assert_eq(&format!("{:?}", dead_indexes(&shelf.views)));
        let ids = |builds: &[BuildRef]| builds.iter().map(|one| one.build).collect::<Vec<_>>();
        let (dead, next) = dead_builds(&shelf.views, BuildId(0), 10);
        assert_eq!((ids(&dead), next), (vec![21, 22, 23], None));
        let (dead, next) = dead_builds(&shelf.views, BuildId(0), 2);
        assert_eq!((ids(&dead), next), (vec![21], Some(BuildId(21))));
        let (dead, next) = dead_builds(&shelf.views, BuildId(21), 2);
        assert_eq!((ids(&dead), next), (vec![22, 23], Some(BuildId(23))));
        assert_eq!(dead_builds(&shelf.views, BuildId(23), 2), (vec![], None));
    }
}
