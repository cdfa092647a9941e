//! Compaction by hand, and how far it is.

use std::sync::Arc;

use proto::milvus::{common, milvus};
use proto::quorate::{CompactionState, CompactionTask};
use statemachine::view::CollectionId;

use crate::coordinator::duty::compaction::planning;
use crate::coordinator::{Failure, Lead};

pub(super) async fn manual_compaction(
    lead: &Arc<Lead>,
    request: milvus::ManualCompactionRequest,
) -> Result<milvus::ManualCompactionResponse, Failure> {
    // What was acknowledged before the call is what is compacted.
    lead.view().await?;
    let planned = planning::by_hand(lead, CollectionId(request.collection_id)).await?;
    let (collection, trigger, plans) = (request.collection_id, planned.trigger, planned.plans);
    tracing::info!(collection, trigger, plans, "compaction asked for");
    Ok(milvus::ManualCompactionResponse { compaction_id: planned.trigger, ..Default::default() })
}

pub(super) async fn get_compaction_state(
    lead: &Arc<Lead>,
    request: milvus::GetCompactionStateRequest,
) -> Result<milvus::GetCompactionStateResponse, Failure> {
    let tasks = tasks_of(lead, request.compaction_id).await?;
    Ok(state_of(&tasks))
}

pub(super) async fn get_compaction_state_with_plans(
    lead: &Arc<Lead>,
    request: milvus::GetCompactionPlansRequest,
) -> Result<milvus::GetCompactionPlansResponse, Failure> {
    let tasks = tasks_of(lead, request.compaction_id).await?;
    Ok(milvus::GetCompactionPlansResponse {
        state: state_of(&tasks).state,
        merge_infos: tasks.iter().map(merge_info).collect(),
        ..Default::default()
    })
}

/// Plans of a trigger, or all of them, by id.
async fn tasks_of(lead: &Arc<Lead>, trigger: i64) -> Result<Vec<CompactionTask>, Failure> {
    let view = lead.view().await?;
    Ok(view.read(|state| {
        let plans = state.views().plans();
        match trigger {
            0 => plans.rows().decoded().map(|(_, plan)| plan.task.clone()).collect(),
            trigger => plans.of_trigger(trigger).map(|(_, plan)| plan.task.clone()).collect(),
        }
    }))
}

fn state_of(tasks: &[CompactionTask]) -> milvus::GetCompactionStateResponse {
    let mut answer = milvus::GetCompactionStateResponse::default();
    for task in tasks {
        let count = match task.state() {
            // Completed once the data node goes on with the result.
            CompactionState::Queued | CompactionState::Executing | CompactionState::Completed => {
                &mut answer.executing_plan_no
            }
            CompactionState::TimedOut => &mut answer.timeout_plan_no,
            CompactionState::Synced => &mut answer.completed_plan_no,
            CompactionState::Failed | CompactionState::Cancelled | CompactionState::Unspecified => {
                &mut answer.failed_plan_no
            }
        };
        *count += 1;
    }
    let state = match answer.executing_plan_no {
        0 => common::CompactionState::Completed,
        _ => common::CompactionState::Executing,
    };
    answer.state = state.into();
    answer
}

fn merge_info(task: &CompactionTask) -> milvus::CompactionMergeInfo {
    milvus::CompactionMergeInfo {
        sources: task.inputs.iter().map(|input| input.segment).collect(),
        target: if task.result == 0 { -1 } else { task.result },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_completed_when_no_plan_of_it_runs() {
        use CompactionState::{Cancelled, Completed, Executing, Failed, Queued, Synced, TimedOut};
        let told = |states: &[CompactionState]| {
            let task = |state: &CompactionState| CompactionTask {
                state: (*state).into(),
                ..CompactionTask::default()
            };
            let answer = state_of(&states.iter().map(task).collect::<Vec<CompactionTask>>());
            let milvus::GetCompactionStateResponse {
                executing_plan_no: executing,
                timeout_plan_no: timeout,
                completed_plan_no: completed,
                failed_plan_no: failed,
                ..
            } = answer;
            format!("{:?} {executing} {timeout} {completed} {failed}", answer.state())
        };
        assert_eq!(told(&[]), "Completed 0 0 0 0");
        assert_eq!(told(&[Queued, Executing, Completed]), "Executing 3 0 0 0");
        assert_eq!(told(&[Synced, TimedOut, Failed, Cancelled]), "Completed 0 1 1 2");
    }

    #[test]
    fn a_plan_without_a_result_has_no_target() {
        let task = CompactionTask::default();
        assert_eq!(merge_info(&task).target, -1);
        assert_eq!(merge_info(&CompactionTask { result: 7, ..task }).target, 7);
    }
}
