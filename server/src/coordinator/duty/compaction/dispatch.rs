//! Sends plans that wait to the data nodes that consume their channels. A data node starts whatever
//! it is sent, so slots are counted here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use proto::milvus::data::{CompactionPlan, CompactionSegmentBinlogs, CompactionType, SegmentInfo};
use proto::quorate::compaction_command::Kind;
use proto::quorate::{CompactionState, CompactionTask, SendCompaction};
use statemachine::channel::ChannelState;
use statemachine::view::{PlanId, SegmentId, ServerId, Views};

use super::completion::read;
use super::end;
use crate::coordinator::clients::CallError;
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::{Failure, Lead, data_nodes};

/// One plan and where it goes.
#[derive(Clone, Debug, PartialEq)]
struct Order {
    task: CompactionTask,
    node: ServerId,
    epoch: u64,
}

/// Sends what there are slots for; returns the plans that nodes took. Channels of `held` get none.
pub(super) async fn dispatch(
    lead: &Arc<Lead>,
    held: &BTreeSet<String>,
) -> Result<Vec<i64>, Failure> {
    let (orders, hopeless) = lead.local().read(|state| {
        let views = state.views();
        (orders(views, lead.settings(), held), hopeless(views))
    });
    for plan in hopeless {
        end(lead, plan, CompactionState::Failed, "its channel is gone").await?;
    }
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    // Becomes the last expiry of the results, so it is asked for now.
    let start_ts = lead.tso.fresh().await?;
    let sent = join_all(orders.into_iter().map(|order| send(lead, order, start_ts))).await;
    let mut taken = Vec::new();
    for sent in sent {
        taken.extend(sent?);
    }
    Ok(taken)
}

/// Plans that wait for a channel that does not exist any more.
fn hopeless(views: &Views) -> Vec<i64> {
    let queued = views.plans().running().filter(|(_, plan)| is_queued(&plan.task));
    let hopeless = queued.filter(|(_, plan)| {
        let channel = &plan.task.channel;
        views.assignments().get(channel).is_none()
            || views.assignments().removal(channel) == Some(true)
    });
    hopeless.map(|(id, _)| id.0).collect()
}

fn is_queued(task: &CompactionTask) -> bool {
    task.state() == CompactionState::Queued
}

/// The most urgent first, as many as nodes have slots.
fn orders(views: &Views, settings: &CoordinatorSettings, held: &BTreeSet<String>) -> Vec<Order> {
    let plans = views.plans();
    let is_paused = plans.is_paused() || !settings.enable_compaction;
    if is_paused || data_nodes::are_too_few(views, settings) {
        return Vec::new();
    }
    let mut at_work: BTreeMap<ServerId, usize> = BTreeMap::new();
    let mut queued: Vec<&CompactionTask> = Vec::new();
    for (_, plan) in plans.running() {
        if is_queued(&plan.task) {
            queued.push(&plan.task);
        } else {
            *at_work.entry(ServerId(plan.task.node)).or_default() += 1;
        }
    }
    queued.sort_by_key(|task| (-task.priority_milli, task.plan));
    let taking = data_nodes::taking(views);
    let mut room = settings.compaction_parallel_max.saturating_sub(at_work.values().sum());
    let mut orders = Vec::new();
    for task in queued {
        if room == 0 {
            break;
        }
        if held.contains(&task.channel) {
            continue;
        }
        let Some((node, epoch)) = consumer(views, &task.channel) else { continue };
        let at_node = at_work.entry(node).or_default();
        if !taking.contains(&node) || *at_node >= settings.compaction_per_worker_max {
            continue;
        }
        *at_node += 1;
        room -= 1;
        orders.push(Order { task: task.clone(), node, epoch });
    }
    orders
}

/// Who consumes a channel, and since which epoch.
pub(super) fn consumer(views: &Views, channel: &str) -> Option<(ServerId, u64)> {
    let assignment = views.assignments().get(channel)?;
    let watch = views.channels().get(assignment.node, channel)?;
    let is_consumed = watch.state == ChannelState::WatchSuccess;
    is_consumed.then_some((assignment.node, assignment.epoch))
}

/// Returns the plan if its node took it.
async fn send(lead: &Arc<Lead>, order: Order, start_ts: u64) -> Result<Option<i64>, Failure> {
    let Order { task, node, epoch } = order;
    let plan = task.plan;
    let command = SendCompaction { plan, node: node.0, epoch, start_ts };
    match lead.propose_compaction(Kind::Send(command)).await {
        Ok(_sent) => {}
        Err(Failure::Refused { reason, .. }) => {
            let is_void = lead.local().read(|state| has_lost_inputs(state.views(), &task));
            tracing::info!(plan, reason, is_void, "compaction is not sent");
            if is_void {
                end(lead, plan, CompactionState::Failed, "an input is not there any more").await?;
            }
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    }
    let task = lead
        .local()
        .read(|state| state.views().plans().get(PlanId(plan)).map(|plan| plan.task.clone()));
    let Some(task) = task else { return Ok(None) };
    let ids = task.inputs.iter().map(|input| SegmentId(input.segment)).collect();
    let inputs = read(lead, ids).await?;
    let message = message(&task, inputs);
    let mut client = match lead.clients().data_node(node) {
        Ok(client) => client,
        // Its plans end with it.
        Err(_gone) => return Ok(None),
    };
    match client.compaction(message, lead.settings().compaction_rpc_timeout).await {
        Ok(()) => {
            tracing::info!(plan, node = node.0, channel = task.channel, "compaction sent");
            Ok(Some(plan))
        }
        Err(error @ (CallError::Refused { .. } | CallError::Unimplemented { .. })) => {
            let reason = format!("its data node refuses it: {error}");
            end(lead, plan, CompactionState::Failed, &reason).await?;
            Ok(None)
        }
        // What its node reports will tell.
        Err(error @ (CallError::Gone { .. } | CallError::Unreachable { .. })) => {
            tracing::warn!(plan, node = node.0, %error, "compaction may not have been heard of");
            Ok(None)
        }
    }
}

fn has_lost_inputs(views: &Views, task: &CompactionTask) -> bool {
    task.inputs.iter().any(|input| {
        let segment = views.segments().get(SegmentId(input.segment));
        segment.is_none_or(|segment| !segment.is_flushed() || segment.is_importing)
    })
}

/// As the data node expects it. Delta logs that came after the plan was sent are not in it: they are
/// carried over when it is completed.
fn message(task: &CompactionTask, inputs: Vec<SegmentInfo>) -> CompactionPlan {
    let segment_binlogs = inputs.into_iter().map(|info| {
        let input = task.inputs.iter().find(|input| input.segment == info.id);
        let planned = input.map(|input| &input.deltalogs[..]).unwrap_or_default();
        let mut deltalogs = info.deltalogs;
        for logs in &mut deltalogs {
            logs.binlogs.retain(|log| planned.contains(&log.log_id));
        }
        deltalogs.retain(|logs| !logs.binlogs.is_empty());
        CompactionSegmentBinlogs {
            segment_id: info.id,
            field_binlogs: info.binlogs,
            field2_statslog_paths: info.statslogs,
            deltalogs,
            ..Default::default()
        }
    });
    CompactionPlan {
        plan_id: task.plan,
        segment_binlogs: segment_binlogs.collect(),
        start_time: task.start_ts,
        timeout_in_seconds: i32::try_from(task.timeout_s).unwrap_or(i32::MAX),
        r#type: CompactionType::MixCompaction.into(),
        channel: task.channel.clone(),
        collection_ttl: task.ttl_ns,
        total_rows: task.total_rows,
        ..Default::default()
    }
}
