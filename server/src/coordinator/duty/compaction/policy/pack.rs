//! Fills plans with segments, towards the size of a full one.

use super::{Candidate, Group, Limits, Reason, Wish, part};

/// What one plan takes.
pub(super) struct Bucket<'a> {
    pub(super) segments: Vec<&'a Candidate>,
    pub(super) rows: i64,
    pub(super) reason: Reason,
}

impl<'a> Bucket<'a> {
    fn new(head: &'a Candidate, reason: Reason) -> Bucket<'a> {
        Bucket { segments: vec![head], rows: head.rows, reason }
    }

    fn push(&mut self, segment: &'a Candidate) {
        self.rows += segment.rows;
        self.segments.push(segment);
    }

    /// Takes what fits, in the given order. What is taken leaves `from`.
    fn fill(&mut self, from: &mut Vec<&'a Candidate>, rows_max: i64, segments_max: usize) {
        from.retain(|segment| {
            let fits = self.segments.len() < segments_max && segment.rows < rows_max - self.rows;
            if fits {
                self.push(segment);
            }
            !fits
        });
    }
}

pub(super) fn pack<'a>(group: &'a Group, limits: &Limits, wish: Wish) -> Vec<Bucket<'a>> {
    let rows_max = group.rows_max;
    let mut wanted: Vec<(&Candidate, Reason)> = Vec::new();
    let mut small: Vec<&Candidate> = Vec::new();
    let mut other: Vec<&Candidate> = Vec::new();
    for segment in &group.candidates {
        let reason = match wish {
            Wish::ByHand => Some(limits.reason(segment).unwrap_or(Reason::ByHand)),
            Wish::Automatic => limits.reason(segment),
        };
        match reason {
            Some(reason) => wanted.push((segment, reason)),
            None if limits.is_small(segment.rows, rows_max) => small.push(segment),
            None => other.push(segment),
        }
    }
    wanted.sort_by_key(|(segment, _)| (-segment.rows, segment.id));
    small.sort_by_key(|segment| (-segment.rows, segment.id));
    other.sort_by_key(|segment| (segment.rows, segment.id));

    let mut buckets = with_reasons(wanted, &mut small, rows_max, limits);
    let mut left = merge_small(&mut buckets, small, rows_max, limits);
    squeeze(&mut buckets, &mut left, rows_max, limits);
    attach(&mut buckets, left, other, rows_max, limits);
    buckets
}

/// Segments with a reason of their own: each goes, if need be alone.
fn with_reasons<'a>(
    mut wanted: Vec<(&'a Candidate, Reason)>,
    small: &mut Vec<&'a Candidate>,
    rows_max: i64,
    limits: &Limits,
) -> Vec<Bucket<'a>> {
    let mut buckets = Vec::new();
    while !wanted.is_empty() {
        let (head, reason) = wanted.remove(0);
        let mut bucket = Bucket::new(head, reason);
        wanted.retain(|(segment, _)| {
            let fits = bucket.segments.len() < limits.segments_max
                && segment.rows < rows_max - bucket.rows;
            if fits {
                bucket.push(segment);
            }
            !fits
        });
        bucket.fill(small, rows_max, limits.segments_max);
        buckets.push(bucket);
    }
    buckets
}

/// The largest small one and the smallest of the rest. Returns those for whom it does not pay.
fn merge_small<'a>(
    buckets: &mut Vec<Bucket<'a>>,
    mut small: Vec<&'a Candidate>,
    rows_max: i64,
    limits: &Limits,
) -> Vec<&'a Candidate> {
    let mut left = Vec::new();
    while !small.is_empty() {
        let mut bucket = Bucket::new(small.remove(0), Reason::Merge);
        small.reverse();
        bucket.fill(&mut small, rows_max, limits.segments_max);
        small.reverse();
        let is_full = part(bucket.rows, rows_max) > limits.compactable_proportion;
        let n_segments = bucket.segments.len();
        if n_segments >= limits.segments_min || (n_segments > 1 && is_full) {
            buckets.push(bucket);
        } else {
            left.append(&mut bucket.segments);
        }
    }
    left.sort_by_key(|segment| (-segment.rows, segment.id));
    left
}

fn fits_expanded(rows: i64, rows_max: i64, limits: &Limits) -> bool {
    part(rows, rows_max) <= limits.expansion_rate
}

/// The smallest of what is left go along with a plan that is made anyhow.
fn squeeze<'a>(
    buckets: &mut [Bucket<'a>],
    left: &mut Vec<&'a Candidate>,
    rows_max: i64,
    limits: &Limits,
) {
    left.reverse();
    left.retain(|segment| {
        if part(segment.rows, rows_max) >= limits.expansion_rate - 1.0 {
            return true;
        }
        let room = buckets.iter_mut().find(|bucket| {
            bucket.segments.len() < limits.segments_max
                && fits_expanded(bucket.rows + segment.rows, rows_max, limits)
        });
        match room {
            Some(bucket) => {
                bucket.push(segment);
                false
            }
            None => true,
        }
    });
}

/// What is still left goes to larger segments, the smallest of them first.
fn attach<'a>(
    buckets: &mut Vec<Bucket<'a>>,
    mut left: Vec<&'a Candidate>,
    other: Vec<&'a Candidate>,
    rows_max: i64,
    limits: &Limits,
) {
    for head in other {
        if left.is_empty() {
            return;
        }
        let mut bucket = Bucket::new(head, Reason::Merge);
        left.retain(|segment| {
            let fits = bucket.segments.len() < limits.segments_max
                && fits_expanded(bucket.rows + segment.rows, rows_max, limits);
            if fits {
                bucket.push(segment);
            }
            !fits
        });
        if bucket.segments.len() > 1 {
            buckets.push(bucket);
        }
    }
}
