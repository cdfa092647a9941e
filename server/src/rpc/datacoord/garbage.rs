//! What garbage collection tells, and how it is paused.

use std::sync::Arc;

use proto::milvus::data::GcCommand;
use proto::milvus::{common, data};
use proto::quorate;
use proto::quorate::coordinator_command::Area;
use statemachine::coordinator::keys::Keys;
use statemachine::{End, KeyRange};

use crate::coordinator::{Code, Failure, Lead};

/// Stands for all partitions.
const ALL_PARTITIONS: i64 = -1;

/// Whether no record of a segment is left, so that RootCoord may forget the collection.
pub(super) async fn gc_confirm(
    lead: &Arc<Lead>,
    request: data::GcConfirmRequest,
) -> Result<data::GcConfirmResponse, Failure> {
    let view = lead.view().await?;
    let n_left = view.read(|state| {
        let keys = Keys { root_path: &state.settings().root_path };
        let all = keys.segments_of(request.collection_id);
        let prefix = match request.partition_id {
            ALL_PARTITIONS => all,
            partition => format!("{all}{partition}/"),
        };
        // The next byte after a slash.
        let end = format!("{}0", prefix.trim_end_matches('/'));
        state.count(&KeyRange { start: prefix.as_bytes(), end: End::Before(end.as_bytes()) })
    });
    Ok(data::GcConfirmResponse { gc_finished: n_left == 0, ..Default::default() })
}

pub(super) async fn gc_control(
    lead: &Arc<Lead>,
    request: data::GcControlRequest,
) -> Result<common::Status, Failure> {
    let kind = match request.command() {
        GcCommand::Pause => {
            let duration_ms = pause_seconds(&request.params)?.saturating_mul(1000);
            quorate::garbage_command::Kind::Pause(quorate::PauseGarbage { duration_ms })
        }
        GcCommand::Resume => quorate::garbage_command::Kind::Resume(quorate::ResumeGarbage {}),
        GcCommand::Unset => {
            return Err(Failure::refused(Code::Unexpected, "unknown gc command"));
        }
    };
    lead.propose(Area::Garbage(quorate::GarbageCommand { kind: Some(kind) })).await?;
    Ok(common::Status::default())
}

fn pause_seconds(params: &[common::KeyValuePair]) -> Result<u64, Failure> {
    let Some(duration) = params.iter().find(|pair| pair.key == "duration") else {
        return Err(Failure::refused(Code::Unexpected, "pause duration param not found"));
    };
    duration.value.parse().map_err(|_no_number| {
        let reason = format!("pause duration is no number of seconds: {}", duration.value);
        Failure::refused(Code::Unexpected, reason)
    })
}
