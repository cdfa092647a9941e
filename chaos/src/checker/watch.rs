//! Did every single watch keep the promises of the API?

use std::collections::BTreeSet;

use super::{Findings, Violation};
use crate::history::{Change, Timeline, WatchRun};

/// Checks that each watch was ordered, unique, atomic, reliable, resumable, bookmarkable, and that
/// previous values are those of the revision before.
#[must_use]
pub fn check(watches: &[WatchRun], timeline: &Timeline) -> Vec<Violation> {
    let mut findings = Findings::new("watch");
    for watch in watches {
        ordered(watch, &mut findings);
        reliable(watch, timeline, &mut findings);
        if watch.with_previous {
            previous(watch, timeline, &mut findings);
        }
    }
    findings.violations
}

/// Revisions never fall, none is split over two answers, none shows a key twice, and nothing comes
/// at or below a revision that a header without events has promised.
fn ordered(watch: &WatchRun, findings: &mut Findings) {
    let name = &watch.watcher;
    let mut delivered = watch.start_revision - 1;
    let mut promised = watch.start_revision - 1;
    for batch in &watch.batches {
        let (Some(first), Some(last)) = (batch.changes.first(), batch.changes.last()) else {
            if batch.header_revision < delivered.max(promised) {
                findings.add(format!(
                    "{name}: progress went back to {} after {}",
                    batch.header_revision,
                    delivered.max(promised)
                ));
            }
            promised = promised.max(batch.header_revision);
            continue;
        };
        if first.revision <= delivered {
            findings.add(format!(
                "{name}: revision {} came in an answer after revision {delivered}",
                first.revision
            ));
        }
        if first.revision <= promised {
            findings.add(format!(
                "{name}: revision {} came after progress to {promised}",
                first.revision
            ));
        }
        if batch.header_revision < last.revision {
            findings.add(format!(
                "{name}: header revision {} below its event's {}",
                batch.header_revision, last.revision
            ));
        }
        let mut seen = BTreeSet::new();
        for pair in batch.changes.windows(2) {
            if pair[1].revision < pair[0].revision {
                findings.add(format!(
                    "{name}: revision {} came after {}",
                    pair[1].revision, pair[0].revision
                ));
            }
        }
        for change in &batch.changes {
            if !seen.insert((change.revision, &change.key)) {
                findings.add(format!("{name}: {} twice at {}", change.key, change.revision));
            }
        }
        delivered = delivered.max(last.revision);
    }
}

/// Between its start and the last thing it showed, a watch showed every change of its keys.
fn reliable(watch: &WatchRun, timeline: &Timeline, findings: &mut Findings) {
    let shown: Vec<&Change> = watch.batches.iter().flat_map(|it| &it.changes).collect();
    let last = watch
        .batches
        .iter()
        .map(|batch| batch.changes.last().map_or(batch.header_revision, |it| it.revision))
        .max()
        .unwrap_or(0);
    let found: BTreeSet<(i64, &str)> =
        shown.iter().map(|change| (change.revision, change.key.as_str())).collect();
    for change in timeline.changes(&watch.prefix, watch.start_revision, last) {
        if !found.contains(&(change.revision, change.key.as_str())) {
            findings.add(format!(
                "{} from {} on node {} missed {} at {} but went on to {last}",
                watch.watcher, watch.start_revision, watch.node, change.key, change.revision
            ));
        }
    }
    for change in shown {
        if !change.key.starts_with(&watch.prefix) {
            findings.add(format!("{} got {}, not its own", watch.watcher, change.key));
        }
    }
}

fn previous(watch: &WatchRun, timeline: &Timeline, findings: &mut Findings) {
    let changes = watch
        .batches
        .iter()
        .flat_map(|batch| batch.changes.iter().map(|change| (change, batch.compaction_asked)));
    for (change, compaction_asked) in changes {
        let expected = timeline.at(&change.key, change.revision - 1);
        // The moment before the compacted revision is gone, as in etcd.
        let is_compacted = change.previous.is_none() && change.revision <= compaction_asked;
        if change.previous.as_ref() != expected && !is_compacted {
            findings.add(format!(
                "{}: before {} at {} was {expected:?}, not {:?}",
                watch.watcher, change.key, change.revision, change.previous
            ));
        }
    }
}
