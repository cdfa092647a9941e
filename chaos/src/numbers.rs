//! The few conversions between number types that a measuring program needs, each saying what
//! happens at its edge.

use std::time::Duration;

/// Whole microseconds; saturates after 584,000 years.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds with their fraction.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A count as a float, exact below 2^53.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// A number of things as a float.
#[must_use]
pub fn float_len(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

/// An index out of a random word.
#[must_use]
pub fn index(word: u64, n_things: usize) -> usize {
    let n_things = u64::try_from(n_things.max(1)).unwrap_or(1);
    usize::try_from(word % n_things).unwrap_or(0)
}

/// A length as the signed number that the wire wants.
#[must_use]
pub fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The middle of the values (the lower one of two); 0 of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The value that so large a part of all does not exceed; 0 of none.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index below the number of values"
)]
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (float_len(sorted.len()) * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The largest value; 0 of none.
#[must_use]
pub fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn the_median_of_an_even_number_is_the_lower_one() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
        assert!((percentile(&[4.0, 1.0, 3.0, 2.0], 0.99) - 4.0).abs() < f64::EPSILON);
        assert!((percentile(&[4.0, 1.0, 3.0, 2.0], 0.5) - 2.0).abs() < f64::EPSILON);
    }
}
