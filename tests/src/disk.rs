//! The disk under a test.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two writes: seldom enough not to be a load.
const EVERY: Duration = Duration::from_millis(20);

/// Writes and syncs one small file again and again beside a test whose servers sync, too: how long
/// the longest took tells a disk that stood still from a server that did.
pub struct SyncedWrites {
    stop: Sender<()>,
    thread: JoinHandle<Duration>,
}

impl SyncedWrites {
    /// Begins, in a folder that exists.
    ///
    /// # Panics
    /// The folder cannot be written to.
    #[must_use]
    pub fn start(folder: &Path) -> SyncedWrites {
        let mut file = File::create(folder.join("synced-writes")).expect("a folder of the test");
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while stopped.recv_timeout(EVERY).is_err() {
                let began = Instant::now();
                file.rewind().and_then(|()| file.write_all(b"tick")).expect("the file is open");
                file.sync_data().expect("the disk takes it");
                longest = longest.max(began.elapsed());
            }
            longest
        });
        SyncedWrites { stop, thread }
    }

    /// How long the longest write took since the start.
    ///
    /// # Panics
    /// A write failed.
    #[must_use]
    pub fn longest(self) -> Duration {
        self.stop.send(()).expect("it waits for that");
        self.thread.join().expect("every write succeeds")
    }
}
