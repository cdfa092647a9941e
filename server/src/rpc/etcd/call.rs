//! What a call brings along beside its message: its deadline and its demand for a leader.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// When a call must be answered, and whose wish that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// Only a client whose own time is up may be told so: on the code `DeadlineExceeded` it would
    /// send a write again as long as it still waits.
    of_client: bool,
}

impl Deadline {
    pub(crate) fn of(metadata: &MetadataMap, default: Duration) -> Deadline {
        let now = Instant::now();
        match metadata.get("grpc-timeout").and_then(|value| timeout(value.as_bytes())) {
            Some(timeout) if timeout <= default => Deadline { at: now + timeout, of_client: true },
            Some(_) | None => Deadline { at: now + default, of_client: false },
        }
    }

    pub(crate) fn is_over_for_client(&self) -> bool {
        self.of_client && Instant::now() >= self.at
    }
}

/// Reads the value of a `grpc-timeout` header: up to eight digits and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Whether the client wants an error rather than a wait while there is no leader.
pub(crate) fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit() {
        assert_eq!(timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout(b"1500m"), Some(Duration::from_millis(1_500)));
        assert_eq!(timeout(b"99999999n"), Some(Duration::from_nanos(99_999_999)));
        for junk in [&b""[..], b"S", b"5", b"5x", b"123456789S", b"-1S"] {
            assert_eq!(timeout(junk), None, "{junk:?}");
        }
    }

    #[tokio::test]
    async fn only_a_clients_own_deadline_is_reported_as_one() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "0m".parse().unwrap());
        assert!(Deadline::of(&metadata, Duration::from_secs(7)).is_over_for_client());
        metadata.insert("grpc-timeout", "60S".parse().unwrap());
        let deadline = Deadline::of(&metadata, Duration::ZERO);
        assert!(deadline.at <= Instant::now() && !deadline.is_over_for_client());
    }
}
