//! Follows plans at their data nodes: sends, polls, completes, gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use proto::milvus::common::CompactionState as NodeState;
use proto::milvus::data::CompactionStateResult;
use proto::quorate::channel_move::Step;
use proto::quorate::compaction_command::Kind;
use proto::quorate::{
    ChannelMove, CompactionState, CompactionTask, EndCompaction, ForgetCompactions, MoveChannels,
    ReleaseReason,
};
use statemachine::Views;
use statemachine::view::{Area, PlanId, ServerId};

use super::{completion, dispatch, end};
use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead, data_nodes};

/// Nodes that have plans are asked this often, or as often as is configured.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// One that does not answer holds the others up no longer.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long plans that ended are told of.
const KEEP_MS: u64 = 3600 * 1000;

#[derive(Default)]
pub(crate) struct Execution {
    /// When nodes with plans were asked last, and all nodes.
    last_poll: Option<Instant>,
    last_sweep: Option<Instant>,
    /// Plans that their nodes took in this tenure: if such a one is not reported, it has failed.
    taken: BTreeSet<i64>,
    /// Since when other plans are not reported.
    missing: BTreeMap<i64, Instant>,
    /// What each node reported last.
    reported: BTreeMap<ServerId, BTreeSet<i64>>,
    /// Plans that no record explains, and for which a channel was to be watched anew.
    answered: BTreeSet<(ServerId, i64)>,
    /// Channels that wait for that get no new plans.
    held: BTreeSet<String>,
}

impl Duty for Execution {
    const NAME: &'static str = "duty-compaction-execution";
    const AREAS: &'static [Area] =
        &[Area::Compaction, Area::Session, Area::Channel, Area::Assignment];

    fn period(&self) -> Duration {
        POLL_INTERVAL
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        end_lost(lead).await?;
        self.poll(lead).await?;
        let taken = dispatch::dispatch(lead, &self.held).await?;
        self.taken.extend(taken);
        self.forget(lead).await
    }
}

/// Plans whose node is gone, or whose channel somebody else consumes: what is not on record yet never
/// will be, and its files are orphans.
async fn end_lost(lead: &Arc<Lead>) -> Result<(), Failure> {
    let lost: Vec<(i64, CompactionState, String)> = lead.local().read(|state| {
        let views = state.views();
        let alive = data_nodes::alive(views);
        views.plans().running().filter_map(|(_, plan)| lost(views, &alive, &plan.task)).collect()
    });
    for (plan, state, reason) in lost {
        end(lead, plan, state, &reason).await?;
    }
    Ok(())
}

fn lost(
    views: &Views,
    alive: &BTreeSet<ServerId>,
    task: &CompactionTask,
) -> Option<(i64, CompactionState, String)> {
    let state = match task.state() {
        CompactionState::Executing => CompactionState::Failed,
        CompactionState::TimedOut => CompactionState::TimedOut,
        CompactionState::Completed => CompactionState::Synced,
        CompactionState::Unspecified
        | CompactionState::Queued
        | CompactionState::Synced
        | CompactionState::Failed
        | CompactionState::Cancelled => return None,
    };
    let reason = if !alive.contains(&ServerId(task.node)) {
        format!("data node {} is gone", task.node)
    } else {
        match views.assignments().get(&task.channel) {
            None => "its channel is gone".to_owned(),
            Some(now) if (now.node.0, now.epoch) != (task.node, task.epoch) => {
                format!("its channel went to node {} in epoch {}", now.node, now.epoch)
            }
            Some(_same) => return None,
        }
    };
    Some((task.plan, state, reason))
}

/// A node and what it reports, or `None` where it did not answer.
type Report = (ServerId, Option<Vec<CompactionStateResult>>);

