//! Finds who is interested in a key: exact keys by hash, spans by an interval tree in an array.

use std::collections::HashMap;

use bytes::Bytes;

use super::range::KeyRange;

/// Values by the range of keys that they care for; one value a range.
#[derive(Debug)]
pub(crate) struct RangeIndex<V> {
    slots: Vec<Option<(KeyRange, V)>>,
    free: Vec<usize>,
    exact: HashMap<Bytes, usize>,
    spans: Spans,
}

/// Names a value until it is removed.
pub(crate) type Slot = usize;

impl<V> Default for RangeIndex<V> {
    fn default() -> Self {
        RangeIndex {
            slots: Vec::new(),
            free: Vec::new(),
            exact: HashMap::new(),
            spans: Spans::default(),
        }
    }
}

impl<V> RangeIndex<V> {
    /// The value of exactly `range`, made by `default` where there is none yet.
    pub(crate) fn entry(&mut self, range: &KeyRange, default: impl FnOnce() -> V) -> &mut V {
        let slot = match self.find(range) {
            Some(slot) => slot,
            None => self.insert(range.clone(), default()),
        };
        self.value_mut(slot).expect("the slot was just found or filled")
    }

    pub(crate) fn get_mut(&mut self, range: &KeyRange) -> Option<&mut V> {
        let slot = self.find(range)?;
        self.value_mut(slot)
    }

    pub(crate) fn value(&self, slot: Slot) -> Option<&V> {
        self.slots.get(slot)?.as_ref().map(|(_, value)| value)
    }

    fn value_mut(&mut self, slot: Slot) -> Option<&mut V> {
        self.slots.get_mut(slot)?.as_mut().map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, range: &KeyRange) -> Option<V> {
        let slot = self.find(range)?;
        match range {
            KeyRange::Key(key) => {
                self.exact.remove(key);
            }
            KeyRange::Span { start, end } => self.spans.remove(start, end.as_ref()),
        }
        self.free.push(slot);
        self.slots[slot].take().map(|(_, value)| value)
    }

    /// In the order in which they were taken, where none was given back.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        let taken = self.slots.iter().enumerate().filter(|(_, value)| value.is_some());
        taken.map(|(slot, _)| slot)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().flatten().map(|(_, value)| value)
    }

    /// Calls `visit` with the slot of every range that holds `key`, in no order.
    pub(crate) fn matching(&mut self, key: &[u8], mut visit: impl FnMut(Slot)) {
        if let Some(slot) = self.exact.get(key) {
            visit(*slot);
        }
        self.spans.stab(key, &mut visit);
    }

    fn find(&self, range: &KeyRange) -> Option<Slot> {
        match range {
            KeyRange::Key(key) => self.exact.get(key).copied(),
            KeyRange::Span { start, end } => self.spans.find(start, end.as_ref()),
        }
    }

    fn insert(&mut self, range: KeyRange, value: V) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        match &range {
            KeyRange::Key(key) => {
                self.exact.insert(key.clone(), slot);
            }
            KeyRange::Span { start, end } => self.spans.insert(start.clone(), end.clone(), slot),
        }
        self.slots[slot] = Some((range, value));
        slot
    }
}

/// Spans sorted by (start, end) with, over them, a tree of the largest end below each node.
///
/// Ranges change rarely against how often keys are looked up, so a change only marks the tree, and
/// the next look-up builds it again.
#[derive(Debug, Default)]
struct Spans {
    sorted: Vec<Span>,
    /// An implicit binary tree, `tree[1]` its root: the latest end below the node.
    tree: Vec<Option<End>>,
    /// Leaves of the tree: a power of two.
    n_leaves: usize,
    stale: bool,
}

#[derive(Debug)]
struct Span {
    start: Bytes,
    end: End,
    slot: Slot,
}

/// Sorts after every bounded end where it is open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Open,
}

impl End {
    fn of(end: Option<&Bytes>) -> End {
        end.map_or(End::Open, |end| End::Before(end.clone()))
    }

    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < end.as_ref(),
            End::Open => true,
        }
    }
}

impl Spans {
    fn position(&self, start: &Bytes, end: &End) -> Result<usize, usize> {
        self.sorted.binary_search_by(|span| span.start.cmp(start).then_with(|| span.end.cmp(end)))
    }

    fn find(&self, start: &Bytes, end: Option<&Bytes>) -> Option<Slot> {
        self.position(start, &End::of(end)).ok().map(|at| self.sorted[at].slot)
    }

