//! Live pairs for rebuilding views: committed ones, or those at the end of a chunk.

use std::ops::ControlFlow;

use proto::etcd;

use crate::keyspace::key_index::KeyIndex;
use crate::keyspace::key_range::{End, KeyRange};
use crate::state::chunk::Chunk;
use crate::store::{Fault, StateRead};
use crate::view::LiveKeys;
use crate::{history, store};

pub(crate) struct CommittedKeys<'a> {
    pub(crate) index: &'a KeyIndex,
    pub(crate) store: &'a dyn StateRead,
}

impl LiveKeys for CommittedKeys<'_> {
    fn visit(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(etcd::KeyValue) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut outcome = Ok(());
        self.index.visit(&key_range(start, end), &mut |_key, meta| {
            outcome = history::pair(self.store, meta.event_id()).and_then(&mut *visit);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome
    }
}

pub(crate) struct ChunkKeys<'a, 'b> {
    pub(crate) chunk: &'a Chunk<'b>,
}

impl LiveKeys for ChunkKeys<'_, '_> {
    fn visit(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(etcd::KeyValue) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut outcome: Result<(), store::Fault> = Ok(());
        let range = key_range(start, end);
        self.chunk.visit(&range, self.chunk.counters.revision, &mut |key, found| {
            outcome = found.pair(key, self.chunk.store).and_then(&mut *visit);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome
    }
}

fn key_range<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> KeyRange<'a> {
    KeyRange { start, end: end.map_or(End::Unbounded, End::Before) }
}
