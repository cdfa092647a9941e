//! A node that ends itself again and again stays down, and says why.
//!
//! A supervisor starts it each time, and takes longer between two starts than its own limit for
//! loops counts, because a node loads its state first. Kills are not counted: they leave no note.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::unix_seconds;

/// One line for each time that the node ended itself.
const ENDS_FILE: &str = "ENDS";
/// So many ends within [`ENDS_WINDOW`] are a loop.
const ENDS_MAX: usize = 5;
const ENDS_WINDOW: Duration = Duration::from_secs(10 * 60);
/// Older lines go.
const LINES_MAX: usize = 16;

/// The node ended itself too often.
#[derive(Debug, thiserror::Error)]
#[error(
    "this node has ended itself {ends} times within ten minutes, the last time: {last}; it stays \
     down: find out why, then delete {} to start it at once, or wait ten minutes",
    path.display()
)]
pub struct RestartLoop {
    pub path: PathBuf,
    pub ends: usize,
    pub last: String,
}

/// Notes why this node ends itself. Called on the way to an abort, so nothing in it may fail it.
pub fn note_end(data_dir: &Path, reason: &str) {
    if let Err(error) = append(data_dir, reason, SystemTime::now()) {
        tracing::warn!(%error, "the end of this node is not noted");
    }
}

fn append(data_dir: &Path, reason: &str, now: SystemTime) -> io::Result<()> {
    let path = data_dir.join(ENDS_FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.push(format!("{} {}", unix_seconds(now), reason.replace('\n', " ")));
    lines.drain(..lines.len().saturating_sub(LINES_MAX));
    std::fs::write(path, lines.join("\n") + "\n")
}

/// Whether the node may start once more.
///
/// # Errors
/// It ended itself five times within the last ten minutes.
pub fn admit_restart(data_dir: &Path, now: SystemTime) -> Result<(), RestartLoop> {
    let path = data_dir.join(ENDS_FILE);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    let earliest = unix_seconds(now).saturating_sub(ENDS_WINDOW.as_secs());
    let seconds = |line: &str| line.split(' ').next().and_then(|at| at.parse::<u64>().ok());
    let recent: Vec<&str> =
        text.lines().filter(|line| seconds(line).is_some_and(|at| at >= earliest)).collect();
    match recent.last() {
        Some(last) if recent.len() >= ENDS_MAX => {
            let last = last.split_once(' ').map_or(*last, |(_, reason)| reason).to_owned();
            Err(RestartLoop { path, ends: recent.len(), last })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn five_ends_within_ten_minutes_keep_the_node_down_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        // A minute apart, as with a large state: a supervisor would not see a loop.
        for n in 0..4 {
            append(dir.path(), "panic: first", at(n * 60)).unwrap();
            admit_restart(dir.path(), at(n * 60 + 1)).unwrap();
        }
        append(dir.path(), "panic: index\nout of bounds", at(240)).unwrap();
        let refused = admit_restart(dir.path(), at(241)).unwrap_err().to_string();
        assert!(refused.contains("5 times"), "{refused}");
        assert!(refused.contains("panic: index out of bounds"), "{refused}");
        admit_restart(dir.path(), at(601)).unwrap();
        for n in 0..100 {
            append(dir.path(), "again", at(n)).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join(ENDS_FILE)).unwrap();
        assert_eq!(text.lines().count(), LINES_MAX);
    }
}
