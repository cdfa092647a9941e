//! Sorted index of the live keys.
//!
//! Two levels: groups of blocks of keys. Both carry their counts, so counting a range walks groups
//! and not keys. There is no allocation a key; see `block`.
//!
//! A copy is cheap: groups and blocks are shared until the copy or the original changes one, which
//! then copies that block alone. So the index of a past revision can be kept beside the newest.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::keyspace::group::Group;
use crate::keyspace::key_range::{End, KeyRange};
use crate::keyspace::meta::KeyMeta;
use crate::limits;

/// Called for each key; `Break` ends the walk.
pub(crate) type VisitKey<'a> = dyn FnMut(&[u8], &KeyMeta) -> ControlFlow<()> + 'a;

#[derive(Clone, Debug, Default)]
pub(crate) struct KeyIndex {
    /// Invariant: no group and no block is empty, all keys ascend.
    groups: Vec<Arc<Group>>,
    n_keys: usize,
}

/// A key's place, or where it would stand. In an empty index: all zero.
#[derive(Clone, Copy, Debug)]
struct Place {
    group: usize,
    block: usize,
    position: usize,
}

impl KeyIndex {
    pub(crate) fn len(&self) -> usize {
        self.n_keys
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyMeta> {
        let place = self.find(key).ok()?;
        Some(self.groups[place.group].blocks()[place.block].meta(place.position))
    }

    /// The meta that stood there before.
    pub(crate) fn insert(&mut self, key: &[u8], meta: KeyMeta) -> Option<KeyMeta> {
        let place = match self.find(key) {
            Ok(place) => {
                let group = Arc::make_mut(&mut self.groups[place.group]);
                return Some(group.set_meta(place.block, place.position, meta));
            }
            Err(place) => place,
        };
        self.n_keys += 1;
        let Some(group) = self.groups.get_mut(place.group) else {
            self.groups.push(Arc::new(Group::with_one(key, meta)));
            return None;
        };
        let group = Arc::make_mut(group);
        group.insert(place.block, place.position, key, meta);
        if group.blocks().len() > limits::GROUP_BLOCKS_MAX {
            let right = group.split(place.block);
            self.groups.insert(place.group + 1, Arc::new(right));
        }
        None
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<KeyMeta> {
        let place = self.find(key).ok()?;
        self.n_keys -= 1;
        let group = Arc::make_mut(&mut self.groups[place.group]);
        let meta = group.remove(place.block, place.position);
        if group.blocks().is_empty() {
            self.groups.remove(place.group);
        } else if group.blocks().len() < limits::GROUP_BLOCKS_MIN {
            self.merge_group(place.group);
        }
        Some(meta)
    }

    /// Appends a key that is greater than all others; for loading.
    pub(crate) fn append(&mut self, key: &[u8], meta: KeyMeta) {
        self.n_keys += 1;
        match self.groups.last_mut() {
            Some(group) if group.blocks().len() < limits::GROUP_BLOCKS_MAX => {
                Arc::make_mut(group).append(key, meta);
            }
            Some(_) | None => self.groups.push(Arc::new(Group::with_one(key, meta))),
        }
    }

    /// Number of keys in a range, by sums of blocks.
    pub(crate) fn count(&self, range: &KeyRange<'_>) -> usize {
        if range.is_empty() {
            return 0;
        }
        let before_end = match range.end {
            End::Single => return usize::from(self.get(range.start).is_some()),
            End::Before(end) => self.rank(end),
            End::Unbounded => self.n_keys,
        };
        before_end - self.rank(range.start)
    }

    /// Number of keys less than `key`.
    fn rank(&self, key: &[u8]) -> usize {
        let (Ok(place) | Err(place)) = self.find(key);
        let Some(group) = self.groups.get(place.group) else { return 0 };
        let in_groups: usize = self.groups[..place.group].iter().map(|group| group.n_keys()).sum();
        let in_blocks: usize = group.blocks()[..place.block].iter().map(|block| block.len()).sum();
        in_groups + in_blocks + place.position
    }

    /// Visits the keys of a range in order.
    pub(crate) fn visit(&self, range: &KeyRange<'_>, visit: &mut VisitKey<'_>) {
        if range.is_empty() {
            return;
        }
        let (Ok(first) | Err(first)) = self.find(range.start);
        let mut key = Vec::new();
        for (nth_group, group) in self.groups.iter().enumerate().skip(first.group) {
            let in_first = nth_group == first.group;
            let skipped = if in_first { first.block } else { 0 };
            for (nth_block, block) in group.blocks().iter().enumerate().skip(skipped) {
                let start = if in_first && nth_block == first.block { first.position } else { 0 };
                for position in start..block.len() {
                    block.read_key(position, &mut key);
                    if range.is_before(&key) || visit(&key, block.meta(position)).is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Visits the keys of a range against their order.
    pub(crate) fn visit_backward(&self, range: &KeyRange<'_>, visit: &mut VisitKey<'_>) {
        if range.is_empty() {
            return;
        }
        let mut rank = match range.end {
            End::Single => return self.visit(range, visit),
            End::Before(end) => self.rank(end),
            End::Unbounded => self.n_keys,
        };
        let mut key = Vec::new();
        let mut groups_end = self.n_keys;
        for group in self.groups.iter().rev() {
            let mut block_start = groups_end;
            groups_end -= group.n_keys();
            if groups_end >= rank {
                continue;
            }
            for block in group.blocks().iter().rev() {
                block_start -= block.len();
                while rank > block_start {
                    rank -= 1;
                    block.read_key(rank - block_start, &mut key);
                    if key.as_slice() < range.start
                        || visit(&key, block.meta(rank - block_start)).is_break()
                    {
                        return;
                    }
                }
            }
        }
    }

    /// All keys in order, for comparisons in tests.
    pub(crate) fn to_vec(&self) -> Vec<(Vec<u8>, KeyMeta)> {
        let mut all = Vec::with_capacity(self.n_keys);
        self.visit(&KeyRange::ALL, &mut |key, meta| {
            all.push((key.to_vec(), *meta));
            ControlFlow::Continue(())
        });
        all
    }

    /// Bytes on the heap, keys included.
    pub(crate) fn memory_bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| group.memory_bytes()).sum();
        groups + self.groups.capacity() * size_of::<Arc<Group>>()
    }

    /// Bytes on the heap that no other copy of this index shares, about: what dropping it frees.
    pub(crate) fn unshared_bytes(&self) -> usize {
        let own = self.groups.iter().filter(|group| Arc::strong_count(group) == 1);
        own.map(|group| group.unshared_bytes()).sum()
    }

    fn find(&self, key: &[u8]) -> Result<Place, Place> {
        let group = self.groups.partition_point(|group| group.first_key() <= key);
        let Some(group) = group.checked_sub(1) else {
            return Err(Place { group: 0, block: 0, position: 0 });
        };
        let block = self.groups[group].find_block(key);
        match self.groups[group].blocks()[block].find(key) {
            Ok(position) => Ok(Place { group, block, position }),
            Err(position) => Err(Place { group, block, position }),
        }
    }

    fn merge_group(&mut self, nth: usize) {
        let left = if nth + 1 < self.groups.len() { nth } else { nth.saturating_sub(1) };
        let Some(right) = self.groups.get(left + 1) else { return };
        let n_blocks = self.groups[left].blocks().len() + right.blocks().len();
        if n_blocks > limits::GROUP_BLOCKS_MAX * 3 / 4 {
            return;
        }
        let right = self.groups.remove(left + 1);
        Arc::make_mut(&mut self.groups[left]).merge(Arc::unwrap_or_clone(right));
    }
}

#[cfg(test)]
mod tests;
