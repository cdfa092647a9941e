//! What people see: lines on standard output, with the time since the start.

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Prints one line of a report.
#[allow(clippy::print_stdout, reason = "the one place where this program speaks to people")]
pub fn line(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// Prints one line of progress to standard error, with the seconds since the first such line.
pub fn progress(text: impl AsRef<str>) {
    let start = START.get_or_init(Instant::now);
    eprintln!("[{:7.2} s] {}", start.elapsed().as_secs_f64(), text.as_ref());
}
