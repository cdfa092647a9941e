//! Takes a result in: deletes that came meanwhile are carried over, the inputs are replaced in one
//! step, and the data node is told until it has heard.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::milvus::data::{self, CompactionResult, SyncSegmentsRequest};
use proto::quorate::compaction_command::Kind;
use proto::quorate::{CompactionState, CompactionTask, CompleteCompaction, SegmentRef};
use statemachine::view::{SegmentId, ServerId};

use super::{end, results};
use crate::coordinator::deltas::{self, Delta};
use crate::coordinator::{Failure, Lead, records};
use crate::tasks;

/// How often deletes may come between the copies and the command before the next round goes on.
const ATTEMPTS: usize = 8;

/// Completes a plan and tells its node.
pub(super) async fn take_in(
    lead: &Arc<Lead>,
    task: &CompactionTask,
    result: CompactionResult,
) -> Result<(), Failure> {
    let result = match results::parse(&lead.settings().storage_prefix(), task, result) {
        Ok(result) => result,
        Err(reason) => {
            tracing::error!(plan = task.plan, node = task.node, reason, "no result of a plan");
            let reason = format!("its data node tells of no result: {reason}");
            return end(lead, task.plan, CompactionState::Failed, &reason).await;
        }
    };
    complete(lead, task, &result).await?;
    sync(lead, task.plan).await
}

async fn complete(
    lead: &Arc<Lead>,
    task: &CompactionTask,
    result: &CompactionResult,
) -> Result<(), Failure> {
    let CompactionTask { collection, partition, .. } = *task;
    let to = SegmentRef { collection, partition, segment: result.segment_id };
    let mut copied = BTreeSet::new();
    let mut refused = None;
    for _attempt in 0..ATTEMPTS {
        let later = later_deltas(lead, task).await?;
        let new: Vec<Delta> =
            later.iter().filter(|delta| !copied.contains(&delta.log)).cloned().collect();
        if let Some(failure) = refused.take()
            && new.is_empty()
        {
            // It was not for deltas that it was refused.
            return Err(failure);
        }
        deltas::copy(lead, to, new).await?;
        copied = later.into_iter().map(|delta| delta.log).collect();
        let complete = CompleteCompaction {
            plan: task.plan,
            result: Some(result.clone()),
            copied_deltalogs: copied.iter().copied().collect(),
            dropped_at_ns: lead.now_ns(),
        };
        match lead.propose_compaction(Kind::Complete(complete)).await {
            Ok(_completed) => {
                let (plan, segment) = (task.plan, result.segment_id);
                let (rows, copied) = (result.num_of_rows, copied.len());
                tracing::info!(plan, segment, rows, copied, "compaction completed");
                return Ok(());
            }
            Err(failure @ Failure::Refused { .. }) => refused = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::Unavailable("deletes keep coming".to_owned())))
}

/// Delta logs that inputs got after the plan was sent.
async fn later_deltas(lead: &Arc<Lead>, task: &CompactionTask) -> Result<Vec<Delta>, Failure> {
    let ids: Vec<SegmentId> = task.inputs.iter().map(|input| SegmentId(input.segment)).collect();
    let inputs = read(lead, ids).await?;
    let mut later = Vec::new();
    for info in inputs {
        let planned = task.inputs.iter().find(|input| input.segment == info.id);
        let planned = planned.map(|input| &input.deltalogs[..]).unwrap_or_default();
        let logs = info.deltalogs.into_iter().flat_map(|logs| logs.binlogs);
        let new = logs.filter(|log| !planned.contains(&log.log_id));
        later.extend(new.map(|log| Delta { log: log.log_id, path: log.log_path }));
    }
    Ok(later)
}

/// Segments with their logs, read off the threads that serve calls.
pub(super) async fn read(
    lead: &Arc<Lead>,
    ids: Vec<SegmentId>,
) -> Result<Vec<data::SegmentInfo>, Failure> {
    let lead = Arc::clone(lead);
    let read = move || records::segments(&lead.local(), lead.settings(), &ids);
    let read = tasks::spawn_blocking(read).await;
    read.map_err(|error| Failure::Unavailable(error.to_string()))?
}

/// Tells the node of a completed plan to go on with the result. Repeated until it answers.
pub(super) async fn sync(lead: &Arc<Lead>, plan: i64) -> Result<(), Failure> {
    let task = lead.local().read(|state| {
        let plan = state.views().plans().get(statemachine::view::PlanId(plan));
        plan.map(|plan| plan.task.clone())
    });
    let Some(task) = task.filter(|task| task.state() == CompactionState::Completed) else {
        return Ok(());
    };
    let of =
        SegmentRef { collection: task.collection, partition: task.partition, segment: task.result };
    let Some(info) = read(lead, vec![SegmentId(of.segment)]).await?.pop() else {
        return end(lead, plan, CompactionState::Synced, "its result is gone already").await;
    };
    let request = SyncSegmentsRequest {
        plan_id: plan,
        compacted_to: info.id,
        num_of_rows: info.num_of_rows,
        compacted_from: task.inputs.iter().map(|input| input.segment).collect(),
        stats_logs: info.statslogs,
    };
    let mut node = lead.clients().data_node(ServerId(task.node))?;
    if let Err(error) = node.sync_segments(request).await {
        tracing::warn!(plan, node = task.node, %error, "a data node has not heard of a result");
        return Err(error.into());
    }
    end(lead, plan, CompactionState::Synced, "").await
}
