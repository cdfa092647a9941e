//! Rows per second of channels, from what data nodes report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use statemachine::view::Name;

/// Rates are averages of this long at least.
const SPAN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Rates {
    /// When, and rows of each channel until then.
    sample: Option<(Instant, BTreeMap<Name, i64>)>,
    rates: BTreeMap<Name, u64>,
}

impl Rates {
    /// Rows per second; empty until the first two samples are there. `rows` tells how many rows came
    /// through each channel so far, and is asked only when it is time.
    pub(super) fn take(
        &mut self,
        now: Instant,
        rows: impl FnOnce() -> BTreeMap<Name, i64>,
    ) -> &BTreeMap<Name, u64> {
        let age = self.sample.as_ref().map(|(at, _)| now.saturating_duration_since(*at));
        if age.is_some_and(|age| age < SPAN) {
            return &self.rates;
        }
        let rows = rows();
        if let (Some((_, before)), Some(age)) = (&self.sample, age) {
            let seconds = age.as_secs().max(1);
            let rate = |(channel, rows): (&Name, &i64)| {
                let more = rows - before.get(channel)?;
                Some((channel.clone(), u64::try_from(more).unwrap_or(0) / seconds))
            };
            self.rates = rows.iter().filter_map(rate).collect();
        }
        self.sample = Some((now, rows));
        &self.rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_averages_of_half_a_minute() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let rows = |a: i64| BTreeMap::from([(Name::from("a"), a)]);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(rates.take(at(0), || rows(500)).is_empty());
        assert!(rates.take(at(29), || panic!("too early")).is_empty());
        assert_eq!(rates.take(at(40), || rows(4500)).get(&Name::from("a")), Some(&100));
        // A channel that came back begins anew.
        assert_eq!(rates.take(at(80), || rows(10)).get(&Name::from("a")), Some(&0));
    }
}
