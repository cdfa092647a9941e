//! Bytes, times and ids as people read them, and keys as people type them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// A key or value for the screen: text where it is text, `\x..` for all else.
pub(super) fn show_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// A node id as etcd's tools print it.
pub(super) fn show_id(id: u64) -> String {
    format!("{id:016x}")
}

pub(super) fn full_digest(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The two largest units of a time span.
pub(super) fn show_span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (_, _, _) => format!("{days}d{hours:02}h"),
    }
}

/// How long ago a time on the wall clock was.
pub(super) fn since(epoch_ms: u64) -> Option<Duration> {
    if epoch_ms == 0 {
        return None;
    }
    let then = UNIX_EPOCH + Duration::from_millis(epoch_ms);
    Some(wall_clock().duration_since(then).unwrap_or_default())
}

pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The first key behind all that start with `prefix`; `\0` stands for the end of the keyspace.
pub(super) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(b"\0")
}
