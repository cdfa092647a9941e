//! What a plan produced: inputs go and the result appears, in one step. Each precondition here is a
//! row that would be lost, or a delete that would come undone.

use std::collections::BTreeSet;

use proto::milvus::common::SegmentState;
use proto::milvus::data::{Binlog, CompactionResult, FieldBinlog, SegmentInfo};
use proto::milvus::msg::MsgPosition;
use proto::quorate::{CompactionState, CompactionTask, CompleteCompaction, SegmentRef};

use super::{check_consumer, delta_logs, input_of, put, refuse_state, task, view};
use crate::coordinator::Refusal;
use crate::coordinator::keys::LogKind;
use crate::coordinator::records::{Outcomes, Records};
use crate::coordinator::segment::{self, Step, advance, merge_logs};
use crate::state::draft::Stop;

pub(super) fn complete(
    records: &mut Records<'_, '_>,
    command: CompleteCompaction,
) -> Result<Outcomes, Stop> {
    let CompleteCompaction { plan, result, copied_deltalogs, dropped_at_ns } = command;
    let result = result.unwrap_or_default();
    let mut task = task(records, plan)?;
    let mut outcomes = Outcomes::default();
    if is_completed_by(&task, &result) {
        return Ok(outcomes);
    }
    let is_awaited = match task.state() {
        CompactionState::Executing => true,
        // A late result is as good as any, and its node waits for the answer.
        CompactionState::TimedOut => view::is_running(&task),
        CompactionState::Unspecified
        | CompactionState::Queued
        | CompactionState::Completed
        | CompactionState::Synced
        | CompactionState::Failed
        | CompactionState::Cancelled => false,
    };
    if !is_awaited {
        return Err(refuse_state(&task).into());
    }
    check_result(records, &task, &result)?;
    check_consumer(records, &task.channel, task.node, task.epoch)?;
    let inputs = inputs(records, &task)?;
    check_rows(records, &task, &inputs, &result)?;
    let copied = copied(records, &task, &copied_deltalogs)?;

    let is_dropped = inputs.iter().all(is_dropped);
    task.result = result.segment_id;
    task.state = CompactionState::Completed.into();
    task.end_reason = String::new();
    task.completed_at_ms = records.at_ms();
    let info = put_result(records, &task, &inputs, result, copied, dropped_at_ns)?;
    task.result_rows = info.num_of_rows;
    if !is_dropped {
        for input in inputs {
            drop_input(records, &task, input, dropped_at_ns)?;
        }
    }
    put(records, &task);
    outcomes.changed(plan);
    Ok(outcomes)
}

/// The call is a repetition.
fn is_completed_by(task: &CompactionTask, result: &CompactionResult) -> bool {
    let is_completed = matches!(task.state(), CompactionState::Completed | CompactionState::Synced);
    is_completed && task.result == result.segment_id
}

fn is_dropped(info: &SegmentInfo) -> bool {
    segment::state_of(info) == SegmentState::Dropped
}

fn check_result(
    records: &Records<'_, '_>,
    task: &CompactionTask,
    result: &CompactionResult,
) -> Result<(), Stop> {
    let segment = result.segment_id;
    if result.plan_id != task.plan {
        let reason = "the result is of another plan";
        return Err(invalid("planID", result.plan_id.to_string(), reason).into());
    }
    if segment <= 0 {
        return Err(invalid("segmentID", segment.to_string(), "no segment has that id").into());
    }
    if !result.channel.is_empty() && result.channel != task.channel {
        let channel = result.channel.clone();
        return Err(Refusal::OtherChannel { segment, channel }.into());
    }
    if segment::is_known(records, segment) {
        return Err(Refusal::SegmentExists { segment }.into());
    }
    let logs = [&result.insert_logs, &result.field2_statslog_paths, &result.deltalogs];
    let mut logs = logs.into_iter().flatten().flat_map(|field| &field.binlogs);
    if let Some(log) = logs.find(|log| log.log_id == 0 || !log.log_path.is_empty()) {
        let reason = "logs are named by ids in the log";
        return Err(invalid("log", log.log_path.clone(), reason).into());
    }
    let has_insert_logs = result.insert_logs.iter().any(|field| !field.binlogs.is_empty());
    if result.num_of_rows > 0 && !has_insert_logs {
        let reason = "it has no insert logs";
        return Err(invalid("numOfRows", result.num_of_rows.to_string(), reason).into());
    }
    Ok(())
}

fn invalid(field: &str, value: String, reason: &str) -> Refusal {
    Refusal::Invalid { field: field.to_owned(), value, reason: reason.to_owned() }
}

/// A compaction makes no rows.
fn check_rows(
    records: &Records<'_, '_>,
    task: &CompactionTask,
    inputs: &[SegmentInfo],
    result: &CompactionResult,
) -> Result<(), Stop> {
    let made = result.num_of_rows.max(rows(&result.insert_logs));
    // Logs are read only where the records do not settle it.
    let recorded = inputs.iter().map(|input| input.num_of_rows.max(0));
    if made <= recorded.fold(0, i64::saturating_add) {
        return Ok(());
    }
    let mut taken: i64 = 0;
    for input in inputs {
        let Some(rows) = rows_at_most(records, input_of(task, input.id), input)? else {
            return Ok(());
        };
        taken = taken.saturating_add(rows);
    }
    if made > taken {
        let reason = format!("its inputs have {taken} rows");
        return Err(invalid("numOfRows", made.to_string(), &reason).into());
    }
    Ok(())
}

