//! A run of neighbouring keys of the index, stored without an allocation a key.

use crate::keyspace::heads::{common_prefix, head4, search};
use crate::keyspace::meta::KeyMeta;
use crate::limits;

/// Up to [`limits::BLOCK_KEYS_MAX`] keys, sorted. Their common prefix stands once, the suffixes
/// follow it back to back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    /// The prefix, then all suffixes.
    text: Vec<u8>,
    prefix_bytes: usize,
    /// End of each suffix in `text`.
    ends: Vec<u32>,
    /// Of each suffix.
    heads: Vec<u32>,
    metas: Vec<KeyMeta>,
}

impl Block {
    pub(crate) fn with_one(key: &[u8], meta: KeyMeta) -> Block {
        let mut block = Block::default();
        block.append_all(std::iter::once((key, meta)), key);
        block
    }

    pub(crate) fn len(&self) -> usize {
        self.metas.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.metas.is_empty()
    }

    /// Contiguous, because the first suffix follows the prefix.
    pub(crate) fn first_key(&self) -> &[u8] {
        self.ends.first().map_or(&[], |end| &self.text[..*end as usize])
    }

    pub(crate) fn meta(&self, position: usize) -> &KeyMeta {
        &self.metas[position]
    }

    pub(crate) fn set_meta(&mut self, position: usize, meta: KeyMeta) -> KeyMeta {
        std::mem::replace(&mut self.metas[position], meta)
    }

    fn prefix(&self) -> &[u8] {
        &self.text[..self.prefix_bytes]
    }

    fn suffix_start(&self, position: usize) -> usize {
        match position.checked_sub(1) {
            None => self.prefix_bytes,
            Some(before) => self.ends[before] as usize,
        }
    }

    fn suffix(&self, position: usize) -> &[u8] {
        &self.text[self.suffix_start(position)..self.ends[position] as usize]
    }

    /// Replaces `out` by the key at a position.
    pub(crate) fn read_key(&self, position: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.suffix(position));
    }

    /// The key's position, or where it would stand.
    pub(crate) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(wanted) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.len() });
        };
        search(&self.heads, head4(wanted), |nth| self.suffix(nth).cmp(wanted))
    }

    /// Puts a new key where [`Block::find`] said it would stand.
    pub(crate) fn insert(&mut self, position: usize, key: &[u8], meta: KeyMeta) {
        if !key.starts_with(self.prefix()) {
            self.shorten_prefix(common_prefix(self.prefix(), key));
        }
        let suffix = &key[self.prefix_bytes..];
        let start = self.suffix_start(position);
        let old_bytes = self.text.len();
        if self.text.capacity() - old_bytes < suffix.len() {
            self.text.reserve_exact(suffix.len() * limits::BLOCK_GROWTH_KEYS / 2 + suffix.len());
        }
        self.text.extend_from_slice(suffix);
        if start < old_bytes {
            self.text.copy_within(start..old_bytes, start + suffix.len());
            self.text[start..start + suffix.len()].copy_from_slice(suffix);
        }
        if self.metas.len() == self.metas.capacity() {
            self.metas.reserve_exact(limits::BLOCK_GROWTH_KEYS);
            self.ends.reserve_exact(limits::BLOCK_GROWTH_KEYS);
            self.heads.reserve_exact(limits::BLOCK_GROWTH_KEYS);
        }
        self.heads.insert(position, head4(suffix));
        self.ends.insert(position, text_offset(start));
        let added = text_offset(suffix.len());
        for end in &mut self.ends[position..] {
            *end += added;
        }
        self.metas.insert(position, meta);
    }

    pub(crate) fn remove(&mut self, position: usize) -> KeyMeta {
        let (start, end) = (self.suffix_start(position), self.ends[position] as usize);
        self.text.drain(start..end);
        self.ends.remove(position);
        self.heads.remove(position);
        let removed = text_offset(end - start);
        for end in &mut self.ends[position..] {
            *end -= removed;
        }
        self.metas.remove(position)
    }

    /// Moves the keys from `position` on into a block of their own.
    pub(crate) fn split_off(&mut self, position: usize) -> Block {
        let right = self.copy_of(position..self.len());
        *self = self.copy_of(0..position);
        right
    }

    /// Takes over the keys of the block right behind.
    pub(crate) fn merge(&mut self, right: &Block) {
        let mut merged = Block::default();
        let (mut first, mut last) = (Vec::new(), Vec::new());
        self.read_key(0, &mut first);
        right.read_key(right.len() - 1, &mut last);
        merged.start(common_prefix(&first, &last), &first, self.len() + right.len());
        let mut key = Vec::new();
        for block in [&*self, right] {
            for position in 0..block.len() {
                block.read_key(position, &mut key);
                merged.push(&key, block.metas[position]);
            }
        }
        *self = merged;
    }

    /// Appends a key that is greater than all others.
    pub(crate) fn append(&mut self, key: &[u8], meta: KeyMeta) {
        if self.is_empty() {
            *self = Block::with_one(key, meta);
        } else {
            self.insert(self.len(), key, meta);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Block>()
            + self.text.capacity()
            + (self.ends.capacity() + self.heads.capacity()) * size_of::<u32>()
            + self.metas.capacity() * size_of::<KeyMeta>()
    }

    /// For tests: everything that is kept twice is equal.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!((0..self.len()).all(|nth| self.heads[nth] == head4(self.suffix(nth))));
        assert!((1..self.len()).all(|nth| self.suffix(nth - 1) < self.suffix(nth)));
    }

    fn copy_of(&self, positions: std::ops::Range<usize>) -> Block {
        let mut copy = Block::default();
        let (mut key, mut last) = (Vec::new(), Vec::new());
        self.read_key(positions.start, &mut key);
        self.read_key(positions.end - 1, &mut last);
        copy.start(common_prefix(&key, &last), &key, positions.len());
        for position in positions {
            self.read_key(position, &mut key);
            copy.push(&key, self.metas[position]);
        }
        copy
    }

    fn append_all<'a>(
        &mut self,
        keys: impl ExactSizeIterator<Item = (&'a [u8], KeyMeta)>,
        prefix: &[u8],
    ) {
        self.start(prefix.len(), prefix, keys.len());
        for (key, meta) in keys {
            self.push(key, meta);
        }
    }

    fn start(&mut self, prefix_bytes: usize, first_key: &[u8], n_keys: usize) {
        self.text.extend_from_slice(&first_key[..prefix_bytes]);
        self.prefix_bytes = prefix_bytes;
        self.ends.reserve_exact(n_keys);
        self.heads.reserve_exact(n_keys);
        self.metas.reserve_exact(n_keys);
    }

    fn push(&mut self, key: &[u8], meta: KeyMeta) {
        let suffix = &key[self.prefix_bytes..];
        self.text.extend_from_slice(suffix);
        self.heads.push(head4(suffix));
        self.ends.push(text_offset(self.text.len()));
        self.metas.push(meta);
    }

    fn shorten_prefix(&mut self, prefix_bytes: usize) {
        let mut wider = Block::default();
        let mut key = Vec::new();
        self.read_key(0, &mut key);
        wider.start(prefix_bytes, &key, self.len() + limits::BLOCK_GROWTH_KEYS);
        for position in 0..self.len() {
            self.read_key(position, &mut key);
            wider.push(&key, self.metas[position]);
        }
        *self = wider;
    }
}

fn text_offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a block holds few keys, each bounded by a request")
}
