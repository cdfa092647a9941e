//! The part of the keyspace that a request names.

use std::ops::Bound;

/// Keys from `start` on. etcd writes it as `key` and `range_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    pub start: &'a [u8],
    pub end: End<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<'a> {
    /// Only the start itself.
    Single,
    /// Exclusive. At or before the start: the range is empty.
    Before(&'a [u8]),
    Unbounded,
}

pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl<'a> KeyRange<'a> {
    pub const ALL: KeyRange<'static> = KeyRange { start: &[], end: End::Unbounded };

    /// Empty `range_end`: the key alone. One zero byte: every key from there on.
    pub fn of_request(key: &'a [u8], range_end: &'a [u8]) -> KeyRange<'a> {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Unbounded,
            end => End::Before(end),
        };
        KeyRange { start: key, end }
    }

    pub fn single(key: &'a [u8]) -> KeyRange<'a> {
        KeyRange { start: key, end: End::Single }
    }

    pub fn is_empty(&self) -> bool {
        match self.end {
            End::Single | End::Unbounded => false,
            End::Before(end) => end <= self.start,
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start && !self.is_before(key)
    }

    /// The whole range lies before `key`.
    pub fn is_before(&self, key: &[u8]) -> bool {
        match self.end {
            End::Single => key > self.start,
            End::Before(end) => key >= end,
            End::Unbounded => false,
        }
    }

    /// For the ordered maps of std, which panic on an inverted range: `None` where it is empty.
    pub(crate) fn bounds(&self) -> Option<Bounds<'a>> {
        if self.is_empty() {
            return None;
        }
        let end = match self.end {
            End::Single => Bound::Included(self.start),
            End::Before(end) => Bound::Excluded(end),
            End::Unbounded => Bound::Unbounded,
        };
        Some((Bound::Included(self.start), end))
    }
}
