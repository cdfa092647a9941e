//! Changes to an input, drawn from a seed.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// An input grows to this at most.
const INPUT_BYTES_MAX: usize = 4096;
/// Now and then one is made so long of a short part of it: what costs much memory for each byte is
/// seen only where the input is long.
const LONG_INPUT_BYTES: usize = 256 << 10;
const LONG_INPUTS: u32 = 512;
const REPEATED_BYTES_MAX: usize = 8;
/// Values at which decoders tend to break: ends of ranges, and heads of protobuf fields.
const BYTES: [u8; 12] = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x0a, 0x12, 0x1a, 0x22, 0x08, 0x10, 0x40];
const CHANGES_MAX: usize = 6;

/// Draws inputs.
pub(crate) struct Mutator {
    random: SmallRng,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Mutator {
        Mutator { random: SmallRng::seed_from_u64(seed) }
    }

    /// One of `inputs` with a few changes, or bytes of its own where there is none.
    pub(crate) fn draw(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs.choose(&mut self.random).cloned().unwrap_or_default();
        for _ in 0..self.random.random_range(1..=CHANGES_MAX) {
            self.change(&mut input, inputs);
        }
        input.truncate(INPUT_BYTES_MAX);
        if self.random.random_ratio(1, LONG_INPUTS) {
            self.lengthen(&mut input);
        }
        input
    }

    fn lengthen(&mut self, input: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(1..=REPEATED_BYTES_MAX)).min(input.len());
        let part = match at < end {
            true => input[at..end].to_vec(),
            // An empty field of a message.
            false => vec![*BYTES.choose(random).expect("a constant list"), 0],
        };
        let n_times = LONG_INPUT_BYTES.saturating_sub(input.len()) / part.len();
        input.splice(at..at, part.repeat(n_times));
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let random = &mut self.random;
        if input.is_empty() {
            input.extend((0..random.random_range(1..32)).map(|_| random.random::<u8>()));
            return;
        }
        let at = random.random_range(0..input.len());
        let end = (at + random.random_range(1..32_usize)).min(input.len());
        match random.random_range(0..8) {
            0 => input[at] ^= 1 << random.random_range(0..8),
            1 => input[at] = *BYTES.choose(random).expect("a constant list"),
            2 => input[at] = input[at].wrapping_add(random.random()),
            3 => drop(input.drain(at..end)),
            4 => {
                let part = input[at..end].repeat(random.random_range(1..64));
                input.splice(at..at, part);
            }
            5 => input.truncate(at),
            6 => {
                // A varint that is far too large where a length may stand.
                input.splice(at..at, [0xff, 0xff, 0xff, 0xff, random.random_range(0..0x10)]);
            }
            _ => {
                let other = inputs.choose(random).cloned().unwrap_or_default();
                let from = random.random_range(0..=other.len());
                input.splice(at..end, other[from..].iter().copied());
            }
        }
    }
}
