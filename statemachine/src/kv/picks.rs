//! Keys that are part of an answer, without their values.

use std::cmp::Ordering;

use bytes::Bytes;
use proto::etcd;

use crate::history;
use crate::keyspace::meta::KeyMeta;
use crate::kv::cost::Reads;
use crate::limits;
use crate::state::chunk::{Found, key_value};
use crate::state::draft::Stop;
use crate::store::{Fault, StateRead};

/// What of a pair is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// All of it.
    Pairs,
    /// Everything but the value.
    Keys,
}

#[derive(Clone, Debug, PartialEq)]
struct Pick {
    /// Where the key stands in the text of all picks, unless the stored row will tell it.
    key_start: usize,
    key_bytes: u32,
    found: Found,
}

/// The keys, in the order of the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Picks {
    picks: Vec<Pick>,
    /// Keys back to back, so that picking costs no allocation a key.
    text: Vec<u8>,
}

impl Picks {
    pub(crate) fn push(&mut self, key: &[u8], found: Found, parts: Parts) {
        let key_start = self.text.len();
        if parts == Parts::Keys || found.value.is_some() {
            self.text.extend_from_slice(key);
        }
        let key_bytes = u32::try_from(key.len()).expect("requests are bounded far below 4 GiB");
        self.picks.push(Pick { key_start, key_bytes, found });
    }

    pub(crate) fn len(&self) -> usize {
        self.picks.len()
    }

    pub(crate) fn reverse(&mut self) {
        self.picks.reverse();
    }

    pub(crate) fn truncate(&mut self, limit: usize) {
        self.picks.truncate(limit);
    }

    /// By what the index knows; equal ones stay in key order.
    pub(crate) fn sort_by(&mut self, mut compare: impl FnMut(&KeyMeta, &KeyMeta) -> Ordering) {
        self.picks.sort_by(|left, right| compare(&left.found.meta, &right.found.meta));
    }

    /// What the pairs take in an answer.
    pub(crate) fn answer_bytes(&self, parts: Parts) -> u64 {
        self.answer_bytes_from(0, parts)
    }

    /// As [`Picks::answer_bytes`], of those from place `first` on.
    pub(crate) fn answer_bytes_from(&self, first: usize, parts: Parts) -> u64 {
        self.picks.iter().skip(first).map(|pick| pick.answer_bytes(parts)).sum()
    }

    pub(crate) fn into_pairs(
        self,
        store: &dyn StateRead,
        reads: &mut Reads,
    ) -> Result<Vec<etcd::KeyValue>, Stop> {
        reads.answer(self.answer_bytes(Parts::Pairs))?;
        Ok(self.read(Parts::Pairs, store)?)
    }

    pub(crate) fn read(
        self,
        parts: Parts,
        store: &dyn StateRead,
    ) -> Result<Vec<etcd::KeyValue>, Fault> {
        let Picks { picks, text } = self;
        let text = Bytes::from(text);
        let pair = |pick: &Pick, value| {
            let key = pick.key_start..pick.key_start + pick.key_bytes as usize;
            key_value(text.slice(key), &pick.found.meta, value)
        };
        if parts == Parts::Keys {
            return Ok(picks.iter().map(|pick| pair(pick, Bytes::new())).collect());
        }
        let stored = picks.iter().filter(|pick| pick.found.value.is_none());
        let stored: Vec<_> = stored.map(|pick| pick.found.meta.event_id()).collect();
        let mut stored = history::pairs(store, &stored)?.into_iter();
        let fetched = picks.iter().map(|pick| match &pick.found.value {
            Some(value) => pair(pick, value.clone()),
            None => stored.next().expect("one pair for each that was asked"),
        });
        Ok(fetched.collect())
    }
}

impl Pick {
    fn answer_bytes(&self, parts: Parts) -> u64 {
        let value_bytes = match parts {
            Parts::Pairs => self.found.meta.value_bytes,
            Parts::Keys => 0,
        };
        limits::ANSWER_PAIR_BYTES + u64::from(self.key_bytes) + u64::from(value_bytes)
    }
}
