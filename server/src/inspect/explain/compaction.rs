//! Compaction plans: until their result is on record and the data node knows it.

use proto::quorate::CompactionState;
use statemachine::view::{PlanId, ServerId};

use super::super::{InspectError, list};
use super::{Line, Scene, channel, is_alive};
use crate::coordinator::data_nodes;
use crate::coordinator::tso::physical_ms;

pub(super) fn of(scene: &Scene<'_>, id: PlanId) -> Result<Vec<Line>, InspectError> {
    let plans = scene.views.plans();
    let plan = plans
        .get(id)
        .ok_or_else(|| InspectError::NotFound(format!("there is no compaction plan {id}")))?;
    let task = &plan.task;
    let mut lines = vec![Line::met(format!("it is {}", list::plan_state(task.state())))];
    match task.state() {
        CompactionState::Queued | CompactionState::Unspecified => {
            let planned = task.planned_at_ms;
            lines.push(Line::judge(
                !plans.is_paused(),
                "compaction is not paused",
                0,
                "an operator: `quorate compactions resume`",
            ));
            let wanted = scene.settings.data_nodes_min;
            lines.push(Line::judge(
                !data_nodes::are_too_few(scene.views, scene.settings),
                format!("there are enough data nodes (dataCoord.minDataNodes = {wanted})"),
                0,
                "an operator: start data nodes",
            ));
            lines.extend(channel::owner(scene, &task.channel));
            let executing = |node: i64| {
                move |task: &proto::quorate::CompactionTask| {
                    task.state() == CompactionState::Executing && (node == 0 || task.node == node)
                }
            };
            let owner = scene.views.assignments().get(&task.channel).map_or(0, |one| one.node.0);
            let running = || plans.running().map(|(_, plan)| &plan.task);
            let on_node = running().filter(|task| executing(owner)(task)).count();
            let all = running().filter(|task| executing(0)(task)).count();
            let (node_max, all_max) =
                (scene.settings.compaction_per_worker_max, scene.settings.compaction_parallel_max);
            lines.push(Line::judge(
                on_node < node_max,
                format!("its data node has a free slot ({on_node} of {node_max} in use)"),
                planned,
                "the plans that run there",
            ));
            lines.push(Line::judge(
                all < all_max,
                format!("fewer plans run than may ({all} of {all_max})"),
                planned,
                "the plans that run",
            ));
            lines.push(Line::waits("it is sent", planned, "the leading coordinator"));
        }
        CompactionState::Executing => {
            let node = ServerId(task.node);
            lines.push(Line::judge(
                is_alive(scene.views, node),
                format!("data node {node} has a session"),
                0,
                "the leading coordinator ends the plan",
            ));
            let epoch = scene.views.assignments().get(&task.channel).map(|one| one.epoch);
            lines.push(Line::judge(
                epoch == Some(task.epoch),
                "its channel has not moved since",
                0,
                "the leading coordinator ends the plan",
            ));
            lines.push(Line::waits(
                format!("the data node has a result, within {} s", task.timeout_s),
                physical_ms(task.start_ts),
                format!("data node {node}"),
            ));
        }
        CompactionState::Completed => lines.push(Line::waits(
            "the data node is told of the result (SyncSegments)",
            0,
            format!("data node {} answers", task.node),
        )),
        CompactionState::TimedOut if task.ended_at_ms == 0 => lines.push(Line::waits(
            "its data node lets go of it",
            physical_ms(task.start_ts),
            format!("data node {}", task.node),
        )),
        CompactionState::Synced
        | CompactionState::Failed
        | CompactionState::TimedOut
        | CompactionState::Cancelled => {
            let mut line = Line::done(match task.end_reason.is_empty() {
                true => "it has ended".to_owned(),
                false => format!("it has ended: {}", task.end_reason),
            });
            line.since_ms = task.ended_at_ms;
            lines.push(line);
        }
    }
    Ok(lines)
}
