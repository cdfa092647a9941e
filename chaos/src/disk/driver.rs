//! Starts the process of the disks and gives it orders.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::control::{Answer, Order, abort, run};
use super::cut::Dropped;
use super::fault::Faults;

/// No order takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Mounted disks, aborted and unmounted when dropped.
#[derive(Debug)]
pub struct Disks {
    child: Child,
    orders: UnixStream,
    answers: BufReader<UnixStream>,
    mountpoints: Vec<PathBuf>,
    connections: Vec<u64>,
}

impl Disks {
    /// Mounts a disk of `n_bytes` at each of `mountpoints`, which are made. `program` is this one,
    /// `quorate-chaos`.
    ///
    /// # Errors
    /// Not root, or this kernel has no FUSE.
    pub fn start(program: &Path, n_bytes: u64, mountpoints: &[PathBuf]) -> Result<Disks> {
        for mountpoint in mountpoints {
            std::fs::create_dir_all(mountpoint)
                .with_context(|| format!("making {}", mountpoint.display()))?;
        }
        let (orders, theirs) = UnixStream::pair().context("the socket to the disks")?;
        orders.set_read_timeout(Some(PATIENCE))?;
        let child = Command::new(program)
            .args(["disks", "--bytes", &n_bytes.to_string()])
            .args(mountpoints)
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            // Ctrl-C is for whoever gives the orders: the disks outlive the nodes.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {} disks", program.display()))?;
        let answers = BufReader::new(orders.try_clone()?);
        let (mountpoints, connections) = (mountpoints.to_vec(), Vec::new());
        let mut disks = Disks { child, orders, answers, mountpoints, connections };
        let answer = disks.answer()?;
        disks.note(answer)?;
        Ok(disks)
    }

    /// The numbers of all.
    #[must_use]
    pub fn all(&self) -> Vec<usize> {
        (0..self.mountpoints.len()).collect()
    }

    /// Every call to these waits, from one instant on.
    ///
    /// # Errors
    /// The process of the disks is gone.
    pub fn freeze(&mut self, disks: &[usize]) -> Result<()> {
        self.give(&Order::Freeze { disks: disks.to_vec() }).map(drop)
    }

    /// Calls that waited go on.
    ///
    /// # Errors
    /// As [`Disks::freeze`].
    pub fn thaw(&mut self, disks: &[usize]) -> Result<()> {
        self.give(&Order::Thaw { disks: disks.to_vec() }).map(drop)
    }

    /// Cuts the power of these: what was not synced is lost but for a drawn part.
    ///
    /// # Errors
    /// As [`Disks::freeze`].
    pub fn cut(&mut self, disks: &[usize], seed: u64) -> Result<Vec<Dropped>> {
        let answer = self.give(&Order::Cut { disks: disks.to_vec(), seed })?;
        if let Answer::Cut { dropped } = answer {
            return Ok(dropped);
        }
        bail!("a cut was answered with {answer:?}")
    }

    /// Mounts these again, after a cut and after their nodes are gone.
    ///
    /// # Errors
    /// Somebody still uses one, or as [`Disks::freeze`].
    pub fn remount(&mut self, disks: &[usize]) -> Result<()> {
        let answer = self.give(&Order::Remount { disks: disks.to_vec() })?;
        self.note(answer)
    }

    /// Replaces what a disk is made to do.
    ///
    /// # Errors
    /// As [`Disks::freeze`].
    pub fn set_faults(&mut self, disk: usize, faults: &Faults) -> Result<()> {
        self.give(&Order::Faults { disk, faults: faults.clone() }).map(drop)
    }

    /// Flips bits in a random file whose path contains `below`, and returns its path.
    ///
    /// # Errors
    /// There is none, or as [`Disks::freeze`].
    pub fn flip(&mut self, disk: usize, below: &str, n_bits: u64, seed: u64) -> Result<PathBuf> {
        let answer = self.give(&Order::Flip { disk, below: below.to_owned(), n_bits, seed })?;
        if let Answer::Flipped { path } = answer {
            return Ok(path);
        }
        bail!("flipped bits were answered with {answer:?}")
    }

    /// Ends every call that waits for one of the disks with an error.
    pub fn abort(&self) {
        self.connections.iter().for_each(|connection| abort(*connection));
    }

    fn give(&mut self, order: &Order) -> Result<Answer> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        self.orders.write_all(line.as_bytes()).context("an order to the disks")?;
        let answer = self.answer()?;
        if let Answer::Failed { error } = answer {
            bail!("the disks: {error}");
        }
        Ok(answer)
    }

    fn note(&mut self, answer: Answer) -> Result<()> {
        let Answer::Mounted { connections } = answer else {
            bail!("a mount was answered with {answer:?}");
        };
        self.connections = connections;
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        let n_bytes = self.answers.read_line(&mut line).context("an answer of the disks")?;
        if n_bytes == 0 {
            bail!("the process of the disks ended: see above; it needs root and /dev/fuse");
        }
        serde_json::from_str(&line).with_context(|| format!("the disks answered {line}"))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.abort();
        let _ = self.orders.shutdown(std::net::Shutdown::Both);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for mountpoint in &self.mountpoints {
            // It is unmounted already where its process ended as it should.
            let _ = run(Command::new("umount").arg("--lazy").arg(mountpoint));
        }
    }
}