    fn insert(&mut self, start: Bytes, end: Option<Bytes>, slot: Slot) {
        let end = End::of(end.as_ref());
        match self.position(&start, &end) {
            Ok(at) => self.sorted[at].slot = slot,
            Err(at) => self.sorted.insert(at, Span { start, end, slot }),
        }
        self.stale = true;
    }

    fn remove(&mut self, start: &Bytes, end: Option<&Bytes>) {
        if let Ok(at) = self.position(start, &End::of(end)) {
            self.sorted.remove(at);
            self.stale = true;
        }
    }

    fn stab(&mut self, key: &[u8], visit: &mut impl FnMut(Slot)) {
        if self.sorted.is_empty() {
            return;
        }
        if self.stale {
            self.build();
        }
        let n_started = self.sorted.partition_point(|span| span.start.as_ref() <= key);
        self.descend(1, 0, self.n_leaves, n_started, key, visit);
    }

    /// Visits what lies in `[low, high)` of the sorted spans, below `node`, starts among the first
    /// `n_started` and ends after `key`.
    fn descend(
        &self,
        node: usize,
        low: usize,
        high: usize,
        n_started: usize,
        key: &[u8],
        visit: &mut impl FnMut(Slot),
    ) {
        let reaches = self.tree[node].as_ref().is_some_and(|end| end.is_after(key));
        if low >= n_started || !reaches {
            return;
        }
        if high - low == 1 {
            visit(self.sorted[low].slot);
            return;
        }
        let middle = low.midpoint(high);
        self.descend(2 * node, low, middle, n_started, key, visit);
        self.descend(2 * node + 1, middle, high, n_started, key, visit);
    }

    fn build(&mut self) {
        self.n_leaves = self.sorted.len().next_power_of_two();
        self.tree.clear();
        self.tree.resize(2 * self.n_leaves, None);
        for (at, span) in self.sorted.iter().enumerate() {
            self.tree[self.n_leaves + at] = Some(span.end.clone());
        }
        for node in (1..self.n_leaves).rev() {
            self.tree[node] = self.tree[2 * node].clone().max(self.tree[2 * node + 1].clone());
        }
        self.stale = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &str, end: Option<&str>) -> KeyRange {
        KeyRange::Span {
            start: Bytes::copy_from_slice(start.as_bytes()),
            end: end.map(|end| Bytes::copy_from_slice(end.as_bytes())),
        }
    }

    fn hits(index: &mut RangeIndex<String>, key: &str) -> Vec<String> {
        let mut slots = Vec::new();
        index.matching(key.as_bytes(), |slot| slots.push(slot));
        let mut names: Vec<String> =
            slots.into_iter().map(|slot| index.value(slot).unwrap().clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn keys_and_overlapping_spans_are_found() {
        let mut index = RangeIndex::default();
        for range in [
            KeyRange::Key(Bytes::from_static(b"m")),
            span("a", Some("z")),
            span("m", Some("n")),
            span("k", None),
            span("", None),
            span("p", Some("q")),
        ] {
            let name = format!("{range:?}");
            index.entry(&range, || name);
        }
        assert_eq!(hits(&mut index, "m").len(), 5);
        assert_eq!(hits(&mut index, "b").len(), 2);
        assert_eq!(hits(&mut index, "zz").len(), 2);
        index.remove(&span("k", None));
        index.remove(&KeyRange::Key(Bytes::from_static(b"m")));
        assert_eq!(hits(&mut index, "m").len(), 3);
    }

    /// The tree against a walk over all ranges.
    #[test]
    fn the_index_agrees_with_a_plain_walk() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut index = RangeIndex::default();
        let mut all: Vec<KeyRange> = Vec::new();
        for round in 0..2_000 {
            let start = format!("{:03}", draw(200));
            let end = format!("{:03}", draw(200));
            let range = match draw(4) {
                0 => KeyRange::Key(Bytes::from(start)),
                1 => span(&start, None),
                _ if end > start => span(&start, Some(&end)),
                _ => continue,
            };
            if draw(3) == 0 && !all.is_empty() {
                let gone = all.swap_remove(round % all.len());
                assert!(index.remove(&gone).is_some());
            }
            if !all.contains(&range) {
                all.push(range.clone());
                let name = format!("{range:?}");
                index.entry(&range, || name);
            }
            let key = format!("{:03}", draw(200));
            let mut expected: Vec<String> = all
                .iter()
                .filter(|range| range.contains(key.as_bytes()))
                .map(|range| format!("{range:?}"))
                .collect();
            expected.sort();
            assert_eq!(hits(&mut index, &key), expected);
        }
    }
}
