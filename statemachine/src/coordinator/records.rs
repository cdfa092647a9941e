//! Typed rows as one command sees them: the committed ones, those of earlier commands of the chunk,
//! and what the command itself wrote. Dropping it is the roll-back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use proto::quorate;

use crate::coordinator::Refusal;
use crate::coordinator::keys::Keys;
use crate::keyspace::key_range::{End, KeyRange};
use crate::state::State;
use crate::state::chunk::{Chunk, Write};
use crate::state::draft::{Alone, Draft, Stop};

pub(crate) struct Records<'c, 'a> {
    chunk: &'c Chunk<'a>,
    root_path: String,
    /// `None`: deleted.
    written: BTreeMap<Bytes, Option<Bytes>>,
}

impl<'c, 'a> Records<'c, 'a> {
    pub(crate) fn new(chunk: &'c Chunk<'a>) -> Records<'c, 'a> {
        let root_path = chunk.settings().root_path.clone();
        Records { chunk, root_path, written: BTreeMap::new() }
    }

    pub(crate) fn keys(&self) -> Keys<'_> {
        Keys { root_path: &self.root_path }
    }

    /// Cluster time of the entry, Unix milliseconds; goes back only where `SetTime` sets it.
    pub(crate) fn at_ms(&self) -> u64 {
        self.chunk.counters.at_ms
    }

    /// What holds before the chunk: its views do not know of earlier commands of the chunk. Whoever
    /// asks them must look at [`Records::pending`], too.
    pub(crate) fn committed(&self) -> &State {
        self.chunk.base
    }

    /// Keys with a prefix that the chunk or the command changed, which the committed views do not
    /// know yet. Deleted ones come with `None`.
    pub(crate) fn pending(&self, prefix: &str) -> BTreeMap<Bytes, Option<Bytes>> {
        let mut pending = BTreeMap::new();
        let begins = |key: &Bytes| key.starts_with(prefix.as_bytes());
        let from = Bytes::copy_from_slice(prefix.as_bytes());
        for (key, slot) in self.chunk.keys.range(from.clone()..).take_while(|(key, _)| begins(key))
        {
            pending.insert(key.clone(), slot.newest.live.as_ref().map(|live| live.value.clone()));
        }
        for (key, value) in self.written.range(from..).take_while(|(key, _)| begins(key)) {
            pending.insert(key.clone(), value.clone());
        }
        pending
    }

    pub(crate) fn value(&self, key: &str) -> Result<Option<Bytes>, Stop> {
        if let Some(value) = self.written.get(key.as_bytes()) {
            return Ok(value.clone());
        }
        match self.chunk.get(key.as_bytes()) {
            Some(found) => Ok(Some(found.value(self.chunk.store)?)),
            None => Ok(None),
        }
    }

    pub(crate) fn exists(&self, key: &str) -> bool {
        match self.written.get(key.as_bytes()) {
            Some(value) => value.is_some(),
            None => self.chunk.get(key.as_bytes()).is_some(),
        }
    }

    /// Revision of the last put of a key before this command; 0 where there is none.
    pub(crate) fn revision_of(&self, key: &str) -> i64 {
        self.chunk.get(key.as_bytes()).map_or(0, |found| found.meta.mod_revision)
    }

    /// The record of a key.
    ///
    /// # Errors
    /// Refused where the value is no such record: somebody wrote it raw.
    pub(crate) fn get<M: Message + Default>(&self, key: &str) -> Result<Option<M>, Stop> {
        let Some(value) = self.value(key)? else { return Ok(None) };
        match M::decode(value) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                let (key, reason) = (key.to_owned(), error.to_string());
                Err(Stop::Rejected(Refusal::Undecodable { key, reason }.into()))
            }
        }
    }

    /// As [`Records::get`], but what is no record counts as none, as in the views.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn get_if_record<M: Message + Default>(&self, key: &str) -> Result<Option<M>, Stop> {
        Ok(self.value(key)?.and_then(|value| M::decode(value).ok()))
    }

    /// All records whose keys begin with a prefix, with their keys, in key order.
    pub(crate) fn scan<M: Message + Default>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, M)>, Stop> {
        let mut found = Vec::new();
        for key in self.scan_keys(prefix) {
            if let Some(record) = self.get(&key)? {
                found.push((key, record));
            }
        }
        Ok(found)
    }

    pub(crate) fn scan_keys(&self, prefix: &str) -> Vec<String> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            // Prefixes end in ASCII, so the next byte exists.
            *last += 1;
        }
        let range = KeyRange { start: prefix.as_bytes(), end: End::Before(&end) };
        let mut keys = std::collections::BTreeSet::new();
        self.chunk.visit(&range, self.chunk.counters.revision, &mut |key, _found| {
            keys.insert(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        });
        let from = Bytes::copy_from_slice(prefix.as_bytes());
        for (key, value) in self.written.range(from..) {
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let key = String::from_utf8_lossy(key).into_owned();
            match value {
                Some(_) => keys.insert(key),
                None => keys.remove(&key),
            };
        }
        keys.into_iter().collect()
    }

    pub(crate) fn put<M: Message>(&mut self, key: String, record: &M) {
        self.put_bytes(key, record.encode_to_vec().into());
    }

    pub(crate) fn put_bytes(&mut self, key: String, value: Bytes) {
        self.written.insert(key.into(), Some(value));
    }

    /// Deletes a key if it is there.
    pub(crate) fn delete(&mut self, key: String) {
        self.written.insert(key.into(), None);
    }

    /// One write a key, in key order.
    pub(crate) fn into_writes(self) -> Vec<Write> {
        let Records { chunk, root_path: _, written } = self;
        let mut draft = Draft::new(chunk);
        for (key, value) in written {
            let before = chunk.get(&key);
            match (value, before) {
                // No owned key hangs on a lease.
                (Some(value), before) => draft.put(key, value, 0, before.as_ref(), Alone::Yes),
                (None, Some(before)) => draft.delete(key, before.meta, Alone::Yes),
                (None, None) => {}
            }
        }
        draft.into_writes()
    }
}

/// What became of the things that a command names.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    changed: Vec<i64>,
    changed_names: Vec<String>,
    refused: Vec<quorate::RefusedItem>,
}

impl Outcomes {
    pub(crate) fn changed(&mut self, id: i64) {
        self.changed.push(id);
    }

    pub(crate) fn changed_name(&mut self, name: &str) {
        self.changed_names.push(name.to_owned());
    }

    pub(crate) fn refused(&mut self, id: i64, why: Refusal) {
        self.refused.push(item(id, String::new(), why));
    }

    pub(crate) fn refused_name(&mut self, name: &str, why: Refusal) {
        self.refused.push(item(0, name.to_owned(), why));
    }

    pub(crate) fn into_wire(self, revision: i64) -> quorate::CoordinatorOutcome {
        let Outcomes { changed, changed_names, refused } = self;
        quorate::CoordinatorOutcome { revision, changed, changed_names, refused }
    }
}

fn item(id: i64, name: String, why: Refusal) -> quorate::RefusedItem {
    let quorate::Rejection { code, facts, text } = why.into_wire();
    quorate::RefusedItem { id, name, code, facts, text }
}
