//! Live pairs at the end of a chunk, for rebuilding views.

use std::ops::ControlFlow;

use proto::etcd;

use crate::keyspace::key_range::{End, KeyRange};
use crate::state::chunk::Chunk;
use crate::store::Fault;
use crate::view::LiveKeys;

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
        let mut outcome = Ok(());
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
