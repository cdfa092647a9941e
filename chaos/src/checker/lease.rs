//! Did a lease end before its time, or did its keys go in more than one step?

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Violation};
use crate::history::{History, Timeline};

/// What the lease checker found, and how many leases it could judge.
#[derive(Debug)]
pub struct LeaseVerdict {
    pub violations: Vec<Violation>,
    pub n_checked: usize,
}

/// A lease whose owner was last heard at `t` must not end before `t + ttl`: nobody may have seen
/// the revision of its end before then. Revoked leases may end at any time.
#[must_use]
pub fn check(history: &History, timeline: &Timeline) -> LeaseVerdict {
    let mut findings = Findings::new("lease");
    let seen_first = first_sight(history);
    let ended = ends(timeline);
    let mut n_checked = 0;
    for lease in &history.leases {
        let due_us = lease.renewed_us + u64::try_from(lease.ttl_s).unwrap_or(0) * 1_000_000;
        if let Some(denied_us) = lease.denied_us
            && !lease.revoke_asked
            && denied_us < due_us
        {
            findings.add(format!(
                "a keep-alive was told that lease {:x} (ttl {} s) is gone {} ms early",
                lease.lease,
                lease.ttl_s,
                (due_us - denied_us) / 1000
            ));
        }
        let Some(ends) = ended.get(&lease.lease) else {
            continue;
        };
        n_checked += 1;
        if ends.len() > 1 {
            findings.add(format!("keys of lease {:x} went at revisions {ends:?}", lease.lease));
        }
        if lease.revoke_asked {
            continue;
        }
        for revision in ends {
            let Some((_, seen_us)) = seen_first.range(revision..).next() else {
                continue;
            };
            if *seen_us < due_us {
                findings.add(format!(
                    "lease {:x} (ttl {} s) ended at revision {revision}, seen {} ms early",
                    lease.lease,
                    lease.ttl_s,
                    (due_us - seen_us) / 1000
                ));
            }
        }
    }
    LeaseVerdict { violations: findings.violations, n_checked }
}

/// For each revision in some answer, the earliest moment at which it or a later one was seen.
fn first_sight(history: &History) -> BTreeMap<i64, u64> {
    let mut sights: BTreeMap<i64, u64> = BTreeMap::new();
    let mut note = |revision: i64, at_us: u64| {
        let earliest = sights.entry(revision).or_insert(at_us);
        *earliest = at_us.min(*earliest);
    };
    for operation in &history.operations {
        if let Some(answer) = &operation.answer {
            note(answer.revision(), operation.return_us);
        }
    }
    for batch in history.watches.iter().flat_map(|it| &it.batches) {
        batch.changes.iter().for_each(|change| note(change.revision, batch.at_us));
    }
    let mut earliest = u64::MAX;
    for at_us in sights.values_mut().rev() {
        earliest = earliest.min(*at_us);
        *at_us = earliest;
    }
    sights
}

/// The revisions at which keys that held a lease were deleted.
fn ends(timeline: &Timeline) -> BTreeMap<i64, BTreeSet<i64>> {
    let mut ends: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for (revision, changes) in &timeline.by_revision {
        for (key, change) in changes {
            if change.put.is_some() {
                continue;
            }
            if let Some(held) = timeline.at(key, revision - 1)
                && held.lease != 0
            {
                ends.entry(held.lease).or_default().insert(*revision);
            }
        }
    }
    ends
}
