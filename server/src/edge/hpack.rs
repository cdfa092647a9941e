//! Header blocks of HTTP/2 (RFC 7541), as far as a server has to read them; written without
//! compression.

mod huffman;
mod statics;

use std::collections::VecDeque;

use statics::STATIC;

/// Size of the table of earlier fields that a client may use; ours never ask for another.
const TABLE_BYTES_MAX: usize = 4096;
/// What an entry of the table counts for beside its bytes.
const ENTRY_BYTES: usize = 32;

/// A header block that breaks the rules: what follows on its connection cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HpackError {
    #[error("the header block ends in the middle of a field")]
    Truncated,
    #[error("an integer of the header block is too large")]
    Integer,
    #[error("the header block names entry {0} of a table that has less")]
    Index(usize),
    #[error("a string of the header block is not in Huffman's code")]
    Huffman,
    #[error("a table of {0} bytes is announced, {TABLE_BYTES_MAX} were allowed")]
    Table(usize),
    #[error("the header list is larger than {0} bytes")]
    TooLarge(usize),
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Field {
    fn size_bytes(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_BYTES
    }
}

/// Reads the header blocks of one connection, in order.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first.
    table: VecDeque<Field>,
    table_bytes: usize,
    table_bytes_max: usize,
    list_bytes_max: usize,
}

impl Decoder {
    /// `list_bytes_max` bounds one header list, counted as RFC 9113 does.
    pub(super) fn new(list_bytes_max: usize) -> Decoder {
        Decoder {
            table: VecDeque::new(),
            table_bytes: 0,
            table_bytes_max: TABLE_BYTES_MAX,
            list_bytes_max,
        }
    }

    /// # Errors
    /// The block breaks the rules, or its list is too large.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, HpackError> {
        let mut rest = block;
        let mut list = Vec::new();
        let mut list_bytes = 0;
        while let Some(first) = rest.first().copied() {
            let field = if first & 0x80 != 0 {
                self.get(integer(&mut rest, 7)?)?
            } else if first & 0x40 != 0 {
                let field = self.literal(&mut rest, 6)?;
                self.insert(field.clone());
                field
            } else if first & 0x20 != 0 {
                let size = integer(&mut rest, 5)?;
                if size > TABLE_BYTES_MAX {
                    return Err(HpackError::Table(size));
                }
                self.table_bytes_max = size;
                self.evict();
                continue;
            } else {
                self.literal(&mut rest, 4)?
            };
            list_bytes += field.size_bytes();
            if list_bytes > self.list_bytes_max {
                return Err(HpackError::TooLarge(self.list_bytes_max));
            }
            list.push(field);
        }
        Ok(list)
    }

    /// A field whose name is an entry's, or written out, and whose value is written out.
    fn literal(&self, rest: &mut &[u8], prefix_bits: u32) -> Result<Field, HpackError> {
        let name = match integer(rest, prefix_bits)? {
            0 => self.string(rest)?,
            index => self.get(index)?.name,
        };
        Ok(Field { name, value: self.string(rest)? })
    }

    fn string(&self, rest: &mut &[u8]) -> Result<Vec<u8>, HpackError> {
        let is_coded = rest.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
        let n_bytes = integer(rest, 7)?;
        let (bytes, after) = rest.split_at_checked(n_bytes).ok_or(HpackError::Truncated)?;
        *rest = after;
        match is_coded {
            true => huffman::decode(bytes, self.list_bytes_max),
            false => Ok(bytes.to_vec()),
        }
    }

    fn get(&self, index: usize) -> Result<Field, HpackError> {
        let at = index.checked_sub(1).ok_or(HpackError::Index(index))?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok(Field { name: name.as_bytes().to_vec(), value: value.as_bytes().to_vec() });
        }
        self.table.get(at - STATIC.len()).cloned().ok_or(HpackError::Index(index))
    }

    fn insert(&mut self, field: Field) {
        self.table_bytes += field.size_bytes();
        self.table.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.table_bytes > self.table_bytes_max {
            let oldest = self.table.pop_back().expect("bytes are those of entries");
            self.table_bytes -= oldest.size_bytes();
        }
    }
}

