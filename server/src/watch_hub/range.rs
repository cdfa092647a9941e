//! Ranges of keys as the etcd API names them.

use bytes::Bytes;

/// What a watcher, a read or a delete covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum KeyRange {
    /// Exactly one key.
    Key(Bytes),
    /// From `start` to before `end`; to the last key where `end` is `None`.
    Span { start: Bytes, end: Option<Bytes> },
}

/// The end does not lie after the start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EmptyRange;

impl KeyRange {
    /// Reads `key` and `range_end` of a watch: an empty key stands for the first possible key, the
    /// end of a single zero byte for the end of all keys. Copies them: a slice of the request would
    /// keep all of its message for as long as the watch lives.
    ///
    /// # Errors
    /// Where the range could never hold a key.
    pub(crate) fn of_watch(key: &Bytes, range_end: &Bytes) -> Result<KeyRange, EmptyRange> {
        let start =
            if key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(key) };
        if range_end.is_empty() {
            return Ok(KeyRange::Key(start));
        }
        if range_end.as_ref() == [0] {
            return Ok(KeyRange::Span { start, end: None });
        }
        if *range_end <= start {
            return Err(EmptyRange);
        }
        Ok(KeyRange::Span { start, end: Some(Bytes::copy_from_slice(range_end)) })
    }

    /// Of the keys that it names.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            KeyRange::Key(key) => key.len(),
            KeyRange::Span { start, end } => start.len() + end.as_ref().map_or(0, Bytes::len),
        }
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Key(own) => own == key,
            KeyRange::Span { start, end } => {
                start.as_ref() <= key && end.as_ref().is_none_or(|end| key < end.as_ref())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, end: &str) -> Result<KeyRange, EmptyRange> {
        KeyRange::of_watch(
            &Bytes::copy_from_slice(key.as_bytes()),
            &Bytes::copy_from_slice(end.as_bytes()),
        )
    }

    #[test]
    fn a_watch_names_a_key_a_span_or_everything_from_a_key() {
        assert!(range("a", "").unwrap().contains(b"a"));
        assert!(!range("a", "").unwrap().contains(b"aa"));
        assert!(range("a", "c").unwrap().contains(b"bzz"));
        assert!(!range("a", "c").unwrap().contains(b"c"));
        assert!(range("a", "\0").unwrap().contains(b"\xff\xff"));
        assert!(range("", "\0").unwrap().contains(b"\0"));
        assert!(range("", "").unwrap().contains(b"\0"));
    }

    #[test]
    fn a_span_that_ends_before_it_starts_is_refused() {
        assert_eq!(range("b", "b"), Err(EmptyRange));
        assert_eq!(range("b", "a"), Err(EmptyRange));
    }
}
