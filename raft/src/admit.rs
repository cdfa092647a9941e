//! Reads runs of other nodes before they are appended, so that nothing unread enters the log. What a
//! run means is the state machine's; here are its bytes, its sender and the level of the moment.

use proto::quorate::ForwardRequest;
use statemachine::admission::{Refused, admit_run};

use crate::node::Inner;

/// A larger run is read on a thread for blocking work: it takes longer than other tasks should wait.
const INLINE_BYTES_MAX: usize = 128 << 10;

/// Why a run is not appended.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// Its checksum differs: it may come again.
    Damaged,
    /// It would be refused however often it came.
    Refused(String),
}

impl From<Refused> for NotAdmitted {
    fn from(refused: Refused) -> NotAdmitted {
        NotAdmitted::Refused(refused.to_string())
    }
}

/// Checks a run that node `from` sent.
///
/// # Errors
/// What to answer instead of appending it.
pub(crate) async fn check(
    node: &Inner,
    from: u64,
    request: &ForwardRequest,
) -> Result<(), NotAdmitted> {
    let run = request.run.clone();
    let checksum = request.run_crc32c;
    let claimed = usize::try_from(request.n_commands).unwrap_or(usize::MAX);
    let level = node.storage.state.view().level();
    let read = move || {
        if crc32c::crc32c(&run) != checksum {
            return Err(NotAdmitted::Damaged);
        }
        admit_run(&run, from, claimed, level).map_err(NotAdmitted::from)
    };
    if request.run.len() <= INLINE_BYTES_MAX {
        return read();
    }
    match node.runtime.spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => Err(NotAdmitted::Refused(format!("reading the run failed: {error}"))),
    }
}

#[cfg(test)]
mod tests;
