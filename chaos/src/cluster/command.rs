//! Runs the `quorate` command line as an operator does, and reads its JSON.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a command wrote and how it ended.
#[derive(Debug)]
pub struct Output {
    pub succeeded: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end, or kills it after `patience`.
///
/// # Errors
/// It could not be run, or took too long.
pub async fn run(binary: &Path, args: &[&str], patience: Duration) -> Result<Output> {
    let line = format!("{} {}", binary.display(), args.join(" "));
    let child = tokio::process::Command::new(binary)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("running {line}"))?;
    let output = tokio::time::timeout(patience, child.wait_with_output())
        .await
        .with_context(|| format!("{line} did not end within {patience:?}"))??;
    Ok(Output {
        succeeded: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Copies a folder with all that is in it.
///
/// # Errors
/// Those of `cp`.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("--archive").args([from, to]).status()?;
    if !status.success() {
        bail!("copying {} to {}: {status}", from.display(), to.display());
    }
    Ok(())
}

/// Runs a command that must succeed and print JSON.
///
/// # Errors
/// As [`run`], or its exit code is not 0, or it printed something else.
pub async fn run_json(binary: &Path, args: &[&str], patience: Duration) -> Result<Value> {
    let mut with_output = args.to_vec();
    with_output.extend(["--output", "json"]);
    let output = run(binary, &with_output, patience).await?;
    if !output.succeeded {
        bail!("{} {}: {}{}", binary.display(), args.join(" "), output.stdout, output.stderr);
    }
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("{} printed no JSON: {}", args.join(" "), output.stdout))
}