impl Execution {
    async fn poll(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let interval = lead.settings().compaction_check_interval;
        let is_due = |last: Option<Instant>, every| last.is_none_or(|at| at.elapsed() >= every);
        if !is_due(self.last_poll, POLL_INTERVAL.min(interval)) {
            return Ok(());
        }
        let now = Instant::now();
        self.last_poll = Some(now);
        let is_sweep = is_due(self.last_sweep, interval);
        let (nodes, before) = lead.local().read(|state| {
            let views = state.views();
            let at_nodes: BTreeMap<i64, CompactionTask> = views
                .plans()
                .running()
                .filter(|(_, plan)| plan.task.state() != CompactionState::Queued)
                .map(|(id, plan)| (id.0, plan.task.clone()))
                .collect();
            let alive = data_nodes::alive(views);
            let busy: BTreeSet<ServerId> =
                at_nodes.values().map(|task| ServerId(task.node)).collect();
            let nodes: Vec<ServerId> =
                alive.into_iter().filter(|node| is_sweep || busy.contains(node)).collect();
            (nodes, at_nodes)
        });
        if is_sweep {
            self.last_sweep = Some(now);
            self.reported.clear();
            self.held.clear();
        }
        let reports = join_all(nodes.into_iter().map(|node| ask(lead, node))).await;
        for (node, results) in reports {
            let Some(results) = results else { continue };
            let reported: BTreeSet<i64> = results.iter().map(|result| result.plan_id).collect();
            self.settle(lead, node, results).await?;
            self.note_missing(lead, node, &before, &reported).await?;
            self.reported.insert(node, reported);
        }
        Ok(())
    }

    /// Goes through what a node reports.
    async fn settle(
        &mut self,
        lead: &Arc<Lead>,
        node: ServerId,
        results: Vec<CompactionStateResult>,
    ) -> Result<(), Failure> {
        for report in results {
            let plan = report.plan_id;
            self.missing.remove(&plan);
            let task = lead.local().read(|state| {
                state.views().plans().get(PlanId(plan)).map(|plan| plan.task.clone())
            });
            let Some(task) = task else {
                let channel = report.result.map(|result| result.channel).unwrap_or_default();
                self.watch_anew(lead, node, plan, &channel).await?;
                continue;
            };
            if task.node != node.0 {
                continue;
            }
            let settled = match Standing::of(&task) {
                Standing::Awaited => self.await_result(lead, &task, report).await,
                Standing::Untold => completion::sync(lead, plan).await,
                Standing::GivenUp => {
                    // In a later epoch the channel was watched anew already.
                    let consumer =
                        lead.local().read(|state| dispatch::consumer(state.views(), &task.channel));
                    if consumer == Some((node, task.epoch)) {
                        self.watch_anew(lead, node, plan, &task.channel).await?;
                    }
                    Ok(())
                }
                Standing::Over => Ok(()),
            };
            match settled {
                Ok(()) => {}
                Err(
                    failure @ (Failure::Refused { .. }
                    | Failure::Unavailable(_)
                    | Failure::Unknown(_)),
                ) => {
                    tracing::warn!(plan, node = node.0, error = %failure, "compaction waits");
                }
                Err(failure @ Failure::NotLeader) => return Err(failure),
            }
        }
        Ok(())
    }

    async fn await_result(
        &self,
        lead: &Arc<Lead>,
        task: &CompactionTask,
        report: CompactionStateResult,
    ) -> Result<(), Failure> {
        let is_late = is_late(task, lead.now_ms());
        if report.state() == NodeState::Completed
            && let Some(result) = report.result
        {
            let taken = completion::take_in(lead, task, result).await;
            return match taken {
                // Inputs that do not go together any more never will again.
                Err(Failure::Refused { reason, .. }) if is_late => {
                    end(lead, task.plan, CompactionState::Failed, &reason).await
                }
                other => other,
            };
        }
        if is_late && task.state() == CompactionState::Executing {
            let plan = task.plan;
            tracing::warn!(plan, node = task.node, "compaction is overdue");
            let (state, reason) = (CompactionState::TimedOut.into(), "overdue".to_owned());
            let overdue = EndCompaction { plan, state, reason, overdue: true };
            lead.propose_compaction(Kind::End(overdue)).await?;
        }
        Ok(())
    }

    /// Plans that were at the node before it was asked, and of which it does not know.
    async fn note_missing(
        &mut self,
        lead: &Arc<Lead>,
        node: ServerId,
        before: &BTreeMap<i64, CompactionTask>,
        reported: &BTreeSet<i64>,
    ) -> Result<(), Failure> {
        let patience = lead.settings().compaction_rpc_timeout;
        for (plan, task) in before {
            if task.node != node.0 || reported.contains(plan) {
                continue;
            }
            match Standing::of(task) {
                Standing::Awaited => {
                    // An earlier leader may be sending it just now.
                    let since = *self.missing.entry(*plan).or_insert_with(Instant::now);
                    if !self.taken.contains(plan) && since.elapsed() < patience {
                        continue;
                    }
                    let is_overdue = task.state() == CompactionState::TimedOut;
                    let state = if is_overdue {
                        CompactionState::TimedOut
                    } else {
                        CompactionState::Failed
                    };
                    end(lead, *plan, state, "its data node does not know it").await?;
                }
                // It forgets a plan when it is told.
                Standing::Untold => {
                    if let Err(failure) = completion::sync(lead, *plan).await {
                        tracing::warn!(plan, error = %failure, "compaction waits");
                    }
                }
                Standing::GivenUp | Standing::Over => {}
            }
            self.missing.remove(plan);
            self.taken.remove(plan);
        }
        Ok(())
    }

