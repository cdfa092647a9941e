//! What a disk can be made to do besides losing what was not synced.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Faults of one disk, until they are replaced by others.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Faults {
    /// Each call takes longer by this.
    pub delay: Duration,
    /// Each sync takes longer by this, on top: the time in which written bytes are not durable.
    pub sync_delay: Duration,
    /// Calls of these kinds fail with EIO.
    pub fails: Vec<Call>,
    /// Only files whose path holds this fail; every file where it is empty.
    pub fails_below: String,
    /// Room that another program has taken, in bytes.
    pub taken_bytes: u64,
}

/// Kinds of calls that can be made to fail.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Call {
    Read,
    Write,
    Sync,
    /// Names and attributes.
    Other,
}