/// Rows of an input, the larger of its record and its logs. `None` where a log does not say how many
/// it has: then the record may fall short, too.
fn rows_at_most(
    records: &Records<'_, '_>,
    of: SegmentRef,
    info: &SegmentInfo,
) -> Result<Option<i64>, Stop> {
    let logs = records.scan::<FieldBinlog>(&records.keys().logs(LogKind::Insert, of))?;
    let mut most = info.num_of_rows.max(0);
    // A record of long ago has its logs in itself.
    for field in logs.iter().map(|(_key, field)| field).chain(&info.binlogs) {
        if field.binlogs.iter().any(|log| log.entries_num <= 0) {
            return Ok(None);
        }
        most = most.max(sum(&field.binlogs));
    }
    Ok(Some(most))
}

fn sum(logs: &[Binlog]) -> i64 {
    logs.iter().fold(0, |rows, log| rows.saturating_add(log.entries_num))
}

/// All inputs live; or all are dropped, because their partition is, and so is the result then. With
/// some dropped and some alive, neither result would be right.
fn inputs(records: &Records<'_, '_>, task: &CompactionTask) -> Result<Vec<SegmentInfo>, Stop> {
    let mut inputs = Vec::with_capacity(task.inputs.len());
    for input in &task.inputs {
        inputs.push(segment::record(records, input_of(task, input.segment))?);
    }
    if inputs.iter().all(is_dropped) {
        return Ok(inputs);
    }
    for info in &inputs {
        let state = segment::state_of(info);
        if !matches!(state, SegmentState::Flushed | SegmentState::Flushing) {
            return Err(Refusal::BadInput { plan: task.plan, segment: info.id }.into());
        }
    }
    Ok(inputs)
}

/// Delta logs that inputs got after the plan was sent. Each must be among those whose files were
/// copied, or its deletes would be undone.
fn copied(
    records: &Records<'_, '_>,
    task: &CompactionTask,
    copied: &[i64],
) -> Result<Vec<(i64, Binlog)>, Stop> {
    let copied: BTreeSet<i64> = copied.iter().copied().collect();
    let mut later = Vec::new();
    let mut later_ids = BTreeSet::new();
    for input in &task.inputs {
        for (id, log) in delta_logs(records, input_of(task, input.segment))? {
            if !input.deltalogs.contains(&id) {
                later_ids.insert(id);
                later.push(log);
            }
        }
    }
    if later_ids != copied {
        return Err(Refusal::DeltasDiffer { plan: task.plan }.into());
    }
    Ok(later)
}

fn put_result(
    records: &mut Records<'_, '_>,
    task: &CompactionTask,
    inputs: &[SegmentInfo],
    result: CompactionResult,
    copied: Vec<(i64, Binlog)>,
    dropped_at_ns: u64,
) -> Result<SegmentInfo, Stop> {
    let of = input_of(task, result.segment_id);
    let is_dropped = inputs.iter().all(is_dropped);
    let logged_rows = rows(&result.insert_logs);
    let rows = if logged_rows > 0 { logged_rows } else { result.num_of_rows };
    let is_gone = is_dropped || rows == 0;
    let info = SegmentInfo {
        id: result.segment_id,
        collection_id: task.collection,
        partition_id: task.partition,
        insert_channel: task.channel.clone(),
        num_of_rows: rows,
        max_row_num: inputs.first().map_or(0, |input| input.max_row_num),
        state: if is_gone { SegmentState::Dropped } else { SegmentState::Flushed }.into(),
        dropped_at: if is_gone { dropped_at_ns } else { 0 },
        last_expire_time: task.start_ts,
        start_position: earliest(inputs.iter().filter_map(|input| input.start_position.as_ref())),
        // A replay may not skip what any input has not seen.
        dml_position: earliest(inputs.iter().filter_map(|input| input.dml_position.as_ref())),
        created_by_compaction: true,
        compaction_from: task.inputs.iter().map(|input| input.segment).collect(),
        ..SegmentInfo::default()
    };
    merge_logs(records, of, LogKind::Insert, result.insert_logs)?;
    merge_logs(records, of, LogKind::Stats, result.field2_statslog_paths)?;
    merge_logs(records, of, LogKind::Delta, result.deltalogs)?;
    for (field_id, log) in copied {
        let logs = vec![FieldBinlog { field_id, binlogs: vec![log] }];
        merge_logs(records, of, LogKind::Delta, logs)?;
    }
    records.put(records.keys().segment(of), &info);
    Ok(info)
}

/// As the logs of the lowest field count them.
fn rows(insert_logs: &[FieldBinlog]) -> i64 {
    let lowest = insert_logs.iter().map(|logs| logs.field_id).min();
    let of_lowest = insert_logs.iter().filter(|logs| Some(logs.field_id) == lowest);
    of_lowest.fold(0, |rows, logs| rows.saturating_add(sum(&logs.binlogs)))
}

fn earliest<'a>(positions: impl Iterator<Item = &'a MsgPosition>) -> Option<MsgPosition> {
    positions.min_by_key(|position| position.timestamp).cloned()
}

fn drop_input(
    records: &mut Records<'_, '_>,
    task: &CompactionTask,
    mut info: SegmentInfo,
    dropped_at_ns: u64,
) -> Result<(), Stop> {
    advance(&mut info, Step::Compact)?;
    info.dropped_at = dropped_at_ns;
    info.compacted = true;
    records.put(records.keys().segment(input_of(task, info.id)), &info);
    Ok(())
}
