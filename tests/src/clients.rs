//! Where each foreign client comes from. A missing one fails the test with what to install.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Top of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the top").into()
}

/// Debian's `etcdctl` 3.4 (package `etcd-client`), ready for the given endpoints.
#[must_use]
pub fn etcdctl(endpoints: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args([
        "--endpoints",
        endpoints,
        "--dial-timeout",
        "5s",
        "--command-timeout",
        "15s",
    ]);
    command
}

/// The interpreter of an environment with the pinned packages of `tests/clients/python`.
///
/// # Panics
/// The environment cannot be made.
#[must_use]
pub fn python() -> PathBuf {
    environment("clients", "tests/clients/python/requirements.txt").join("bin/python")
}

/// The interpreter of an environment with the real Milvus 2.3.5 and its client.
///
/// # Panics
/// The environment cannot be made.
#[must_use]
pub fn milvus_python() -> PathBuf {
    environment("milvus", "tests/milvus/requirements.txt").join("bin/python")
}

fn environment(name: &str, requirements: &str) -> PathBuf {
    let mut command = Command::new("tests/venv");
    command.args([name, requirements]).current_dir(repository());
    let said = run(&mut command, "", Duration::from_secs(600));
    assert!(said.success, "installing {requirements}: {}{}", said.stdout, said.stderr);
    PathBuf::from(said.stdout.trim())
}

/// Runs a command to its end with the given input; it is killed at the deadline.
///
/// # Panics
/// The command cannot be started, does not end in time, or says something that is not UTF-8.
#[must_use]
pub fn run(command: &mut Command, stdin: &str, patience: Duration) -> Said {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}; `make setup` installs it"));
    let mut input = child.stdin.take().expect("piped above");
    // A command that reads nothing may be gone already.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let stdout = read_all(child.stdout.take().expect("piped above"));
    let stderr = read_all(child.stderr.take().expect("piped above"));
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let said = stdout.join().expect("the reader does not panic");
            panic!("{shown}: not done within {patience:?}; so far: {said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Said {
        success: status.success(),
        code: status.code(),
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    }
}

fn read_all(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
