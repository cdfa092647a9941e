//! Reads all rows again, slowly, and compares them with the digest that was kept of them.
//!
//! The leader compares those digests between the nodes once a minute, so a node whose rows match
//! its own digest has the same rows as the others.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use statemachine::{Direction, Fault, StateRead, Table, Visit, digest};

use crate::apply::{Core, Stop};
use crate::failure::Area;
use crate::rocks::Pinned;
use crate::view::View;

#[derive(Clone, Copy, Debug)]
pub struct ScrubPolicy {
    /// From the end of one pass to the next. Zero: none.
    pub period: Duration,
    pub bytes_per_s: u64,
}

impl Default for ScrubPolicy {
    fn default() -> ScrubPolicy {
        ScrubPolicy { period: Duration::from_secs(6 * 60 * 60), bytes_per_s: 8 << 20 }
    }
}

/// The loop of the scrubbing thread.
pub(crate) fn run(core: &Core, policy: &ScrubPolicy, stop: &Stop) {
    if policy.period.is_zero() {
        return;
    }
    while stop.rest(policy.period) {
        let view = View::new(core.current.load_full());
        let (_, image) = view.pin(|_| ());
        drop(view);
        let slow = Slow { image: &image, bytes_per_s: policy.bytes_per_s.max(1), stop };
        let compared = digest::stored(&image).and_then(|stored| {
            let found = digest::recompute(&slow)?;
            Ok(found == stored.digests.content)
        });
        match compared {
            Ok(true) => core.metrics.scrubs.add(1),
            Err(_) if stop.is_stopped() => return,
            Ok(false) => {
                core.on_failure.report(Area::Rows, "rows differ from the digest kept of them");
                return;
            }
            // A failed read has been reported already.
            Err(fault) => {
                core.on_failure.report(Area::Rows, fault.to_string());
                return;
            }
        }
    }
}

/// An image that is read no faster than allowed.
struct Slow<'a> {
    image: &'a Pinned,
    bytes_per_s: u64,
    stop: &'a Stop,
}

/// Rests come after so many bytes.
const STEP_BYTES: u64 = 1 << 20;

impl StateRead for Slow<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.image.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let mut step_bytes = 0;
        let mut began = Instant::now();
        self.image.scan(table, start, end, direction, &mut |key, row| {
            step_bytes += (key.len() + row.len()) as u64;
            if step_bytes >= STEP_BYTES {
                let micros = step_bytes.saturating_mul(1_000_000) / self.bytes_per_s;
                let rest = Duration::from_micros(micros).saturating_sub(began.elapsed());
                if !self.stop.rest(rest) {
                    return Err(Fault::Storage("the node stops".to_owned()));
                }
                (step_bytes, began) = (0, Instant::now());
            }
            let flow: ControlFlow<()> = visit(key, row)?;
            Ok(flow)
        })
    }
}
