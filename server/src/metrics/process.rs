//! What the kernel says of this process.

use std::time::Instant;

use super::page::Page;

/// Memory that the process really has, in bytes; 0 where the kernel does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kib_of(&status, "VmRSS:").unwrap_or_default() << 10
}

fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

pub(super) fn write(page: &mut Page, started: Instant) {
    page.gauge(
        "process_resident_memory_bytes",
        "Memory that the process really has",
        resident_bytes(),
    );
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    page.gauge("process_open_fds", "Open files and sockets", files as u64);
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    page.gauge("process_threads_count", "Threads", threads as u64);
    page.gauge(
        "quorate_process_uptime_seconds",
        "Since the process started",
        started.elapsed().as_secs(),
    );
}
