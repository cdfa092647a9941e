//! What time it is for the object store: its answers say it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

/// Cheap to share.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreClock {
    /// The newest time, and when it was heard.
    heard: Arc<Mutex<Option<(SystemTime, Instant)>>>,
}

impl StoreClock {
    /// Takes the time from the headers of an answer. A store that sends none, or nonsense, has no
    /// clock that we know of.
    pub(super) fn hear(&self, headers: &http::HeaderMap) {
        let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        if let Some(time) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            *self.heard.lock() = Some((time, Instant::now()));
        }
    }

    /// The last time that was heard, and what has passed since then.
    pub(super) fn now(&self) -> Option<SystemTime> {
        let (time, at) = (*self.heard.lock())?;
        time.checked_add(at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_answer_and_goes_on() {
        let clock = StoreClock::default();
        let hear = |date: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::DATE, http::HeaderValue::from_static(date));
            clock.hear(&headers);
        };
        assert_eq!(clock.now(), None);
        hear("Sun, 06 Nov 1994 08:49:37 GMT");
        let at = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let now = clock.now().expect("a time");
        assert!(now >= at && now < at + Duration::from_secs(60), "{now:?}");
        hear("yesterday");
        clock.hear(&http::HeaderMap::new());
        assert!(
            clock.now().expect("a time") < at + Duration::from_secs(60),
            "nonsense says nothing"
        );
    }
}
