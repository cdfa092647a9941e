//! One server process: started, signalled and reaped by its pid, and killed when dropped.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process of ours that may be running, stopped by a signal, or gone.
#[derive(Debug)]
pub struct Process {
    name: String,
    binary: PathBuf,
    args: Vec<String>,
    log_path: PathBuf,
    child: Option<Child>,
    stopped: bool,
}

impl Process {
    /// A process that is not running yet. Its output is appended to `log_path`.
    #[must_use]
    pub fn new(name: &str, binary: &Path, args: Vec<String>, log_path: PathBuf) -> Process {
        Process {
            name: name.to_owned(),
            binary: binary.to_owned(),
            args,
            log_path,
            child: None,
            stopped: false,
        }
    }

    /// The shell line that starts this process.
    #[must_use]
    pub fn command_line(&self) -> String {
        format!("{} {}", self.binary.display(), self.args.join(" "))
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// Replaces the arguments of the next start.
    pub fn set_args(&mut self, args: Vec<String>) {
        self.args = args;
    }

    /// Adds arguments for the next start.
    pub fn add_args(&mut self, args: impl IntoIterator<Item = String>) {
        self.args.extend(args);
    }

    /// Starts the process.
    ///
    /// # Errors
    /// It runs already, or the binary cannot be run.
    pub fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} is already running", self.name);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_path)
            .with_context(|| format!("opening {}", self.log_path.display()))?;
        let child = Command::new(&self.binary)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.command_line()))?;
        self.child = Some(child);
        self.stopped = false;
        Ok(())
    }

    /// The pid of the running process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// True between a stop and a continue.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// True while it was started and not ended by us. It may have exited by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Its exit status where it ended without us.
    pub fn exited_by_itself(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Forgets a process that has exited by itself, so that it can be started again.
    pub fn forget(&mut self) {
        if self.exited_by_itself().is_some() {
            self.child = None;
            self.stopped = false;
        }
    }

    /// SIGKILL, returned at once: [`Process::reap`] must follow.
    ///
    /// # Errors
    /// It is not running, or had exited by itself before.
    pub fn send_kill(&mut self) -> Result<Instant> {
        if let Some(status) = self.exited_by_itself() {
            bail!("{} had exited by itself before it was to be killed: {status}", self.name);
        }
        self.signal(Signal::SIGKILL)?;
        Ok(Instant::now())
    }

    /// Waits for a killed process to be gone.
    ///
    /// # Errors
    /// It ended in another way than by SIGKILL.
    pub fn reap(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            bail!("{} is not running", self.name);
        };
        self.stopped = false;
        let status = child.wait()?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            bail!("{} was to end by SIGKILL but ended with {status}", self.name);
        }
        Ok(())
    }

    /// SIGKILL, then waits until it is gone.
    ///
    /// # Errors
    /// As [`Process::send_kill`] and [`Process::reap`].
    pub fn kill(&mut self) -> Result<Instant> {
        let at = self.send_kill()?;
        self.reap()?;
        Ok(at)
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// It is not running.
    pub fn stop(&mut self) -> Result<Instant> {
        self.signal(Signal::SIGSTOP)?;
        self.stopped = true;
        Ok(Instant::now())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.stopped = false;
        Ok(())
    }

    /// SIGTERM, then SIGKILL after `grace`. True where it ended by itself with status 0 or by the
    /// signal.
    pub fn terminate(&mut self, grace: Duration) -> bool {
        if self.stopped {
            let _ = self.resume();
        }
        if self.signal(Signal::SIGTERM).is_err() {
            return false;
        }
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if let Some(status) = self.exited_by_itself() {
                self.child = None;
                return status.success() || status.signal() == Some(Signal::SIGTERM as i32);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.kill();
        false
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid() else {
            bail!("{} is not running, so it cannot get {signal}", self.name);
        };
        kill(Pid::from_raw(i32::try_from(pid)?), signal)
            .with_context(|| format!("sending {signal} to {} (pid {pid})", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
