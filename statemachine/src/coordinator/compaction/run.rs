//! How plans go to their nodes, and how they end.

use proto::milvus::common::SegmentState;
use proto::quorate::{
    CompactionState, CompactionTask, ControlCompaction, EndCompaction, ForgetCompactions,
    SendCompaction,
};

use super::{check_consumer, delta_logs, input_of, put, refuse_state, task, view};
use crate::coordinator::records::{Outcomes, Records};
use crate::coordinator::{Refusal, segment};
use crate::state::draft::Stop;

pub(super) fn send(
    records: &mut Records<'_, '_>,
    command: &SendCompaction,
) -> Result<Outcomes, Stop> {
    let plan = command.plan;
    let mut task = task(records, plan)?;
    if task.state() != CompactionState::Queued {
        return Err(refuse_state(&task).into());
    }
    check_consumer(records, &task.channel, command.node, command.epoch)?;
    for nth in 0..task.inputs.len() {
        let segment = task.inputs[nth].segment;
        let of = input_of(&task, segment);
        let info = segment::record(records, of)?;
        let state = segment::state_of(&info);
        if !matches!(state, SegmentState::Flushed | SegmentState::Flushing) || info.is_importing {
            return Err(Refusal::BadInput { plan, segment }.into());
        }
        task.inputs[nth].deltalogs = delta_logs(records, of)?.into_keys().collect();
    }
    task.state = CompactionState::Executing.into();
    task.node = command.node;
    task.epoch = command.epoch;
    task.start_ts = command.start_ts;
    task.sent_at_ms = records.at_ms();
    task.attempt += 1;
    put(records, &task);
    let mut outcomes = Outcomes::default();
    outcomes.changed(plan);
    Ok(outcomes)
}

/// Whether a plan may come to a state by an end. A result is never taken back: what is completed can
/// only be synced.
fn may_end(task: &CompactionTask, state: CompactionState) -> bool {
    use CompactionState::{
        Cancelled, Completed, Executing, Failed, Queued, Synced, TimedOut, Unspecified,
    };
    let is_running = view::is_running(task);
    match (task.state(), state) {
        (Queued, Failed | Cancelled) => true,
        (Executing, Failed | TimedOut | Cancelled) => true,
        (TimedOut, Failed | TimedOut | Cancelled) => is_running,
        (Completed, Synced) => true,
        (Queued, Unspecified | Queued | Executing | Completed | Synced | TimedOut)
        | (Executing | TimedOut, Unspecified | Queued | Executing | Completed | Synced)
        | (
            Completed,
            Unspecified | Queued | Executing | Completed | Failed | TimedOut | Cancelled,
        )
        | (Unspecified | Synced | Failed | Cancelled, _) => false,
    }
}

pub(super) fn end(records: &mut Records<'_, '_>, command: EndCompaction) -> Result<Outcomes, Stop> {
    let mut task = task(records, command.plan)?;
    let state = command.state();
    let mut outcomes = Outcomes::default();
    let is_overdue = command.overdue && state == CompactionState::TimedOut;
    let is_there = task.state() == state && (is_overdue || !view::is_running(&task));
    if is_there {
        return Ok(outcomes);
    }
    if !may_end(&task, state) {
        return Err(refuse_state(&task).into());
    }
    task.state = state.into();
    task.end_reason = command.reason;
    if !is_overdue {
        task.ended_at_ms = records.at_ms();
    }
    put(records, &task);
    outcomes.changed(command.plan);
    Ok(outcomes)
}

pub(super) fn forget(
    records: &mut Records<'_, '_>,
    command: &ForgetCompactions,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for plan in &command.plans {
        match task(records, *plan) {
            Ok(task) if view::is_running(&task) => outcomes.refused(*plan, refuse_state(&task)),
            Ok(_ended) => {
                records.delete(records.keys().compaction(*plan));
                outcomes.changed(*plan);
            }
            Err(stop) => outcomes.refused(*plan, stop.into_refusal()?),
        }
    }
    Ok(outcomes)
}

pub(super) fn control(records: &mut Records<'_, '_>, command: ControlCompaction) -> Outcomes {
    let key = records.keys().compaction_control();
    if command.paused {
        records.put(key, &command);
    } else {
        records.delete(key);
    }
    Outcomes::default()
}
