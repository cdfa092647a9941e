//! Reads of the whole store for a client: few at once, each with an end. Each holds a thread and
//! an image of the tables, which keeps deleted rows on the disk for as long as it lives.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use statemachine::{Direction, Fault, StateRead, Table, Visit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Backups and snapshots that are streamed at once.
pub(crate) const STREAMS_MAX: usize = 2;
/// Hashes of the whole store that are computed at once.
const HASHES_MAX: usize = 1;

/// Who may read the whole store now.
pub(crate) struct Scans {
    streams: Arc<Semaphore>,
    hashes: Arc<Semaphore>,
}

/// All are at work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Busy {
    #[error(
        "{STREAMS_MAX} backups or snapshots of this node are being read, which is the limit: \
             try again later, or ask another node"
    )]
    Streams,
    #[error("a hash of the whole store is being computed: try again later, or ask another node")]
    Hashes,
}

impl Scans {
    pub(crate) fn new() -> Arc<Scans> {
        Arc::new(Scans {
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            hashes: Arc::new(Semaphore::new(HASHES_MAX)),
        })
    }

    /// # Errors
    /// As many streams as may be are being read.
    pub(crate) fn stream(&self) -> Result<OwnedSemaphorePermit, Busy> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_busy| Busy::Streams)
    }

    /// Waits for its turn.
    ///
    /// # Errors
    /// Its turn did not come by the deadline.
    pub(crate) async fn hash(
        &self,
        deadline: tokio::time::Instant,
    ) -> Result<OwnedSemaphorePermit, Busy> {
        let turn = Arc::clone(&self.hashes).acquire_owned();
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_elapsed) => Err(Busy::Hashes),
        }
    }
}

impl fmt::Debug for Scans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scans").field("streams", &self.streams.available_permits()).finish()
    }
}

/// A store that is read until a moment, and not longer.
pub(crate) struct Until<'a, S> {
    store: &'a S,
    deadline: Instant,
}

/// How a read that took too long ends; no fault of the store.
pub(crate) const TOO_LONG: &str = "the time for this read is over";

impl<'a, S: StateRead> Until<'a, S> {
    pub(crate) fn new(store: &'a S, deadline: Instant) -> Until<'a, S> {
        Until { store, deadline }
    }
}

/// Rows between two looks at the clock.
const ROWS_BETWEEN: u32 = 256;

impl<S: StateRead> StateRead for Until<'_, S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.store.get(table, key)
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Fault> {
        self.store.get_many(table, keys)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let mut n_rows = 0_u32;
        self.store.scan(table, start, end, direction, &mut |key, value| {
            if n_rows.is_multiple_of(ROWS_BETWEEN) && Instant::now() >= self.deadline {
                return Err(Fault::Storage(TOO_LONG.to_owned()));
            }
            n_rows = n_rows.wrapping_add(1);
            visit(key, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::time::Duration;

    use super::*;

    /// A table without end.
    struct Endless;

    impl StateRead for Endless {
        fn get(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>, Fault> {
            Ok(None)
        }

        fn scan(
            &self,
            _: Table,
            _: &[u8],
            _: Option<&[u8]>,
            _: Direction,
            visit: &mut Visit<'_>,
        ) -> Result<(), Fault> {
            loop {
                if visit(b"key", b"value")?.is_break() {
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn a_read_ends_at_its_deadline() {
        let store = Until::new(&Endless, Instant::now() + Duration::from_millis(20));
        let mut n_rows = 0_u64;
        let scanned = store.scan(Table::Event, b"", None, Direction::Forward, &mut |_, _| {
            n_rows += 1;
            Ok(ControlFlow::Continue(()))
        });
        assert_eq!(scanned.unwrap_err().to_string(), format!("storage: {TOO_LONG}"));
        assert!(n_rows > 0);
    }

    #[tokio::test]
    async fn no_more_read_at_once_than_may() {
        let scans = Scans::new();
        let first = scans.stream().unwrap();
        let second = scans.stream().unwrap();
        assert!(scans.stream().unwrap_err().to_string().starts_with("2 backups"));
        drop(first);
        let third = scans.stream().unwrap();
        drop((second, third));
        let soon = || tokio::time::Instant::now() + Duration::from_millis(50);
        let hash = scans.hash(soon()).await.unwrap();
        scans.hash(soon()).await.unwrap_err();
        drop(hash);
        drop(scans.hash(soon()).await.unwrap());
    }
}
