//! One node of `quorate dev`: a process, its ports and its log file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};

/// Longer than the default of `shutdown-timeout`.
const STOP_WITHIN: Duration = Duration::from_secs(15);

const LOG_TAIL_BYTES: u64 = 16 << 10;
const LOG_TAIL_LINES: usize = 5;

pub(super) struct DevNode {
    pub(super) name: String,
    port: u16,
    data_dir: PathBuf,
    log_path: PathBuf,
    arguments: Vec<String>,
    process: Option<Process>,
    /// When the process ended, within the last minute.
    ends: Vec<Instant>,
}

struct Process {
    child: Child,
    /// Closed when this process ends in whatever way: the node then stops by itself.
    _lifeline: ChildStdin,
}

/// How a node's process ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    /// By us, because it did not stop in time.
    Killed,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }
}

impl DevNode {
    pub(super) fn new(name: String, port: u16, root: &Path) -> DevNode {
        DevNode {
            data_dir: root.join(&name),
            log_path: root.join(format!("{name}.log")),
            name,
            port,
            arguments: Vec::new(),
            process: None,
            ends: Vec::new(),
        }
    }

    pub(super) fn client_address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 1)
    }

    pub(super) fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 2)
    }

    pub(super) fn log_path(&self) -> &Path {
        &self.log_path
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(|process| process.child.id())
    }

    pub(super) fn use_settings(&mut self, initial_cluster: &str, more: &[String]) {
        let data_dir = self.data_dir.display().to_string();
        let settings = [
            ("--name", self.name.as_str()),
            ("--data-dir", &data_dir),
            ("--listen-client", &self.client_address()),
            ("--listen-peer", &self.peer_address()),
            ("--listen-http", &self.http_address()),
            ("--initial-cluster", initial_cluster),
        ]
        .map(|(name, value)| [name.to_owned(), value.to_owned()])
        .concat();
        self.arguments =
            [vec!["serve".to_owned(), "--stop-with-stdin".to_owned()], settings].concat();
        self.arguments.extend_from_slice(more);
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_path)
            .with_context(|| format!("cannot write {}", self.log_path.display()))?;
        let binary = std::env::current_exe().context("cannot find this program itself")?;
        let mut child = Command::new(binary)
            .args(&self.arguments)
            // A node has its own ports; settings of a shell for one `serve` must not move them.
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| !name.starts_with("QUORATE_")))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C reaches only this process, which then stops the nodes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let lifeline = child.stdin.take().context("the node has no standard input")?;
        self.process = Some(Process { child, _lifeline: lifeline });
        Ok(())
    }

    /// How the process ended, if it did since the last start.
    pub(super) fn exited(&mut self) -> anyhow::Result<Option<Exit>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let Some(status) = process.child.try_wait()? else { return Ok(None) };
        self.process = None;
        self.ends.retain(|end| end.elapsed() < Duration::from_secs(60));
        self.ends.push(Instant::now());
        Ok(Some(Exit::from(status)))
    }

    pub(super) fn recent_ends(&self) -> usize {
        self.ends.len()
    }

    /// What happened and the last words of its log.
    pub(super) fn why_it_ended(&self, exit: &Exit) -> String {
        let how = match exit {
            Exit::Code(code) => format!("ended with code {code}"),
            Exit::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => format!("was ended by {signal}"),
                Err(_) => format!("was ended by signal {number}"),
            },
            Exit::Killed => "had to be killed".to_owned(),
        };
        let tail = log_tail(&self.log_path).unwrap_or_default();
        format!("{} {how}; the end of {}:\n{tail}", self.name, self.log_path.display())
    }

    /// Asks the process to stop, and ends it when it does not.
    pub(super) async fn stop(mut self) -> (String, Exit) {
        let Some(mut process) = self.process.take() else { return (self.name, Exit::Code(0)) };
        if let Some(pid) = process.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by now; the wait below tells.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        match tokio::time::timeout(STOP_WITHIN, process.child.wait()).await {
            Ok(Ok(status)) => (self.name, Exit::from(status)),
            Ok(Err(_)) | Err(_) => {
                let _ = process.child.kill().await;
                (self.name, Exit::Killed)
            }
        }
    }
}

/// The errors near the end of the log, or its last lines where there are none.
fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let is_error = |line: &&str| line.contains("ERROR") || line.starts_with("quorate:");
    let errors: Vec<&str> = lines.iter().copied().filter(|line| is_error(line)).collect();
    let told = if errors.is_empty() { &lines } else { &errors };
    let start = told.len().saturating_sub(LOG_TAIL_LINES);
    Ok(told[start..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"))
}
