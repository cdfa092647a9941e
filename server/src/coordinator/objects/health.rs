//! How the calls on the object store go, for metrics and explanations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ObjectError;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Timeout,
    /// The store answered with an error, or could not be reached.
    Failed,
}

impl Outcome {
    pub(crate) const ALL: [Outcome; 3] = [Outcome::Ok, Outcome::Timeout, Outcome::Failed];

    /// Label of the metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Timeout => "timeout",
            Outcome::Failed => "failed",
        }
    }

    fn of(result: Result<(), &ObjectError>) -> Outcome {
        match result {
            // That an object is not there is an answer, too. A path that is none was never asked for.
            Ok(()) | Err(ObjectError::Missing { .. } | ObjectError::Path(_)) => Outcome::Ok,
            Err(ObjectError::Timeout { .. }) => Outcome::Timeout,
            Err(ObjectError::Store { .. } | ObjectError::Misconfigured(_)) => Outcome::Failed,
        }
    }
}

/// Of one store. Cheap to share.
#[derive(Clone, Default)]
pub(super) struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    counts: [u64; Outcome::ALL.len()],
    /// Since the first failure after the last success.
    failing: Option<(Instant, String)>,
}

/// What is known of the store at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreHealth {
    /// Calls by how they ended, in the order of [`Outcome::ALL`].
    pub(crate) counts: [u64; Outcome::ALL.len()],
    /// For how long no call has succeeded, and what the newest one failed with; `None` while calls
    /// succeed.
    pub(crate) failing: Option<(Duration, String)>,
}

impl Health {
    pub(super) fn note(&self, result: Result<(), &ObjectError>) {
        let outcome = Outcome::of(result);
        let mut inner = self.inner.lock();
        for (count, known) in inner.counts.iter_mut().zip(Outcome::ALL) {
            *count += u64::from(known == outcome);
        }
        match (outcome, result) {
            (Outcome::Ok, _) | (_, Ok(())) => inner.failing = None,
            (Outcome::Timeout | Outcome::Failed, Err(error)) => {
                let since = inner.failing.take().map_or_else(Instant::now, |(since, _)| since);
                inner.failing = Some((since, reason(error)));
            }
        }
    }

    pub(super) fn read(&self) -> StoreHealth {
        let inner = self.inner.lock();
        let failing = inner.failing.as_ref();
        StoreHealth {
            counts: inner.counts,
            failing: failing.map(|(since, reason)| (since.elapsed(), reason.clone())),
        }
    }
}

/// The whole chain of an error in a line: what the store answered is at its end.
pub(crate) fn reason(error: &ObjectError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(REASON_CHARS_MAX).collect()
}

/// A store may answer with a page of text.
const REASON_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_fails_from_the_first_failure_until_the_next_success() {
        let health = Health::default();
        let timeout = || ObjectError::Timeout { path: "a".to_owned(), limit: Duration::ZERO };
        assert_eq!(health.read().failing, None);
        health.note(Err(&timeout()));
        health.note(Err(&ObjectError::Misconfigured("x".to_owned())));
        let failing = health.read();
        assert_eq!(failing.counts, [0, 1, 1]);
        let (_, reason) = failing.failing.expect("it fails");
        assert_eq!(reason, "the object store is not configured: x");
        health.note(Err(&ObjectError::Missing { path: "a".to_owned() }));
        assert_eq!(health.read(), StoreHealth { counts: [1, 1, 1], failing: None });
    }
}
