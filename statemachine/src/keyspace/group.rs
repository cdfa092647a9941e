//! Neighbouring blocks of the index, and the way to the right one.

use std::sync::Arc;

use crate::keyspace::block::Block;
use crate::keyspace::heads::{common_prefix, head8, search};
use crate::keyspace::meta::KeyMeta;
use crate::limits;

/// Up to [`limits::GROUP_BLOCKS_MAX`] blocks, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Invariant: none is empty. Shared with copies of the index until one of them changes it.
    blocks: Vec<Arc<Block>>,
    n_keys: usize,
    /// A copy of the first key of all, so that finding the group touches no block.
    first_key: Vec<u8>,
    /// Length of a prefix of `first_key` that the first keys of all blocks have in common.
    prefix_bytes: usize,
    /// Of each block's first key, behind the prefix.
    heads: Vec<u64>,
}

impl Group {
    pub(crate) fn with_one(key: &[u8], meta: KeyMeta) -> Group {
        let mut group = Group::default();
        group.push_block(Block::with_one(key, meta));
        group
    }

    pub(crate) fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    pub(crate) fn n_keys(&self) -> usize {
        self.n_keys
    }

    pub(crate) fn first_key(&self) -> &[u8] {
        &self.first_key
    }

    /// The last block that begins at or before `key`, which is not before the group.
    pub(crate) fn find_block(&self, key: &[u8]) -> usize {
        let Some(wanted) = key.strip_prefix(&self.first_key[..self.prefix_bytes]) else {
            return self.blocks.len() - 1;
        };
        match search(&self.heads, head8(wanted), |nth| self.blocks[nth].first_key().cmp(key)) {
            Ok(nth) => nth,
            Err(after) => after - 1,
        }
    }

    pub(crate) fn set_meta(&mut self, block: usize, position: usize, meta: KeyMeta) -> KeyMeta {
        self.block_mut(block).set_meta(position, meta)
    }

    fn block_mut(&mut self, nth: usize) -> &mut Block {
        Arc::make_mut(&mut self.blocks[nth])
    }

    /// Puts a new key where the search said it would stand.
    pub(crate) fn insert(&mut self, nth: usize, position: usize, key: &[u8], meta: KeyMeta) {
        self.n_keys += 1;
        let block = Arc::make_mut(&mut self.blocks[nth]);
        if block.len() < limits::BLOCK_KEYS_MAX {
            block.insert(position, key, meta);
            if position == 0 {
                self.first_key_changed(nth);
            }
            return;
        }
        // Ascending keys fill blocks to the end; a split in the middle would leave them half empty.
        let right = if position == block.len() {
            Block::with_one(key, meta)
        } else {
            let middle = block.len() / 2;
            let mut right = block.split_off(middle);
            if position <= middle {
                block.insert(position, key, meta);
            } else {
                right.insert(position - middle, key, meta);
            }
            right
        };
        self.insert_block(nth + 1, right);
        if position == 0 {
            self.first_key_changed(nth);
        }
    }

    pub(crate) fn remove(&mut self, nth: usize, position: usize) -> KeyMeta {
        self.n_keys -= 1;
        let block = Arc::make_mut(&mut self.blocks[nth]);
        let meta = block.remove(position);
        if block.is_empty() {
            self.remove_block(nth);
            return meta;
        }
        let is_small = block.len() < limits::BLOCK_KEYS_MIN;
        if position == 0 {
            self.first_key_changed(nth);
        }
        if is_small {
            self.merge_block(nth);
        }
        meta
    }

    /// Appends a key that is greater than all others.
    pub(crate) fn append(&mut self, key: &[u8], meta: KeyMeta) {
        self.n_keys += 1;
        match self.blocks.last_mut() {
            Some(block) if block.len() < limits::BLOCK_KEYS_MAX => {
                Arc::make_mut(block).append(key, meta);
            }
            Some(_) | None => self.insert_block(self.blocks.len(), Block::with_one(key, meta)),
        }
    }

