//! Table `meta`: `counters` -> `quorate.v1.Counters`, `compaction` ->
//! `quorate.v1.CompactionCursor`.

use prost::Message;
use proto::quorate;

use crate::compaction::Cursor;
use crate::digest::Digests;
use crate::state::counters::Counters;
use crate::store::{Changes, Fault, StateRead, Table};

const COUNTERS: &[u8] = b"counters";
const COMPACTION: &[u8] = b"compaction";

pub(crate) fn put_counters(changes: &mut Changes, counters: &Counters) {
    let row = quorate::Counters {
        revision: counters.revision,
        compacted_revision: counters.compacted_revision,
        at_ms: counters.at_ms,
        last_index: counters.last_index,
        content: counters.digests.content.to_be_bytes().to_vec().into(),
        chain: counters.digests.chain.to_be_bytes().to_vec().into(),
        live_bytes: counters.live_bytes,
        superseded_bytes: counters.superseded_bytes,
        superseded_at_compacted_bytes: counters.superseded_at_compacted_bytes,
        level: counters.level,
        time_epoch: counters.time_epoch,
    };
    changes.put(Table::Meta, COUNTERS, &row.encode_to_vec());
}

/// `None` in a fresh store.
pub(crate) fn counters(store: &dyn StateRead) -> Result<Option<Counters>, Fault> {
    let Some(row) = store.get(Table::Meta, COUNTERS)? else { return Ok(None) };
    let row = quorate::Counters::decode(row).map_err(|error| corrupt(&error.to_string()))?;
    let digest = |bytes: &[u8]| {
        bytes
            .try_into()
            .map(u128::from_be_bytes)
            .map_err(|_length| corrupt("digest is not sixteen bytes long"))
    };
    Ok(Some(Counters {
        revision: row.revision,
        compacted_revision: row.compacted_revision,
        at_ms: row.at_ms,
        last_index: row.last_index,
        digests: Digests { content: digest(&row.content)?, chain: digest(&row.chain)? },
        live_bytes: row.live_bytes,
        superseded_bytes: row.superseded_bytes,
        superseded_at_compacted_bytes: row.superseded_at_compacted_bytes,
        level: row.level,
        time_epoch: row.time_epoch,
    }))
}

pub(crate) fn put_cursor(changes: &mut Changes, cursor: &Cursor) {
    let row = quorate::CompactionCursor {
        revision: cursor.next.revision,
        sub: cursor.next.sub,
        finished_for: cursor.finished_for,
        walked_for: cursor.walked_for,
    };
    changes.put(Table::Meta, COMPACTION, &row.encode_to_vec());
}

pub(crate) fn cursor(store: &dyn StateRead) -> Result<Cursor, Fault> {
    let Some(row) = store.get(Table::Meta, COMPACTION)? else { return Ok(Cursor::default()) };
    let row =
        quorate::CompactionCursor::decode(row).map_err(|error| corrupt(&error.to_string()))?;
    Ok(Cursor {
        next: crate::ids::EventId { revision: row.revision, sub: row.sub },
        finished_for: row.finished_for,
        walked_for: row.walked_for,
    })
}

fn corrupt(reason: &str) -> Fault {
    Fault::Corrupt { table: Table::Meta.name(), reason: reason.to_owned() }
}
