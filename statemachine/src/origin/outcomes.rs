//! The compact form of consecutive outcomes.
//!
//! Row: number of outcomes (4 bytes, big endian), then items, each a tag byte and varints:
//! | tag | item |
//! |---|---|
//! | 1 | n, first revision: n plain puts, each one revision after the other |
//! | 2 | length, `quorate.v1.Outcome` |
//! | 3 | an outcome too large to be kept |

use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use proto::{etcd, quorate};

use crate::limits;
use crate::response::{Outcome, Response, outcome_from_wire, outcome_to_wire};
use crate::store::Fault;
use crate::table::domain::corrupt;

const PUTS: u8 = 1;
const WHOLE: u8 = 2;
const TOO_LARGE: u8 = 3;
const COUNT_BYTES: usize = 4;

/// Collects outcomes one by one.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    items: Vec<u8>,
    n_outcomes: u32,
    /// Plain puts that are not in `items` yet: how many, first revision.
    puts: Option<(u64, i64)>,
}

impl Writer {
    pub(crate) fn is_empty(&self) -> bool {
        self.n_outcomes == 0
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.n_outcomes += 1;
        if let Some(revision) = plain_put(outcome) {
            match &mut self.puts {
                Some((n, first)) if first.saturating_add_unsigned(*n) == revision => *n += 1,
                _ => {
                    self.flush_puts();
                    self.puts = Some((1, revision));
                }
            }
            return;
        }
        self.flush_puts();
        if matches!(outcome, Ok(Response::Deferred(_))) {
            self.items.push(TOO_LARGE);
            return;
        }
        let wire = outcome_to_wire(outcome.clone());
        let length = wire.encoded_len();
        if length > limits::OUTCOME_BYTES_MAX {
            self.items.push(TOO_LARGE);
            return;
        }
        self.items.push(WHOLE);
        encode_varint(length as u64, &mut self.items);
        wire.encode(&mut self.items).expect("a vector grows as needed");
    }

    /// Number of outcomes and the row; `None` where there are none.
    pub(crate) fn finish(mut self) -> Option<(u64, Vec<u8>)> {
        if self.is_empty() {
            return None;
        }
        self.flush_puts();
        let mut row = Vec::with_capacity(COUNT_BYTES + self.items.len());
        row.extend_from_slice(&self.n_outcomes.to_be_bytes());
        row.extend_from_slice(&self.items);
        Some((u64::from(self.n_outcomes), row))
    }

    fn flush_puts(&mut self) {
        if let Some((n, first)) = self.puts.take() {
            self.items.push(PUTS);
            encode_varint(n, &mut self.items);
            encode_varint(first.cast_unsigned(), &mut self.items);
        }
    }
}

/// The revision of a put that answers nothing else.
fn plain_put(outcome: &Outcome) -> Option<i64> {
    match outcome {
        Ok(Response::Put(etcd::PutResponse { header: Some(header), prev_kv: None })) => {
            Some(header.revision)
        }
        _ => None,
    }
}

pub(crate) fn count(row: &[u8]) -> Result<u64, Fault> {
    let count =
        row.first_chunk::<COUNT_BYTES>().ok_or_else(|| corrupt("outcomes have no count"))?;
    Ok(u64::from(u32::from_be_bytes(*count)))
}

/// The outcome at a position; `None` where it was too large to be kept.
pub(crate) fn read(row: &[u8], position: u64) -> Result<Option<Outcome>, Fault> {
    let malformed = || corrupt("outcomes cannot be read");
    let mut items = row.get(COUNT_BYTES..).ok_or_else(malformed)?;
    let mut skipped = 0;
    loop {
        let (tag, rest) = items.split_first().ok_or_else(malformed)?;
        items = rest;
        match *tag {
            PUTS => {
                let n = decode_varint(&mut items).map_err(|_short| malformed())?;
                let first = decode_varint(&mut items).map_err(|_short| malformed())?;
                if position - skipped < n {
                    let revision = (first + position - skipped).cast_signed();
                    let header = Response::header(revision);
                    return Ok(Some(Ok(Response::Put(etcd::PutResponse {
                        header,
                        prev_kv: None,
                    }))));
                }
                skipped += n;
            }
            WHOLE => {
                let length = decode_varint(&mut items).map_err(|_short| malformed())?;
                let length = usize::try_from(length).map_err(|_large| malformed())?;
                let (item, rest) = items.split_at_checked(length).ok_or_else(malformed)?;
                if position == skipped {
                    let wire = quorate::Outcome::decode(item).map_err(|_error| malformed())?;
                    return Ok(Some(outcome_from_wire(wire).ok_or_else(malformed)?));
                }
                items = rest;
                skipped += 1;
            }
            TOO_LARGE if position == skipped => return Ok(None),
            TOO_LARGE => skipped += 1,
            other => return Err(corrupt(&format!("outcome with tag {other}"))),
        }
    }
}
