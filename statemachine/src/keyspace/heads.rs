//! Narrow copies of keys, side by side, that decide most steps of a binary search without touching
//! the keys themselves.

use std::cmp::Ordering;

/// The first bytes of a key as a number that orders like them. Keys with equal heads have to be
/// compared in full.
pub(crate) fn head4(key: &[u8]) -> u32 {
    let mut head = [0; 4];
    let n_bytes = key.len().min(head.len());
    head[..n_bytes].copy_from_slice(&key[..n_bytes]);
    u32::from_be_bytes(head)
}

pub(crate) fn head8(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let n_bytes = key.len().min(head.len());
    head[..n_bytes].copy_from_slice(&key[..n_bytes]);
    u64::from_be_bytes(head)
}

/// Finds the wanted key among sorted ones, or where it would stand. `compare` compares the key at a
/// position with the wanted one.
pub(crate) fn search<H: Ord + Copy>(
    heads: &[H],
    wanted: H,
    compare: impl Fn(usize) -> Ordering,
) -> Result<usize, usize> {
    let mut low = heads.partition_point(|head| *head < wanted);
    let mut high = low + heads[low..].partition_point(|head| *head == wanted);
    while low < high {
        let middle = low.midpoint(high);
        match compare(middle) {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Ok(middle),
        }
    }
    Err(low)
}

pub(crate) fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(left, right)| left == right).count()
}
