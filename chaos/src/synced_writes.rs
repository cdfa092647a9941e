//! The disk under a measurement.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::numbers::{max, median, millis, percentile};

/// Between two writes: seldom enough not to be a load.
const EVERY: Duration = Duration::from_millis(20);

/// Writes and syncs one small file again and again beside servers that sync, too: how long that took
/// tells a disk that stood still from a server that did.
pub struct SyncedWrites {
    stop: Sender<()>,
    thread: JoinHandle<std::io::Result<Vec<f64>>>,
}

/// How long one synced write took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskReport {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
}

impl SyncedWrites {
    /// Begins, in a folder that exists.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn start(folder: &Path) -> Result<SyncedWrites> {
        let path = folder.join("synced-writes");
        let mut file =
            File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                file.rewind()?;
                file.write_all(b"tick")?;
                file.sync_data()?;
                took.push(millis(began.elapsed()));
            }
            Ok(took)
        });
        Ok(SyncedWrites { stop, thread })
    }

    /// Ends it.
    ///
    /// # Errors
    /// A write failed.
    pub fn end(self) -> Result<DiskReport> {
        drop(self.stop);
        let ended = self.thread.join().map_err(|_panic| anyhow!("the synced writes panicked"))?;
        let took = ended.context("synced writes beside a measurement")?;
        Ok(DiskReport {
            p50_ms: median(&took),
            p99_ms: percentile(&took, 0.99),
            longest_ms: max(&took),
        })
    }
}
