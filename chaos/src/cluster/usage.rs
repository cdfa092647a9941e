//! What a process has used, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel's clock ticks a second in `/proc/PID/stat`; 100 on every Linux that we run on.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of one process, all threads.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("reading the CPU time of pid {pid}"))?;
    parse_cpu_time(&stat).with_context(|| format!("reading the CPU time of pid {pid}"))
}

/// User and system time of several processes together.
///
/// # Errors
/// One of them does not exist.
pub fn cpu_time_of_all(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

/// Resident memory of one process, in bytes.
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("reading the memory of pid {pid}"))?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("no VmRSS for pid {pid}"))?;
    Ok(kib * 1024)
}

/// The command name is in parentheses and may hold spaces, so fields are counted after it.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_does_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 9 9 9";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(2)));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes(std::process::id()).expect("this process exists") > 1 << 16);
    }
}