/// An integer that begins in the low bits of the first byte.
fn integer(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, HpackError> {
    let mut next = || -> Result<u8, HpackError> {
        let (first, after) = rest.split_first().ok_or(HpackError::Truncated)?;
        *rest = after;
        Ok(*first)
    };
    let mask = (1_u8 << prefix_bits) - 1;
    let first = next()? & mask;
    let mut value = usize::from(first);
    if first < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HpackError::Integer)
}

/// The fields as a block that uses no table and leaves none.
pub(super) fn encode(list: &[Field]) -> Vec<u8> {
    let mut block = Vec::with_capacity(list.iter().map(Field::size_bytes).sum());
    for field in list {
        // Literal, never to be indexed on the way.
        block.push(0x10);
        for string in [&field.name, &field.value] {
            put_length(&mut block, string.len());
            block.extend_from_slice(string);
        }
    }
    block
}

/// The length of a string that is not in Huffman's code.
fn put_length(block: &mut Vec<u8>, n_bytes: usize) {
    if n_bytes < 0x7f {
        block.push(u8::try_from(n_bytes).expect("it is below 127"));
        return;
    }
    block.push(0x7f);
    let mut left = n_bytes - 0x7f;
    while left >= 0x80 {
        block.push(u8::try_from(left & 0x7f).expect("seven bits") | 0x80);
        left >>= 7;
    }
    block.push(u8::try_from(left).expect("it is below 128"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    fn shown(list: &[Field]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        list.iter().map(|field| format!("{}={}", text(&field.name), text(&field.value))).collect()
    }

    /// RFC 7541, appendices C.3 and C.4: three requests on one connection, plain and coded.
    #[test]
    fn the_requests_of_the_rfc_are_read() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::new(1 << 14);
            let lists = blocks.map(|block| shown(&decoder.decode(&bytes(block)).unwrap()));
            assert_eq!(lists[0][2..], [":path=/", ":authority=www.example.com"]);
            assert_eq!(lists[1][3..], [":authority=www.example.com", "cache-control=no-cache"]);
            assert_eq!(lists[2][1..3], [":scheme=https", ":path=/index.html"]);
            assert_eq!(lists[2][4..], ["custom-key=custom-value"]);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let list: Vec<Field> = [0, 1, 126, 127, 128, 254, 255, 300, 20_000]
            .map(|n_bytes| Field { name: b"name".to_vec(), value: vec![b'v'; n_bytes] })
            .to_vec();
        let mut decoder = Decoder::new(1 << 20);
        assert_eq!(decoder.decode(&encode(&list)).unwrap(), list);
        assert_eq!(decoder.table_bytes, 0);
    }

    #[test]
    fn a_small_table_forgets_the_oldest() {
        let mut decoder = Decoder::new(1 << 14);
        // A table of 40 bytes, then one entry of 34 bytes, then one of 42.
        let block = bytes("3f09 4001 6101 62 4005 61616161 6105 6262626262 be");
        assert_eq!(decoder.decode(&block), Err(HpackError::Index(62)));
        let mut decoder = Decoder::new(1 << 14);
        let list = decoder.decode(&bytes("3f09 4001 6101 62 be")).unwrap();
        assert_eq!(shown(&list), ["a=b", "a=b"]);
    }

    #[test]
    fn blocks_that_break_the_rules_are_refused() {
        for (block, error) in [
            ("80", HpackError::Index(0)),
            ("be", HpackError::Index(62)),
            ("41", HpackError::Truncated),
            ("4105 61", HpackError::Truncated),
            ("ffff ffff ffff", HpackError::Integer),
            ("3fe2 1f", HpackError::Table(4097)),
            // Padding of zeros, and the code for the end.
            ("4181 00", HpackError::Huffman),
            ("4184 ffff ffff", HpackError::Huffman),
        ] {
            assert_eq!(Decoder::new(100).decode(&bytes(block)), Err(error), "{block}");
        }
        let long = encode(&[Field { name: b"n".to_vec(), value: vec![b'v'; 100] }]);
        assert_eq!(Decoder::new(100).decode(&long), Err(HpackError::TooLarge(100)));
        // An entry of a few bytes that is named again and again.
        let bomb = [bytes("4001 6101 62"), vec![0xbe; 1000]].concat();
        assert_eq!(Decoder::new(1000).decode(&bomb), Err(HpackError::TooLarge(1000)));
    }
}