    /// Cuts in the middle, or where keys ascend before the last block.
    pub(crate) fn split(&mut self, inserted_after: usize) -> Group {
        let at = if inserted_after + 2 >= self.blocks.len() {
            self.blocks.len() - 1
        } else {
            self.blocks.len() / 2
        };
        let mut right = Group { blocks: self.blocks.split_off(at), ..Group::default() };
        right.n_keys = right.blocks.iter().map(|block| block.len()).sum();
        self.n_keys -= right.n_keys;
        right.rebuild_heads();
        self.rebuild_heads();
        right
    }

    /// Takes over the blocks of the group right behind.
    pub(crate) fn merge(&mut self, right: Group) {
        self.n_keys += right.n_keys;
        self.blocks.extend(right.blocks);
        self.rebuild_heads();
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let spare_blocks = self.blocks.capacity() - self.blocks.len();
        size_of::<Group>()
            + self.blocks.iter().map(|block| block_bytes(block)).sum::<usize>()
            + spare_blocks * size_of::<Arc<Block>>()
            + self.heads.capacity() * size_of::<u64>()
            + self.first_key.capacity()
    }

    /// Bytes of the blocks that no copy of the index shares.
    pub(crate) fn unshared_bytes(&self) -> usize {
        let own = |block: &&Arc<Block>| Arc::strong_count(block) == 1;
        self.blocks.iter().filter(own).map(|block| block_bytes(block)).sum()
    }

    fn push_block(&mut self, block: Block) {
        self.n_keys += block.len();
        self.insert_block(self.blocks.len(), block);
    }

    fn insert_block(&mut self, nth: usize, block: Block) {
        self.blocks.insert(nth, Arc::new(block));
        self.heads.insert(nth, 0);
        self.first_key_changed(nth);
    }

    fn remove_block(&mut self, nth: usize) -> Arc<Block> {
        self.heads.remove(nth);
        let block = self.blocks.remove(nth);
        if nth == 0 && !self.blocks.is_empty() {
            self.first_key_changed(0);
        }
        block
    }

    /// A key between others has their prefix; one at either end may not.
    fn first_key_changed(&mut self, nth: usize) {
        let key = self.blocks[nth].first_key();
        match key.strip_prefix(&self.first_key[..self.prefix_bytes]) {
            Some(rest) if nth != 0 => self.heads[nth] = head8(rest),
            Some(_) | None => self.rebuild_heads(),
        }
    }

    fn rebuild_heads(&mut self) {
        let (Some(first), Some(last)) = (self.blocks.first(), self.blocks.last()) else { return };
        self.first_key.clear();
        self.first_key.extend_from_slice(first.first_key());
        self.prefix_bytes = common_prefix(&self.first_key, last.first_key());
        let head = |block: &Arc<Block>| head8(&block.first_key()[self.prefix_bytes..]);
        self.heads.clear();
        self.heads.extend(self.blocks.iter().map(head));
    }

    fn merge_block(&mut self, nth: usize) {
        let left = if nth + 1 < self.blocks.len() { nth } else { nth.saturating_sub(1) };
        let Some(right) = self.blocks.get(left + 1) else { return };
        if self.blocks[left].len() + right.len() > limits::BLOCK_KEYS_MAX * 3 / 4 {
            return;
        }
        let right = self.remove_block(left + 1);
        self.block_mut(left).merge(&right);
    }

    /// For tests: everything that is kept twice is equal.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!((1..=limits::GROUP_BLOCKS_MAX).contains(&self.blocks.len()));
        assert_eq!(self.n_keys, self.blocks.iter().map(|block| block.len()).sum::<usize>());
        assert_eq!(self.first_key, self.blocks[0].first_key());
        for (block, head) in self.blocks.iter().zip(&self.heads) {
            assert!((1..=limits::BLOCK_KEYS_MAX).contains(&block.len()));
            let rest = block.first_key().strip_prefix(&self.first_key[..self.prefix_bytes]);
            assert_eq!(*head, head8(rest.expect("the prefix is common to all")));
            block.check();
        }
        assert_eq!(self.blocks.len(), self.heads.len());
    }
}

/// Of a block on the heap, with its counts of references and the pointer to it.
fn block_bytes(block: &Block) -> usize {
    block.memory_bytes() + 3 * size_of::<usize>()
}
