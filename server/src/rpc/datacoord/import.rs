//! Bulk import, as far as the coordinator has a part in it: RootCoord leads it, a data node reads the
//! files, and the owner of the channel takes the segments in.

use std::sync::Arc;

use proto::milvus::{common, data};
use proto::quorate::segment_command::Kind;
use proto::quorate::{FinishImport, SegmentRef};
use statemachine::view::{SegmentId, ServerId};

use super::ingest;
use crate::coordinator::clients::CallError;
use crate::coordinator::failure::success;
use crate::coordinator::{Code, Failure, Lead, data_nodes};
use crate::tasks;

/// Hands a task to a data node that works on none, and answers at once: the node tells RootCoord how
/// it goes.
pub(super) async fn import(
    lead: &Arc<Lead>,
    request: data::ImportTaskRequest,
) -> Result<data::ImportTaskResponse, Failure> {
    let view = lead.view().await?;
    let nodes = view.read(|state| data_nodes::taking(state.views()));
    if nodes.is_empty() {
        return Err(Failure::refused(Code::NodeLack, "no live DataNode"));
    }
    let is_free = |node: &&ServerId| !request.working_nodes.contains(&node.0);
    let free: Vec<ServerId> = nodes.iter().filter(is_free).copied().collect();
    let task = request.import_task.as_ref().map_or(0, |task| task.task_id);
    let Some(node) = nth_of(&free, task) else {
        return Err(Failure::refused(Code::NodeLack, "no available DataNode"));
    };
    let mut client = lead.clients().data_node(node)?;
    tracing::info!(task, node = node.0, "import begins");
    // The call lasts as long as the import, and the import as long as the call: it is not ended
    // when this tenure is.
    tasks::spawn("coordinator-import", async move {
        match client.import(request).await {
            Ok(()) => tracing::info!(task, node = node.0, "import is over"),
            Err(error) => tracing::warn!(task, node = node.0, %error, "import ended early"),
        }
    });
    Ok(data::ImportTaskResponse { datanode_id: node.0, ..Default::default() })
}

/// Tasks go round.
fn nth_of(nodes: &[ServerId], task: i64) -> Option<ServerId> {
    let n_nodes = u64::try_from(nodes.len()).ok().filter(|n_nodes| *n_nodes > 0)?;
    let nth = usize::try_from(task.unsigned_abs() % n_nodes).ok()?;
    nodes.get(nth).copied()
}

/// The files of an importing segment are written. The channel's owner must know it before it is on
/// record, or nobody would flush it.
pub(super) async fn save_import_segment(
    lead: &Arc<Lead>,
    request: data::SaveImportSegmentRequest,
) -> Result<common::Status, Failure> {
    let view = lead.view().await?;
    let owner = view.read(|state| {
        let assignment = state.views().assignments().get(&request.channel_name)?;
        (assignment.node != ServerId::NOBODY).then_some(assignment.node)
    });
    let owner = owner.ok_or_else(|| Failure::channel_not_found(&request.channel_name))?;
    let mut save = request.save_binlog_path_req.unwrap_or_default();
    let start = save.start_positions.first_mut().and_then(|start| start.start_position.as_mut());
    let Some(start) = start else {
        let reason = format!("segment {} comes without a start position", request.segment_id);
        return Err(Failure::refused(Code::InvalidParameter, reason));
    };
    let add = data::AddImportSegmentRequest {
        base: request.base,
        segment_id: request.segment_id,
        channel_name: request.channel_name,
        collection_id: request.collection_id,
        partition_id: request.partition_id,
        row_num: request.row_num,
        stats_log: save.field2_statslog_paths.clone(),
    };
    let mut client = lead.clients().data_node(owner).map_err(later)?;
    start.msg_id = client.add_import_segment(add).await.map_err(later)?;
    save.importing = true;
    ingest::save_binlog_paths(lead, save).await
}

/// Another data node is not there: whoever asks may ask again, but not elsewhere.
fn later(error: CallError) -> Failure {
    match error {
        CallError::Refused { .. } => error.into(),
        CallError::Gone { .. }
        | CallError::Unreachable { .. }
        | CallError::Unimplemented { .. } => {
            Failure::refused(Code::ServiceUnavailable, error.to_string())
        }
    }
}

/// The import is complete: its segments may be seen.
pub(super) async fn unset_is_importing_state(
    lead: &Arc<Lead>,
    request: data::UnsetIsImportingStateRequest,
) -> Result<common::Status, Failure> {
    let view = lead.view().await?;
    let mut unknown = Vec::new();
    let segments: Vec<SegmentRef> = view.read(|state| {
        let known = state.views().segments();
        let find = |id: &i64| {
            let found = known.get(SegmentId(*id)).map(|segment| segment.reference(SegmentId(*id)));
            if found.is_none() {
                unknown.push(*id);
            }
            found
        };
        request.segment_ids.iter().filter_map(find).collect()
    });
    if !segments.is_empty() {
        lead.propose_segment(Kind::FinishImport(FinishImport { segments })).await?;
    }
    if !unknown.is_empty() {
        let reason = format!("segments {unknown:?} are not known");
        return Err(Failure::refused(Code::Unexpected, reason));
    }
    Ok(success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_round_among_the_free() {
        let nodes = [ServerId(5), ServerId(6)];
        assert_eq!(nth_of(&[], 1), None);
        assert_eq!(nth_of(&nodes, 2), Some(ServerId(5)));
        assert_eq!(nth_of(&nodes, -7), Some(ServerId(6)));
        assert_eq!(nth_of(&nodes, i64::MIN), Some(ServerId(5)));
    }
}
