//! Takes over the open segments that a stock coordinator left: their rows and assignments were in
//! its memory. Done once in a tenure; a segment of our own always has its record beside it.

use std::sync::Arc;
use std::time::Duration;

use proto::quorate::segment_command::Kind;
use proto::quorate::{AdoptSegments, SegmentRef};
use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::tso::later;
use crate::coordinator::{Failure, Lead};

/// Segments in one command.
const BATCH: usize = 256;

#[derive(Default)]
pub(super) struct Adopt {
    done: bool,
}

impl Duty for Adopt {
    const NAME: &'static str = "duty-adopt";
    const AREAS: &'static [Area] = &[Area::Session];

    fn period(&self) -> Duration {
        Duration::from_secs(if self.done { 60 } else { 1 })
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let orphans: Vec<SegmentRef> = lead.local().read(|state| {
            let segments = state.views().segments();
            segments
                .open()
                .filter(|(id, _)| segments.growth(*id).is_none())
                .map(|(id, segment)| segment.reference(id))
                .collect()
        });
        if !orphans.is_empty() {
            // Whatever stock handed out, it handed out before now.
            let now = lead.tso.fresh().await?;
            let ms = u64::try_from(lead.settings().assignment_expiration.as_millis());
            let last_expire_ts = later(now, ms.unwrap_or(u64::MAX));
            for batch in orphans.chunks(BATCH) {
                let adopt = AdoptSegments { segments: batch.to_vec(), last_expire_ts };
                let outcome = lead.propose_segment(Kind::Adopt(adopt)).await?;
                tracing::info!(
                    adopted = outcome.changed.len(),
                    refused = outcome.refused.len(),
                    "open segments of another coordinator taken over"
                );
            }
        }
        self.done = true;
        Ok(())
    }
}
