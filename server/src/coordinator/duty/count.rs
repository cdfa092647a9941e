//! Counts how long flushes and compactions take, for the metrics. It only looks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::milvus::common::SegmentState;
use proto::quorate::HasRows;
use statemachine::view::{Area, PlanId, SegmentId};

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};

/// It looks no more often than this, however fast things change.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Count {
    /// When each sealed segment with rows was sealed, Unix milliseconds.
    sealed: BTreeMap<SegmentId, u64>,
    /// Plans that ran when it last looked.
    running: BTreeMap<PlanId, u64>,
}

impl Duty for Count {
    const NAME: &'static str = "duty-count";
    const AREAS: &'static [Area] = &[Area::Segment, Area::Compaction];

    fn period(&self) -> Duration {
        Duration::from_secs(5)
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let now_ms = unix_ms();
        let took =
            |since_ms: u64, until_ms: u64| Duration::from_millis(until_ms.saturating_sub(since_ms));
        let counts = &lead.coordinator.counts;
        let (sealed, flushed, running, ended) = lead.local().read(|state| {
            let (segments, plans) = (state.views().segments(), state.views().plans());
            let sealed: BTreeMap<SegmentId, u64> = segments
                .open()
                .filter(|(_, segment)| segment.state == SegmentState::Sealed)
                .filter_map(|(id, _)| Some((id, segments.growth(id)?)))
                .filter(|(_, growth)| growth.has_rows != HasRows::No && growth.sealed_at_ms > 0)
                .map(|(id, growth)| (id, growth.sealed_at_ms))
                .collect();
            let is_flushed =
                |id: SegmentId| segments.get(id).is_some_and(|segment| segment.is_flushed());
            let flushed: Vec<u64> = self
                .sealed
                .iter()
                .filter(|(id, _)| !sealed.contains_key(id) && is_flushed(**id))
                .map(|(_, sealed_ms)| *sealed_ms)
                .collect();
            let running: BTreeMap<PlanId, u64> =
                plans.running().map(|(id, plan)| (id, plan.task.planned_at_ms)).collect();
            let ended: Vec<(u64, u64)> = self
                .running
                .iter()
                .filter(|(id, _)| !running.contains_key(id))
                .filter_map(|(id, planned)| Some((*planned, plans.get(*id)?.task.ended_at_ms)))
                .collect();
            (sealed, flushed, running, ended)
        });
        flushed.into_iter().for_each(|since| counts.flushes.add(took(since, now_ms)));
        ended.into_iter().for_each(|(since, until)| counts.compactions.add(took(since, until)));
        self.sealed = sealed;
        self.running = running;
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
