//! Segments by what they have in common: a walk through a group of a few finds them without a look
//! into the table of all.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Segment, SegmentKey, last_of};
use crate::view::SegmentId;

/// Ascending ids within each group; no group is empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grouped<G> {
    groups: BTreeMap<G, BTreeMap<SegmentKey, Arc<Segment>>>,
}

impl<G> Default for Grouped<G> {
    fn default() -> Grouped<G> {
        Grouped { groups: BTreeMap::new() }
    }
}

impl<G: Ord> Grouped<G> {
    pub(super) fn insert(&mut self, group: G, key: SegmentKey, segment: &Arc<Segment>) {
        self.groups.entry(group).or_default().insert(key, Arc::clone(segment));
    }

    pub(super) fn remove(&mut self, group: &G, key: &SegmentKey) {
        let Some(members) = self.groups.get_mut(group) else { return };
        members.remove(key);
        if members.is_empty() {
            self.groups.remove(group);
        }
    }

    pub(super) fn of<'a, Q: Ord + ?Sized>(
        &'a self,
        group: &Q,
    ) -> impl Iterator<Item = (SegmentId, &'a Segment)> + use<'a, G, Q>
    where
        G: Borrow<Q>,
    {
        self.groups.get(group).into_iter().flatten().map(told)
    }

    /// Those with an id above `after`.
    pub(super) fn of_after<'a, Q: Ord + ?Sized>(
        &'a self,
        group: &Q,
        after: SegmentId,
    ) -> impl Iterator<Item = (SegmentId, &'a Segment)> + use<'a, G, Q>
    where
        G: Borrow<Q>,
    {
        let above = (Bound::Excluded(last_of(after)), Bound::Unbounded);
        let members = self.groups.get(group).map(|members| members.range(above));
        members.into_iter().flatten().map(told)
    }

    /// Group by group.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        self.groups.values().flatten().map(told)
    }
}

fn told<'a>((key, segment): (&SegmentKey, &'a Arc<Segment>)) -> (SegmentId, &'a Segment) {
    (key.0, segment)
}
