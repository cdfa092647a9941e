//! What only the leading coordinator does, on behalf of an operator.

use std::sync::Arc;
use std::time::Duration;

use proto::admin::act_request::Action;
use proto::admin::{ActReply, ActRequest};
use proto::milvus::{common, data, milvus};
use proto::quorate::{self, channel_command, compaction_command};
use statemachine::State;
use tokio::time::Instant;
use tonic::Status;

use crate::coordinator::duty::garbage;
use crate::coordinator::{Coordinator, Failure, Lead};
use crate::inspect;
use crate::rpc::datacoord;
use crate::rpc::leader::not_leader;

const HAND_OVER_MS_DEFAULT: u64 = 60_000;

pub(super) async fn act(
    coordinator: Option<&Arc<Coordinator>>,
    request: ActRequest,
) -> Result<ActReply, Status> {
    let Some(coordinator) = coordinator else {
        return Err(Status::failed_precondition("this node runs without --coordinator datacoord"));
    };
    let Some(action) = request.action else {
        return Err(Status::invalid_argument("no action is named"));
    };
    if matches!(action, Action::TakeOver(_)) {
        coordinator.take_over().await.map_err(|failure| status(coordinator, failure))?;
        return Ok(ActReply { told: vec!["the role is on".to_owned()] });
    }
    let lead = coordinator.lead().map_err(|failure| status(coordinator, failure))?;
    let told = carry_out(&lead, action).await.map_err(|failure| status(coordinator, failure))?;
    Ok(ActReply { told })
}

async fn carry_out(lead: &Arc<Lead>, action: Action) -> Result<Vec<String>, Failure> {
    match action {
        Action::Compact(collection) => {
            let plans = compact(lead, &collection).await?;
            Ok(vec![plans])
        }
        Action::PauseCompaction(paused) => {
            let control = compaction_command::Kind::Control(quorate::ControlCompaction { paused });
            lead.propose_compaction(control).await?;
            let word = if paused { "paused" } else { "goes on" };
            Ok(vec![format!("compaction {word}")])
        }
        Action::CancelCompaction(plan) => {
            let end = compaction_command::Kind::End(quorate::EndCompaction {
                plan,
                state: quorate::CompactionState::Cancelled.into(),
                reason: "cancelled by an operator".to_owned(),
                overdue: false,
            });
            lead.propose_compaction(end).await?;
            Ok(vec![format!("compaction plan {plan} is cancelled")])
        }
        Action::Drain(node) => drain(lead, node, true).await,
        Action::Undrain(node) => drain(lead, node, false).await,
        Action::PauseGarbageS(seconds) => {
            pause_garbage(lead, seconds).await?;
            Ok(vec![match seconds {
                0 => "garbage collection goes on".to_owned(),
                seconds => format!("garbage collection pauses for {seconds} s"),
            }])
        }
        Action::GarbageDryRun(_) => Ok(garbage::dry_run(lead).await?.lines()),
        Action::GarbageReport(_) => {
            let (last, total) = lead.coordinator.garbage.read();
            let mut told = vec!["since this node started:".to_owned()];
            told.extend(total.lines());
            if let Some(last) = last {
                told.push("in the last pass:".to_owned());
                told.extend(last.lines());
            }
            Ok(told)
        }
        Action::HandOverMs(ms) => {
            let ms = if ms == 0 { HAND_OVER_MS_DEFAULT } else { ms };
            let deadline = Instant::now() + Duration::from_millis(ms);
            crate::coordinator::hand_over::hand_over(lead, deadline).await
        }
        Action::TakeOver(_) => Ok(Vec::new()),
    }
}

async fn drain(lead: &Arc<Lead>, node: i64, on: bool) -> Result<Vec<String>, Failure> {
    let drain = channel_command::Kind::Drain(quorate::DrainNode { node, on });
    lead.propose_channel(drain).await?;
    Ok(vec![match on {
        true => format!(
            "data node {node} gives its channels away: `quorate channels list` shows where they are"
        ),
        false => format!("data node {node} may have channels again"),
    }])
}

/// Compacts a collection, given by id or name.
pub(crate) async fn compact(lead: &Arc<Lead>, collection: &str) -> Result<String, Failure> {
    let view = lead.view().await?;
    let collection = view
        .read(|state: &State| inspect::collection(state.views(), collection))
        .map_err(|error| {
            Failure::refused(crate::coordinator::Code::CollectionNotFound, error.to_string())
        })?;
    let request = milvus::ManualCompactionRequest {
        collection_id: collection.0,
        ..milvus::ManualCompactionRequest::default()
    };
    let answer = datacoord::manual_compaction(lead, request).await?;
    Ok(format!(
        "compaction {} of collection {collection}: `quorate compactions list --collection \
         {collection}` shows its plans",
        answer.compaction_id
    ))
}

/// Pauses garbage collection for some seconds; 0 resumes it.
pub(crate) async fn pause_garbage(lead: &Arc<Lead>, seconds: u64) -> Result<(), Failure> {
    let (command, params) = match seconds {
        0 => (data::GcCommand::Resume, Vec::new()),
        seconds => {
            let value = seconds.to_string();
            let pair = common::KeyValuePair { key: "duration".to_owned(), value };
            (data::GcCommand::Pause, vec![pair])
        }
    };
    let request = data::GcControlRequest { command: command.into(), params, base: None };
    datacoord::gc_control(lead, request).await?;
    Ok(())
}

fn status(coordinator: &Coordinator, failure: Failure) -> Status {
    match failure {
        Failure::NotLeader => {
            let status = coordinator.node.status();
            let leader = status.borrow().leader.clone();
            not_leader(leader.as_ref(), &failure.to_string())
        }
        Failure::Unavailable(_) | Failure::Unknown(_) => Status::unavailable(failure.to_string()),
        Failure::Refused { reason, .. } => Status::failed_precondition(reason),
    }
}
