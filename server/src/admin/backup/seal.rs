//! The end that etcd's tools expect of a snapshot: zeros up to a multiple of 512 bytes, then 32
//! bytes of hash. A backup that came through the etcd API has it; one that we wrote does not.

use bytes::Bytes;

const ALIGN_BYTES: usize = 512;
const HASH_BYTES: usize = blake3::OUT_LEN;

/// More than this never belongs to a seal.
pub(crate) const SEAL_BYTES_MAX: usize = ALIGN_BYTES + HASH_BYTES;

/// Follows the bytes of a file to its end.
#[derive(Default)]
pub(crate) struct Sealer {
    hasher: blake3::Hasher,
    n_bytes: usize,
}

impl Sealer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.n_bytes += bytes.len();
    }

    /// What makes a snapshot of the bytes so far.
    pub(crate) fn seal(mut self) -> Bytes {
        let mut seal = vec![0; self.n_bytes.next_multiple_of(ALIGN_BYTES) - self.n_bytes];
        self.hasher.update(&seal);
        seal.extend_from_slice(self.hasher.finalize().as_bytes());
        Bytes::from(seal)
    }
}

/// Whether `rest` seals a file whose bytes before it went through `hasher`.
pub(crate) fn is_seal(mut hasher: blake3::Hasher, rest: &[u8]) -> bool {
    let Some((zeros, hash)) = rest.split_last_chunk::<HASH_BYTES>() else { return false };
    hasher.update(zeros);
    zeros.len() < ALIGN_BYTES
        && zeros.iter().all(|byte| *byte == 0)
        && hasher.finalize().as_bytes() == hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_has_the_size_that_etcdctl_asks_for() {
        for n_bytes in [0, 1, 511, 512, 513, 1411] {
            let mut sealer = Sealer::default();
            sealer.push(&vec![7; n_bytes]);
            let seal = sealer.seal();
            assert_eq!((n_bytes + seal.len()) % 512, 32);
            let mut hasher = blake3::Hasher::new();
            hasher.update(&vec![7; n_bytes]);
            assert!(is_seal(hasher.clone(), &seal));
            let mut edited = seal.to_vec();
            edited[0] ^= 1;
            assert!(!is_seal(hasher.clone(), &edited));
            assert!(!is_seal(hasher, &seal[1..]));
        }
    }
}
