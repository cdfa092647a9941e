//! The process that serves the FUSE disks of a cluster. It is separate from the driver: the driver
//! waits for nodes, and a node waits for its disk, so one process for both could deadlock.
//!
//! Orders come as lines of JSON on standard input, answers go to standard output;
//! [`driver`](super::driver) makes both ends of one socket of them. When that closes, whoever gave
//! the orders is gone: every call is aborted and the disks are unmounted.

use std::io::{BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fuser::{BackgroundSession, Config, MountOption};
use serde::{Deserialize, Serialize};

use super::cut::Dropped;
use super::fault::Faults;
use super::mounted::Mounted;
use super::shelf::Shelf;

/// Calls that one disk serves at once: slow ones must not hold up all others.
const N_THREADS: usize = 4;
/// How long a killed node may take to let its disk go.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);
/// Where the kernel shows its FUSE connections.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// What the process is asked to do. Disks are named by their number.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Order {
    /// Every call to these waits, from one instant on.
    Freeze { disks: Vec<usize> },
    /// Calls that waited go on.
    Thaw { disks: Vec<usize> },
    /// Cuts the power of these: calls that wait fail, and nothing of that time has an effect any
    /// more.
    Cut { disks: Vec<usize>, seed: u64 },
    /// Mounts these again after a cut. No process may use them.
    Remount { disks: Vec<usize> },
    /// Replaces what one is made to do.
    Faults { disk: usize, faults: Faults },
    /// Flips bits in one random file whose path contains `below`.
    Flip { disk: usize, below: String, n_bits: u64, seed: u64 },
}

/// What it answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Answer {
    Done,
    /// The kernel's numbers of the connections, by disk: what aborts them.
    Mounted {
        connections: Vec<u64>,
    },
    Cut {
        dropped: Vec<Dropped>,
    },
    Flipped {
        path: PathBuf,
    },
    Failed {
        error: String,
    },
}

/// Serves disks until standard input ends.
///
/// # Errors
/// Not root, no `/dev/fuse`, or a mountpoint that cannot be used.
pub fn serve(n_bytes: u64, mountpoints: &[PathBuf]) -> Result<()> {
    ensure!(Path::new("/dev/fuse").exists(), "no /dev/fuse: this kernel or container has no FUSE");
    show_connections()?;
    let shelf = Shelf::new(mountpoints.len(), n_bytes);
    let mut disks: Vec<Served> = Vec::new();
    for (number, mountpoint) in mountpoints.iter().enumerate() {
        disks.push(Served::mount(&shelf, number, mountpoint)?);
    }
    answer(&mounted(&disks))?;
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let done = serde_json::from_str(&line)
            .with_context(|| format!("the order {line}"))
            .and_then(|order| obey(&shelf, &mut disks, order));
        answer(&done.unwrap_or_else(|error| Answer::Failed { error: format!("{error:#}") }))?;
    }
    for disk in &mut disks {
        abort(disk.connection);
        let _ = disk.unmount();
    }
    Ok(())
}

fn obey(shelf: &Shelf, disks: &mut [Served], order: Order) -> Result<Answer> {
    let n_disks = disks.len();
    let known = |numbers: &[usize]| match numbers.iter().find(|number| **number >= n_disks) {
        Some(number) => bail!("disk {number}: there are {n_disks}"),
        None => Ok(()),
    };
    match order {
        Order::Freeze { disks } => known(&disks).map(|()| shelf.freeze(&disks))?,
        Order::Thaw { disks } => known(&disks).map(|()| shelf.thaw(&disks))?,
        Order::Faults { disk, faults } => {
            known(&[disk]).map(|()| shelf.set_faults(disk, faults))?;
        }
        Order::Cut { disks, seed } => {
            known(&disks)?;
            return Ok(Answer::Cut { dropped: shelf.cut(&disks, seed) });
        }
        Order::Remount { disks: numbers } => {
            known(&numbers)?;
            for number in numbers {
                disks[number].unmount()?;
                let mountpoint = disks[number].mountpoint.clone();
                disks[number] = Served::mount(shelf, number, &mountpoint)?;
            }
            return Ok(mounted(disks));
        }
        Order::Flip { disk, below, n_bits, seed } => {
            known(&[disk])?;
            return Ok(Answer::Flipped { path: shelf.flip(disk, &below, n_bits, seed)? });
        }
    }
    Ok(Answer::Done)
}

fn mounted(disks: &[Served]) -> Answer {
    Answer::Mounted { connections: disks.iter().map(|disk| disk.connection).collect() }
}

fn answer(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes())?;
    Ok(output.flush()?)
}

/// One disk, mounted until it is unmounted.
struct Served {
    mountpoint: PathBuf,
    connection: u64,
    session: Option<BackgroundSession>,
}

impl Served {
    fn mount(shelf: &Shelf, number: usize, mountpoint: &Path) -> Result<Served> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("quorate-chaos".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        config.n_threads = Some(N_THREADS);
        let mounted = Mounted::new(shelf.clone(), number);
        let session = fuser::spawn_mount(mounted, mountpoint, &config)
            .with_context(|| format!("mounting {} (as root?)", mountpoint.display()))?;
        let device = std::fs::metadata(mountpoint)?.dev();
        let connection = (device & 0xff) | ((device >> 12) & !0xff);
        Ok(Served { mountpoint: mountpoint.to_owned(), connection, session: Some(session) })
    }

    fn unmount(&mut self) -> Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let deadline = Instant::now() + UNMOUNT_PATIENCE;
        while let Err(error) = run(Command::new("umount").arg(&self.mountpoint)) {
            if Instant::now() > deadline {
                let _ = run(Command::new("umount").arg("--lazy").arg(&self.mountpoint));
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        session.join().context("serving a disk")
    }
}

/// Ends every call of a connection with an error, also where its process is gone.
pub(super) fn abort(connection: u64) {
    // Where it is gone there is nothing to abort.
    let _ = std::fs::write(format!("{CONNECTIONS}/{connection}/abort"), "1");
}

fn show_connections() -> Result<()> {
    let are_shown = || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        Ok::<bool, anyhow::Error>(mounts.split_ascii_whitespace().any(|it| it == CONNECTIONS))
    };
    if are_shown()? {
        return Ok(());
    }
    let mounted = run(Command::new("mount").args(["-t", "fusectl", "fusectl", CONNECTIONS]));
    // Another process may have been faster.
    if are_shown()? { Ok(()) } else { mounted }
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("running {line}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}", error.trim());
    Ok(())
}
