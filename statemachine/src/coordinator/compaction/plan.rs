//! New plans. A segment is an input of one plan at most, until that plan has ended.

use std::collections::BTreeSet;

use prost::Message;
use proto::milvus::common::SegmentState;
use proto::quorate::{CompactionState, CompactionTask, PlanCompactions};

use super::{input_of, put, view};
use crate::coordinator::records::{Outcomes, Records};
use crate::coordinator::{Refusal, segment};
use crate::state::draft::Stop;
use crate::view::SegmentId;

pub(super) fn plan(
    records: &mut Records<'_, '_>,
    command: PlanCompactions,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for task in command.tasks {
        let id = task.plan;
        match check(records, &task) {
            Ok(()) => {
                put(records, &queued(task, records.at_ms()));
                outcomes.changed(id);
            }
            Err(stop) => outcomes.refused(id, stop.into_refusal()?),
        }
    }
    Ok(outcomes)
}

fn queued(task: CompactionTask, at_ms: u64) -> CompactionTask {
    CompactionTask {
        state: CompactionState::Queued.into(),
        planned_at_ms: at_ms,
        node: 0,
        epoch: 0,
        start_ts: 0,
        result: 0,
        result_rows: 0,
        ended_at_ms: 0,
        sent_at_ms: 0,
        completed_at_ms: 0,
        attempt: 0,
        ..task
    }
}

fn check(records: &Records<'_, '_>, task: &CompactionTask) -> Result<(), Stop> {
    let plan = task.plan;
    if records.exists(&records.keys().compaction(plan)) {
        return Err(Refusal::PlanExists { plan }.into());
    }
    if task.inputs.is_empty() {
        return Err(Refusal::BadInput { plan, segment: 0 }.into());
    }
    let bound = bound_in_chunk(records);
    let mut named = BTreeSet::new();
    for input in &task.inputs {
        let segment = input.segment;
        let bad = || Refusal::BadInput { plan, segment };
        if !named.insert(segment) || bound.contains(&segment) || is_bound(records, segment)? {
            return Err(bad().into());
        }
        let info = segment::record(records, input_of(task, segment))?;
        let is_flushed = match segment::state_of(&info) {
            SegmentState::Flushed | SegmentState::Flushing => true,
            SegmentState::None
            | SegmentState::NotExist
            | SegmentState::Growing
            | SegmentState::Sealed
            | SegmentState::Dropped
            | SegmentState::Importing => false,
        };
        if !is_flushed || info.is_importing || info.is_fake || info.insert_channel != task.channel {
            return Err(bad().into());
        }
    }
    Ok(())
}

/// Whether a plan that the views know still has the segment.
fn is_bound(records: &Records<'_, '_>, segment: i64) -> Result<bool, Stop> {
    for plan in records.committed().views().plans().with_input(SegmentId(segment)) {
        let task: Option<CompactionTask> =
            records.get_if_record(&records.keys().compaction(plan.0))?;
        let has = |task: CompactionTask| {
            view::is_running(&task) && task.inputs.iter().any(|input| input.segment == segment)
        };
        if task.is_some_and(has) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Inputs of plans that earlier commands of the chunk put, or earlier tasks of this command.
fn bound_in_chunk(records: &Records<'_, '_>) -> BTreeSet<i64> {
    let pending = records.pending(&records.keys().compactions());
    let tasks = pending.into_values().flatten().filter_map(|value| {
        // What does not decode binds nothing, in the views neither.
        CompactionTask::decode(value).ok().filter(view::is_running)
    });
    tasks.flat_map(|task| task.inputs.into_iter().map(|input| input.segment)).collect()
}
