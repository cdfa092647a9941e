//! Attempts to build a snapshot that failed, and when the next one may begin.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Pause after the first failure; doubles with each one that follows.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Snapshots cannot be built at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildTrouble {
    /// Attempts in a row that failed.
    pub attempts: u32,
    pub since: SystemTime,
    /// Of the last attempt.
    pub error: String,
}

#[derive(Default)]
pub(super) struct Attempts(Mutex<Option<Failed>>);

struct Failed {
    trouble: BuildTrouble,
    retry_at: Instant,
}

impl Attempts {
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.0.lock().as_ref().is_none_or(|failed| now >= failed.retry_at)
    }

    pub(super) fn trouble(&self) -> Option<BuildTrouble> {
        self.0.lock().as_ref().map(|failed| failed.trouble.clone())
    }

    pub(super) fn succeeded(&self) {
        *self.0.lock() = None;
    }

    /// Returns how many attempts in a row have failed.
    pub(super) fn failed(&self, error: &str, now: Instant) -> u32 {
        let mut failed = self.0.lock();
        let earlier = failed.take().map(|failed| failed.trouble);
        let attempts = earlier.as_ref().map_or(0, |trouble| trouble.attempts).saturating_add(1);
        let pause = PAUSE.saturating_mul(1 << (attempts - 1).min(6)).min(PAUSE_MAX);
        let since = earlier.map_or_else(SystemTime::now, |trouble| trouble.since);
        let trouble = BuildTrouble { attempts, since, error: error.to_owned() };
        *failed = Some(Failed { trouble, retry_at: now + pause });
        attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_attempts_doubles_up_to_a_minute() {
        let attempts = Attempts::default();
        let start = Instant::now();
        assert!(attempts.may_try(start));
        for (n, pause_s) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert_eq!(attempts.failed("too many open files", start), n);
            let due = start + Duration::from_secs(pause_s);
            assert!(!attempts.may_try(due - Duration::from_millis(1)));
            assert!(attempts.may_try(due));
        }
        assert_eq!(attempts.trouble().unwrap().attempts, 8);
        attempts.succeeded();
        assert!(attempts.may_try(start));
        assert_eq!(attempts.trouble(), None);
    }
}
