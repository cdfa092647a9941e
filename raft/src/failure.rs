//! What happens when the storage fails: the node says so, leaves a mark, and stops.
//!
//! After a failed write or sync the kernel may call pages clean that never reached the disk, so
//! nothing is retried: only a restart, which reads back what is really there, is safe.

mod ends;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::{quarantine, room};

pub use ends::{RestartLoop, admit_restart, note_end};

/// Left in the data directory by a node whose storage failed: one line for each time.
const POISON_FILE: &str = "POISON";
/// So many failures within [`POISON_WINDOW`] keep the node down until a person has looked.
const POISON_MARKS_MAX: usize = 2;
const POISON_WINDOW: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Log,
    State,
    /// What the state holds cannot be read or is wrong, while the log is sound.
    Rows,
    Snapshot,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::Log => "log",
            Area::State | Area::Rows => "state",
            Area::Snapshot => "snapshot",
        })
    }
}

/// The storage can no longer be trusted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{area} storage failed: {message}")]
pub struct Failure {
    pub area: Area,
    pub message: String,
}

impl Failure {
    /// Whether another state helps. RocksDB passes a damage that its background work met on to
    /// whoever writes next.
    fn is_of_rows(&self) -> bool {
        match self.area {
            Area::Rows => true,
            Area::State => self.message.contains("Corruption: "),
            Area::Log | Area::Snapshot => false,
        }
    }
}

/// Called once, by the thread that met the failure. In production it does not return.
#[derive(Clone)]
pub struct OnFailure(Arc<dyn Fn(&Failure) + Send + Sync>);

impl OnFailure {
    /// Marks the data directory and aborts the process: no destructor may flush anything. A full
    /// disk is no sign of a bad one: the next start waits for room.
    pub fn abort(data_dir: PathBuf) -> OnFailure {
        // Threads meet one failure together; each mark counts, so one of them leaves it.
        let first = Mutex::new(());
        OnFailure::call(move |failure| {
            let _until_the_end = first.lock();
            if room::is_no_space(&failure.message) {
                let noted = room::note_full(&data_dir, &failure.to_string());
                tracing::error!(
                    error = %failure,
                    noted = noted.is_ok(),
                    "the disk is full: this node ends, and its next start waits for room"
                );
                std::process::abort();
            }
            let marked = note(&data_dir, failure);
            tracing::error!(
                error = %failure,
                marked = marked.is_ok(),
                "storage failed, stopping this node"
            );
            std::process::abort();
        })
    }

    /// For tests and simulators.
    pub fn call(hook: impl Fn(&Failure) + Send + Sync + 'static) -> OnFailure {
        OnFailure(Arc::new(hook))
    }

    pub(crate) fn report(&self, area: Area, message: impl Into<String>) -> Failure {
        let failure = Failure { area, message: message.into() };
        (self.0)(&failure);
        failure
    }
}

impl fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFailure")
    }
}

/// Leaves the marks of a failure for the next start.
pub(crate) fn note(data_dir: &Path, failure: &Failure) -> io::Result<()> {
    if failure.is_of_rows()
        && let Err(error) = quarantine::enter(data_dir, &failure.message)
    {
        tracing::error!(%error, "the quarantine of this node is not noted");
    }
    mark(data_dir, failure, SystemTime::now())
}

fn mark(data_dir: &Path, failure: &Failure, now: SystemTime) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(data_dir.join(POISON_FILE))?;
    writeln!(file, "{} {failure}", unix_seconds(now))?;
    file.sync_all()
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The storage of this node failed too often.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} records {marks} storage failures within an hour, the last: {last}; check the disk, then \
     delete that file to start this node, or replace the node with `quorate member replace`",
    path.display()
)]
pub struct Poisoned {
    pub path: PathBuf,
    pub marks: usize,
    pub last: String,
}

/// Whether a node may start on this directory.
///
/// # Errors
/// The storage failed twice within the last hour.
pub fn admit_start(data_dir: &Path, now: SystemTime) -> Result<(), Poisoned> {
    let path = data_dir.join(POISON_FILE);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    let earliest = unix_seconds(now).saturating_sub(POISON_WINDOW.as_secs());
    let recent: Vec<&str> = text
        .lines()
        .filter(|line| {
            let at = line.split(' ').next().and_then(|at| at.parse::<u64>().ok());
            at.is_some_and(|at| at >= earliest)
        })
        .collect();
    match recent.last() {
        Some(last) if recent.len() >= POISON_MARKS_MAX => {
            Err(Poisoned { path, marks: recent.len(), last: (*last).to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_within_an_hour_keep_the_node_down() {
        let dir = tempfile::tempdir().unwrap();
        let failure = Failure { area: Area::Log, message: "sync: input/output error".into() };
        let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
        admit_start(dir.path(), start).unwrap();
        mark(dir.path(), &failure, start).unwrap();
        admit_start(dir.path(), start).unwrap();
        mark(dir.path(), &failure, start + Duration::from_secs(60)).unwrap();
        let refused = admit_start(dir.path(), start + Duration::from_secs(120)).unwrap_err();
        assert!(refused.to_string().contains("2 storage failures"), "{refused}");
        assert!(refused.to_string().contains("input/output error"), "{refused}");
        admit_start(dir.path(), start + Duration::from_secs(2 * 3600)).unwrap();
    }
}