    /// A plan that is not on record holds back what its inputs get: nothing but a new flow graph ends
    /// that.
    async fn watch_anew(
        &mut self,
        lead: &Arc<Lead>,
        node: ServerId,
        plan: i64,
        channel: &str,
    ) -> Result<(), Failure> {
        if self.answered.contains(&(node, plan)) {
            return Ok(());
        }
        let step = lead.local().read(|state| {
            let views = state.views();
            let (owner, epoch) = dispatch::consumer(views, channel)?;
            let watch = views.channels().get(owner, channel)?;
            (owner == node).then(|| ChannelMove {
                channel: channel.to_owned(),
                epoch,
                key_revision: watch.revision,
                step: Some(Step::Release(ReleaseReason::Unspecified.into())),
            })
        });
        let Some(step) = step else {
            tracing::debug!(plan, node = node.0, channel, "a node works on an unknown plan");
            return Ok(());
        };
        self.held.insert(channel.to_owned());
        tracing::warn!(
            plan,
            node = node.0,
            channel,
            "a node has a plan that is not on record: its channel is watched anew"
        );
        let moves = MoveChannels { moves: vec![step] };
        let kind = proto::quorate::channel_command::Kind::Move(moves);
        let outcome = lead.propose_channel(kind).await?;
        // Refused while other plans of the channel run.
        if outcome.refused.is_empty() {
            self.answered.insert((node, plan));
            self.held.remove(channel);
        }
        Ok(())
    }

    /// Plans that ended long ago and that no node tells of.
    async fn forget(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let now_ms = lead.now_ms();
        let reported: BTreeSet<i64> = self.reported.values().flatten().copied().collect();
        let plans: Vec<i64> = lead.local().read(|state| {
            let plans = state.views().plans().rows().decoded();
            let old = plans.filter(|(id, plan)| {
                !plan.is_running()
                    && now_ms.saturating_sub(plan.task.ended_at_ms) > KEEP_MS
                    && !reported.contains(&id.0)
            });
            old.map(|(id, _)| id.0).take(100).collect()
        });
        if !plans.is_empty() {
            lead.propose_compaction(Kind::Forget(ForgetCompactions { plans })).await?;
        }
        Ok(())
    }
}

/// What a report of a plan means to us.
enum Standing {
    /// Its result is welcome.
    Awaited,
    /// Its result is on record, and its node has not heard.
    Untold,
    /// It ended without a result.
    GivenUp,
    Over,
}

impl Standing {
    fn of(task: &CompactionTask) -> Standing {
        match task.state() {
            CompactionState::Executing => Standing::Awaited,
            CompactionState::TimedOut if task.ended_at_ms == 0 => Standing::Awaited,
            CompactionState::Completed => Standing::Untold,
            CompactionState::TimedOut | CompactionState::Failed | CompactionState::Cancelled => {
                Standing::GivenUp
            }
            CompactionState::Synced | CompactionState::Queued | CompactionState::Unspecified => {
                Standing::Over
            }
        }
    }
}

async fn ask(lead: &Arc<Lead>, node: ServerId) -> Report {
    let Ok(mut client) = lead.clients().data_node(node) else { return (node, None) };
    match tokio::time::timeout(POLL_TIMEOUT, client.compaction_state()).await {
        Ok(Ok(results)) => (node, Some(results)),
        Ok(Err(error)) => {
            tracing::warn!(node = node.0, %error, "a node does not tell of its plans");
            (node, None)
        }
        Err(_elapsed) => {
            tracing::warn!(node = node.0, "a node does not tell of its plans in time");
            (node, None)
        }
    }
}

fn is_late(task: &CompactionTask, now_ms: u64) -> bool {
    let timeout_ms = u64::try_from(task.timeout_s).unwrap_or(0).saturating_mul(1000);
    now_ms > task.sent_at_ms.saturating_add(timeout_ms)
}
