//! Counts how long flushes and compactions take, for the metrics. It only looks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::milvus::common::SegmentState;
use proto::quorate::HasRows;
use statemachine::coordinator::keys::LogKind;
use statemachine::coordinator::segment::view::{Logs, Segments};
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
        let now_ms = lead.now_ms();
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
            let flushed: Vec<Flushed> = self
                .sealed
                .iter()
                .filter(|(id, _)| !sealed.contains_key(id))
                .filter_map(|(id, sealed_ms)| Flushed::of(segments, *id, *sealed_ms))
                .collect();
            let running: BTreeMap<PlanId, u64> =
                plans.running().map(|(id, plan)| (id, plan.task.planned_at_ms)).collect();
            let ended: Vec<Ended> = self
                .running
                .iter()
                .filter(|(id, _)| !running.contains_key(id))
                .filter_map(|(id, planned_ms)| {
                    let task = &plans.get(*id)?.task;
                    let result = (task.result != 0).then_some(SegmentId(task.result));
                    Some(Ended {
                        took: took(*planned_ms, task.ended_at_ms),
                        bytes: result.and_then(|id| segments.logs(id)).map(Logs::size_bytes),
                    })
                })
                .collect();
            (sealed, flushed, running, ended)
        });
        for segment in flushed {
            counts.flushes.add_time(took(segment.sealed_ms, now_ms));
            counts.segment_flushed(segment.rows, segment.files);
        }
        for plan in ended {
            counts.compactions.add_time(plan.took);
            if let Some(bytes) = plan.bytes {
                counts.compacted.add(u64::try_from(bytes).unwrap_or(0));
            }
        }
        self.sealed = sealed;
        self.running = running;
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }
}

/// A segment that was sealed at the last look.
struct Flushed {
    sealed_ms: u64,
    rows: i64,
    /// Insert, delete and statistics files.
    files: [u32; 3],
}

impl Flushed {
    fn of(segments: &Segments, id: SegmentId, sealed_ms: u64) -> Option<Flushed> {
        let segment = segments.get(id).filter(|segment| segment.is_flushed())?;
        let files = [LogKind::Insert, LogKind::Delta, LogKind::Stats]
            .map(|kind| segments.logs(id).map_or(0, |logs| logs.total(kind).files));
        Some(Flushed { sealed_ms, rows: segment.rows, files })
    }
}

/// A plan that ran at the last look.
struct Ended {
    took: Duration,
    /// Of its result, where there is one.
    bytes: Option<i64>,
}
