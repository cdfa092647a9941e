//! The Huffman code of RFC 7541, appendix B. It is canonical: the lengths say everything.

use super::HpackError;

/// Bits of the code of each byte, and last of the mark of the end.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const LENGTH_MAX: usize = 30;

/// The codes of one length are consecutive numbers.
struct Code {
    /// By length: the first code, and how many there are.
    first: [u32; LENGTH_MAX + 1],
    count: [u32; LENGTH_MAX + 1],
    /// By length: where its symbols begin in `symbols`.
    begin: [usize; LENGTH_MAX + 1],
    /// Ordered by length, then by value.
    symbols: [usize; 257],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code {
        first: [0; LENGTH_MAX + 1],
        count: [0; LENGTH_MAX + 1],
        begin: [0; LENGTH_MAX + 1],
        symbols: [0; 257],
    };
    let mut n_symbols = 0;
    let mut next = 0;
    let mut length = 1;
    while length <= LENGTH_MAX {
        next <<= 1;
        code.first[length] = next;
        code.begin[length] = n_symbols;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[n_symbols] = symbol;
                n_symbols += 1;
                code.count[length] += 1;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}

/// # Errors
/// The bytes are no such code, or hold more than `bytes_max`.
pub(super) fn decode(coded: &[u8], bytes_max: usize) -> Result<Vec<u8>, HpackError> {
    // The shortest code has five bits.
    let mut decoded = Vec::with_capacity((coded.len() * 8 / 5).min(bytes_max));
    let (mut bits, mut length) = (0_u32, 0);
    for byte in coded {
        for shift in (0..8).rev() {
            bits = bits << 1 | u32::from(byte >> shift & 1);
            length += 1;
            let Some(at) = bits.checked_sub(CODE.first[length]) else { continue };
            if at >= CODE.count[length] {
                if length == LENGTH_MAX {
                    return Err(HpackError::Huffman);
                }
                continue;
            }
            let symbol = CODE.symbols[CODE.begin[length] + at as usize];
            // The mark of the end is not a byte.
            let byte = u8::try_from(symbol).map_err(|_end| HpackError::Huffman)?;
            if decoded.len() == bytes_max {
                return Err(HpackError::TooLarge(bytes_max));
            }
            decoded.push(byte);
            (bits, length) = (0, 0);
        }
    }
    // What is left is the beginning of the mark of the end: less than a byte, and only ones.
    match length < 8 && bits == (1 << length) - 1 {
        true => Ok(decoded),
        false => Err(HpackError::Huffman),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_complete() {
        // Kraft: every string of bits is the beginning of a code.
        let sum: u64 = LENGTHS.iter().map(|length| 1_u64 << (LENGTH_MAX - *length as usize)).sum();
        assert_eq!(sum, 1 << LENGTH_MAX);
        // The mark of the end comes last.
        assert_eq!(CODE.symbols[256], 256);
        assert_eq!(CODE.first[5], 0);
        // As the RFC lists them: '&', 'X', 0xff.
        let code = |symbol: usize| {
            let length = LENGTHS[symbol] as usize;
            let begin = CODE.begin[length];
            let at = CODE.symbols[begin..].iter().position(|it| *it == symbol).unwrap();
            (CODE.first[length] + u32::try_from(at).unwrap(), length)
        };
        assert_eq!(code(b'&'.into()), (0xf8, 8));
        assert_eq!(code(b'X'.into()), (0xfc, 8));
        assert_eq!(code(0xff), (0x03ff_ffee, 26));
    }
}
