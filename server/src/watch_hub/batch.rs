//! Events in their wire form, encoded once for everyone who gets the same ones.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::etcd;

/// Tag of the field `events` of a `WatchResponse`: number 11, length-delimited.
const EVENTS_TAG: u8 = 11 << 3 | 2;

/// Encoded events of whole revisions, in order.
///
/// A message of protobuf may be put together from pieces, so a response is its own few fields
/// followed by these bytes as they are.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Bytes,
    marks: Vec<Mark>,
    /// What the header of the response says: every event up to here is delivered or of no interest.
    through: i64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    revision: i64,
    end: usize,
}

/// A run of encoded events that goes out as one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) events: Bytes,
    /// More parts of the same batch follow.
    pub(crate) fragment: bool,
}

#[derive(Default)]
pub(crate) struct BatchBuilder {
    bytes: BytesMut,
    marks: Vec<Mark>,
}

impl BatchBuilder {
    pub(crate) fn push(&mut self, revision: i64, event: &etcd::Event) {
        let length = event.encoded_len();
        self.bytes.reserve(length + 11);
        self.bytes.put_u8(EVENTS_TAG);
        event.encode_length_delimited(&mut self.bytes).expect("a growing buffer takes any message");
        self.marks.push(Mark { revision, end: self.bytes.len() });
    }

    /// `through` is at least the revision of the last event; `None` takes just that one.
    pub(crate) fn finish(self, through: Option<i64>) -> Option<Batch> {
        let last = self.marks.last()?.revision;
        let through = through.map_or(last, |through| through.max(last));
        Some(Batch { bytes: self.bytes.freeze(), marks: self.marks, through })
    }
}

impl Batch {
    pub(crate) fn through(&self) -> i64 {
        self.through
    }

    pub(crate) fn last_revision(&self) -> i64 {
        self.marks.last().map_or(0, |mark| mark.revision)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The events from `revision` on.
    pub(crate) fn whole(&self, revision: i64) -> Part {
        let (start, _) = self.unseen(revision);
        Part { events: self.bytes.slice(start..), fragment: false }
    }

    /// The events from `revision` on, in several parts where they are more than `bytes_max`.
    pub(crate) fn parts(&self, revision: i64, bytes_max: usize) -> Vec<Part> {
        let (mut start, marks) = self.unseen(revision);
        if self.bytes.len() - start < bytes_max || marks.len() < 2 {
            return vec![self.whole(revision)];
        }
        let mut parts = Vec::new();
        let mut end = start;
        for mark in marks {
            if end > start && mark.end - start >= bytes_max {
                parts.push(Part { events: self.bytes.slice(start..end), fragment: true });
                start = end;
            }
            end = mark.end;
        }
        parts.push(Part { events: self.bytes.slice(start..end), fragment: false });
        parts
    }

    /// Where the first event from `revision` on begins, and the marks from there.
    fn unseen(&self, revision: i64) -> (usize, &[Mark]) {
        let first = self.marks.partition_point(|mark| mark.revision < revision);
        let start = if first == 0 { 0 } else { self.marks[first - 1].end };
        (start, &self.marks[first..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revisions: &[i64], value_bytes: usize) -> Batch {
        let mut builder = BatchBuilder::default();
        for revision in revisions {
            let kv = etcd::KeyValue {
                key: Bytes::from_static(b"k"),
                mod_revision: *revision,
                value: Bytes::from(vec![b'v'; value_bytes]),
                ..Default::default()
            };
            builder.push(*revision, &etcd::Event { kv: Some(kv), ..Default::default() });
        }
        builder.finish(None).unwrap()
    }

    fn revisions(events: &Bytes) -> Vec<i64> {
        let response = etcd::WatchResponse::decode(events.clone()).unwrap();
        response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
    }

    #[test]
    fn a_batch_is_read_back_as_the_events_of_a_response() {
        let whole = batch(&[3, 3, 4], 10).whole(0);
        assert_eq!(revisions(&whole.events), [3, 3, 4]);
    }

    #[test]
    fn what_a_watcher_has_seen_is_cut_off() {
        let whole = batch(&[3, 3, 4, 7], 10).whole(4);
        assert_eq!(revisions(&whole.events), [4, 7]);
    }

    #[test]
    fn a_large_batch_falls_apart_between_events() {
        let parts = batch(&[1, 2, 3, 4, 5], 100).parts(0, 300);
        let split: Vec<(Vec<i64>, bool)> =
            parts.iter().map(|part| (revisions(&part.events), part.fragment)).collect();
        assert_eq!(split, [(vec![1, 2], true), (vec![3, 4], true), (vec![5], false)]);
    }

    #[test]
    fn one_event_is_never_split_and_a_small_batch_stays_whole() {
        assert_eq!(batch(&[1], 1_000).parts(0, 300).len(), 1);
        assert_eq!(batch(&[1, 2], 10).parts(0, 300).len(), 1);
        let oversized = batch(&[1, 2], 1_000).parts(0, 300);
        assert_eq!(oversized.len(), 2);
    }
}
