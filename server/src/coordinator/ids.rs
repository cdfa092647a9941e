//! Ids from RootCoord, in batches fetched ahead.

use raft::Tenure;

use super::{Coordinator, Failure};

pub(crate) struct Ids {}

impl Ids {
    pub(crate) fn start(_coordinator: &Coordinator, _tenure: &Tenure) -> Ids {
        Ids {}
    }

    /// A new id, never given out before.
    ///
    /// # Errors
    /// RootCoord does not answer and nothing is left of what it gave.
    #[allow(clippy::unused_async, reason = "to be filled in")]
    pub(crate) async fn next(&self) -> Result<i64, Failure> {
        Err(Failure::Unavailable("no ids".to_owned()))
    }

    /// `n` new ids.
    ///
    /// # Errors
    /// As [`Ids::next`].
    pub(crate) async fn many(&self, n: usize) -> Result<Vec<i64>, Failure> {
        let mut ids = Vec::with_capacity(n);
        for _ in 0..n {
            ids.push(self.next().await?);
        }
        Ok(ids)
    }
}
