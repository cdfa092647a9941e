//! Segments by what they have in common: a walk through a group of a few finds them without a look
//! into the table of all.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::{SegmentKey, last_of};
use crate::view::SegmentId;

/// Ascending ids within each group; no group is empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grouped<G, M> {
    groups: BTreeMap<G, BTreeMap<SegmentKey, M>>,
}

impl<G, M> Default for Grouped<G, M> {
    fn default() -> Grouped<G, M> {
        Grouped { groups: BTreeMap::new() }
    }
}

impl<G: Ord, M> Grouped<G, M> {
    pub(super) fn insert(&mut self, group: G, key: SegmentKey, member: M) {
        self.groups.entry(group).or_default().insert(key, member);
    }

    pub(super) fn get_mut(&mut self, group: &G, key: &SegmentKey) -> Option<&mut M> {
        self.groups.get_mut(group)?.get_mut(key)
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
    ) -> impl Iterator<Item = (SegmentId, &'a M)> + use<'a, G, M, Q>
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
    ) -> impl Iterator<Item = (SegmentId, &'a M)> + use<'a, G, M, Q>
    where
        G: Borrow<Q>,
    {
        let above = (Bound::Excluded(last_of(after)), Bound::Unbounded);
        let members = self.groups.get(group).map(|members| members.range(above));
        members.into_iter().flatten().map(told)
    }

    /// Group by group.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentId, &M)> {
        self.groups.values().flatten().map(told)
    }
}

fn told<'a, M>((key, member): (&SegmentKey, &'a M)) -> (SegmentId, &'a M) {
    (key.0, member)
}
