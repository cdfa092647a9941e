//! What goes first where slots are scarce.

use std::fmt;

use super::{Candidate, part};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// At this age, in days since the last compaction, age counts in full.
const AGE_DAYS: f64 = 30.0;
/// At this size of all inputs, size counts in full.
const SIZE_BYTES: i64 = 10 << 30;

/// A weighted sum of four factors, in thousandths, each of them 0 to 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Priority {
    /// Deleted rows, of all.
    pub(crate) delete: i64,
    /// What is missing for the inputs to be full segments.
    pub(crate) fragmentation: i64,
    pub(crate) age: i64,
    pub(crate) size: i64,
}

impl Priority {
    #[allow(clippy::cast_precision_loss, reason = "a proportion")]
    pub(super) fn of(inputs: &[&Candidate], rows_max: i64, now_ms: u64) -> Priority {
        let sum = |of: fn(&Candidate) -> i64| {
            inputs.iter().fold(0, |sum: i64, input| sum.saturating_add(of(input)))
        };
        let rows = sum(|input| input.rows);
        let deleted = sum(|input| input.delta_rows);
        let capacity = rows_max.saturating_mul(i64::try_from(inputs.len()).unwrap_or(i64::MAX));
        let made_at_ms = inputs.iter().map(|input| input.made_at_ms).min().unwrap_or(now_ms);
        let days = now_ms.saturating_sub(made_at_ms) as f64 / DAY_MS as f64;
        Priority {
            delete: if deleted == 0 { 0 } else { milli(part(deleted, rows)) },
            fragmentation: milli(1.0 - part(rows, capacity)),
            age: milli(days / AGE_DAYS),
            size: milli(part(sum(|input| input.size_bytes), SIZE_BYTES)),
        }
    }

    pub(crate) fn factors(self) -> [i64; 4] {
        [self.delete, self.fragmentation, self.age, self.size]
    }

    /// In thousandths.
    pub(crate) fn total(self) -> i64 {
        let Priority { delete, fragmentation, age, size } = self;
        (4 * delete + 3 * fragmentation + 2 * age + size) / 10
    }
}

#[allow(clippy::cast_possible_truncation, reason = "clamped")]
fn milli(part: f64) -> i64 {
    (part.clamp(0.0, 1.0) * 1000.0).round() as i64
}

impl fmt::Display for Priority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [delete, fragmentation, age, size] = self.factors();
        write!(
            out,
            "priority {} = 0.4 x {delete} deleted + 0.3 x {fragmentation} fragmented \
             + 0.2 x {age} age + 0.1 x {size} size",
            self.total()
        )
    }
}
