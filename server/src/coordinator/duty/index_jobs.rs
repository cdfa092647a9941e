//! Has index nodes build what is to be built, and takes what they have built.
//!
//! An attempt is on record before its node hears of it, so whoever leads next asks the same node for
//! the same job. A job is dropped on its node before the build is tried again and after it has ended.

mod calls;
mod job;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use proto::milvus::common::IndexState;
use proto::quorate::index_command::Kind;
use proto::quorate::{self, BuildResult};
use statemachine::view::{Area, BuildId, ServerId, Views};
use tokio::time::Instant;

use crate::coordinator::clients::CallError;
use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};
use calls::Verdict;
use plan::{Attempt, Nodes, Plan};

/// Unfinished builds planned for in a round, the oldest first.
const PLANNED_MAX: usize = 4096;
/// Attempts begun in a round.
const STARTED_MAX: usize = 64;
/// Ended builds whose jobs a former leader may not have dropped: only the youngest can be.
const LEFT_OVER_MAX: usize = 2048;
/// A new job is asked for after this time, then after twice the time, up to the scheduler's interval.
const FIRST_QUERY_AFTER: Duration = Duration::from_millis(100);
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Questions in a row that a node may leave unanswered before its attempts are given up.
const SILENT_MAX: u32 = 3;

#[derive(Default)]
pub(super) struct IndexJobs {
    nodes: BTreeMap<ServerId, Pace>,
    /// Builds that are not tried again before a time.
    resting: BTreeMap<BuildId, Rest>,
    /// Jobs that have ended and are still on their nodes.
    ended: BTreeMap<ServerId, BTreeSet<i64>>,
    has_looked_back: bool,
    /// Nodes of which was logged that they are not used.
    refused: BTreeSet<ServerId>,
    wait: Option<Duration>,
}

/// When a node is asked next.
struct Pace {
    query_at: Instant,
    step: Duration,
    n_silent: u32,
}

struct Rest {
    until: Instant,
    length: Duration,
}

impl Duty for IndexJobs {
    const NAME: &'static str = "duty-index-jobs";
    const AREAS: &'static [Area] = &[Area::Index, Area::Session];

    fn period(&self) -> Duration {
        self.wait.unwrap_or(Duration::from_secs(1))
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let settings = lead.settings();
        let bound = settings.bound_index_node.as_ref().map(|(_, node)| ServerId(*node));
        let now = Instant::now();
        let (nodes, plan) = lead.local().read(|state| {
            let views = state.views();
            let nodes = Nodes::of(views, bound, &settings.allowed_index_nodes);
            if !self.has_looked_back {
                self.ended = left_over(views, &nodes);
            }
            let is_resting = |build| self.resting.get(&build).is_some_and(|rest| rest.until > now);
            let plan = Plan::make(views, &nodes, settings.index_min_rows, PLANNED_MAX, is_resting);
            (nodes, plan)
        });
        self.has_looked_back = true;
        self.log_refused(lead, &nodes);
        self.nodes.retain(|node, _| nodes.is_there(*node));
        self.ended.retain(|node, _| nodes.is_there(*node));

        self.finish_what_needs_nothing(lead, &plan.finish).await;
        self.abandon(lead, &plan.abandon).await?;
        for attempt in &plan.lost {
            self.give_up(lead, attempt, "its index node is gone").await;
        }
        self.query(lead, &plan.query).await;
        self.start(lead, &nodes, plan.start).await;
        self.drop_ended(lead).await;

        let queries = plan.query.keys().filter_map(|node| self.nodes.get(node));
        let next = queries.map(|pace| pace.query_at).min();
        let until = next.map(|at| at.saturating_duration_since(Instant::now()));
        let interval = settings.index_scheduler_interval;
        self.wait = Some(until.map_or(interval, |until| until.min(interval)));
        Ok(())
    }
}

/// Jobs that may still be on nodes although their builds have ended.
fn left_over(views: &Views, nodes: &Nodes) -> BTreeMap<ServerId, BTreeSet<i64>> {
    let mut jobs: BTreeMap<ServerId, BTreeSet<i64>> = BTreeMap::new();
    for (id, build) in views.indexes().youngest().take(LEFT_OVER_MAX) {
        let is_ended = matches!(build.state, IndexState::Finished | IndexState::Failed);
        if is_ended && build.version > 0 && nodes.is_there(build.node) {
            jobs.entry(build.node).or_default().insert(id.0);
        }
    }
    jobs
}

impl IndexJobs {
    fn log_refused(&mut self, lead: &Lead, nodes: &Nodes) {
        self.refused.retain(|node| nodes.refused().contains_key(node));
        for (node, address) in nodes.refused() {
            if self.refused.insert(*node) {
                tracing::error!(
                    %node,
                    address,
                    allowed = %lead.settings().allowed_index_nodes,
                    "an index node gets no jobs: its address is not in indexCoord.allowedNodes"
                );
            }
        }
    }

    async fn finish_what_needs_nothing(&mut self, lead: &Lead, attempts: &[Attempt]) {
        for attempt in attempts {
            self.finish(lead, attempt, BuildResult::default()).await;
        }
    }

    /// Whose segment or index is gone.
    async fn abandon(&mut self, lead: &Lead, attempts: &[Attempt]) -> Result<(), Failure> {
        if attempts.is_empty() {
            return Ok(());
        }
        for attempt in attempts {
            self.resting.remove(&attempt.id());
            self.note_ended(attempt);
        }
        let builds = attempts.iter().map(|attempt| attempt.build).collect();
        let remove = quorate::RemoveBuilds { builds };
        let done = lead.propose_index(Kind::RemoveBuilds(remove)).await?;
        tracing::info!(builds = ?done.changed, "builds without a segment or an index removed");
        Ok(())
    }

    fn note_ended(&mut self, attempt: &Attempt) {
        if attempt.version > 0 {
            self.ended.entry(attempt.node).or_default().insert(attempt.build.build);
        }
    }

    async fn query(&mut self, lead: &Lead, running: &BTreeMap<ServerId, Vec<Attempt>>) {
        let now = Instant::now();
        let due = running
            .iter()
            .filter(|(node, _)| self.nodes.get(node).is_none_or(|pace| pace.query_at <= now));
        let asked = due.map(|(node, attempts)| async move {
            (*node, attempts, calls::query(lead, *node, attempts).await)
        });
        for (node, attempts, answer) in join_all(asked).await {
            let n_silent = self.pace(node, lead.settings().index_scheduler_interval, &answer);
            match answer {
                Ok(verdicts) => {
                    for (attempt, verdict) in attempts.iter().zip(verdicts) {
                        match verdict {
                            Verdict::Wait => {}
                            Verdict::Finish(result) => self.finish(lead, attempt, result).await,
                            Verdict::Retry(reason) => self.give_up(lead, attempt, &reason).await,
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%node, %error, n_silent, "index node does not tell of its jobs");
                    if n_silent >= SILENT_MAX || matches!(error, CallError::Refused { .. }) {
                        for attempt in attempts {
                            self.give_up(lead, attempt, &error.to_string()).await;
                        }
                    }
                }
            }
        }
    }

    /// Sets when the node is asked next; returns how often it did not answer.
    fn pace<T>(
        &mut self,
        node: ServerId,
        interval: Duration,
        answer: &Result<T, CallError>,
    ) -> u32 {
        let now = Instant::now();
        let first = FIRST_QUERY_AFTER.min(interval);
        let pace =
            self.nodes.entry(node).or_insert(Pace { query_at: now, step: first, n_silent: 0 });
        pace.step = (pace.step * 2).min(interval);
        pace.query_at = now + pace.step;
        pace.n_silent = if answer.is_ok() { 0 } else { pace.n_silent + 1 };
        pace.n_silent
    }

    /// A build has ended, by a node's word or because nothing has to be built.
    async fn finish(&mut self, lead: &Lead, attempt: &Attempt, result: BuildResult) {
        let failure = result.failure.clone();
        let (size_bytes, n_files) = (result.size_bytes, result.file_keys.len());
        let Attempt { build, version, node, .. } = *attempt;
        let finish = quorate::FinishBuild { build: Some(build), version, result: Some(result) };
        if let Err(error) = lead.propose_index(Kind::Finish(finish)).await {
            tracing::warn!(build = build.build, attempt = version, %error, "build not ended");
            return;
        }
        if failure.is_empty() {
            tracing::info!(
                build = build.build, segment = build.segment, attempt = version, %node, n_files,
                size_bytes, "build finished"
            );
        } else {
            tracing::error!(
                build = build.build, segment = build.segment, attempt = version, %node, failure,
                "build failed"
            );
        }
        self.resting.remove(&attempt.id());
        self.note_ended(attempt);
    }

    /// The attempt is over; another one follows after a rest.
    async fn give_up(&mut self, lead: &Lead, attempt: &Attempt, reason: &str) {
        let Attempt { build, version, .. } = *attempt;
        tracing::warn!(build = build.build, attempt = version, reason, "attempt given up");
        self.rest(attempt);
        let retry = quorate::RetryBuild { build: Some(build), version, reason: reason.to_owned() };
        if let Err(error) = lead.propose_index(Kind::Retry(retry)).await {
            tracing::warn!(build = build.build, attempt = version, %error, "attempt goes on");
        }
    }

    fn rest(&mut self, attempt: &Attempt) {
        let before = self.resting.get(&attempt.id()).map(|rest| rest.length);
        let length = before.map_or(FIRST_REST, |length| (length * 2).min(LONGEST_REST));
        self.resting.insert(attempt.id(), Rest { until: Instant::now() + length, length });
    }

    async fn start(&mut self, lead: &Lead, nodes: &Nodes, waiting: Vec<Attempt>) {
        if waiting.is_empty() {
            return;
        }
        let asked = nodes.ready().map(|node| async move { (node, calls::slots(lead, node).await) });
        let mut free = Vec::new();
        for (node, slots) in join_all(asked).await {
            match slots {
                Ok(slots) => free.push(slots),
                Err(error) => tracing::debug!(%node, %error, "index node takes no job"),
            }
        }
        let placed = plan::place(&waiting, free, STARTED_MAX);
        let started = placed.into_iter().map(|(attempt, node)| async move {
            let begun = calls::start(lead, &attempt, node, nodes).await;
            (attempt, node, begun)
        });
        for (attempt, node, begun) in join_all(started).await {
            match begun {
                Ok(()) => {
                    let build = attempt.build.build;
                    tracing::info!(build, attempt = attempt.version + 1, %node, "build begun");
                    let step = FIRST_QUERY_AFTER.min(lead.settings().index_scheduler_interval);
                    let query_at = Instant::now() + step;
                    self.nodes.insert(node, Pace { query_at, step, n_silent: 0 });
                    if let Some(ended) = self.ended.get_mut(&node) {
                        // It was dropped before, and is a new job now.
                        ended.remove(&build);
                    }
                }
                Err(calls::NotBegun { error, on_record }) => {
                    tracing::warn!(build = attempt.build.build, %node, %error, "build not begun");
                    if on_record {
                        let begun = Attempt { version: attempt.version + 1, node, ..attempt };
                        self.give_up(lead, &begun, &error.to_string()).await;
                    } else {
                        self.rest(&attempt);
                    }
                }
            }
        }
    }

    async fn drop_ended(&mut self, lead: &Lead) {
        let dropped =
            self.ended.iter().filter(|(_, jobs)| !jobs.is_empty()).map(|(node, jobs)| async move {
                (*node, calls::drop_jobs(lead, *node, jobs).await)
            });
        for (node, dropped) in join_all(dropped).await {
            match dropped {
                Ok(()) | Err(CallError::Gone { .. }) => {
                    self.ended.remove(&node);
                }
                Err(error) => tracing::debug!(%node, %error, "ended jobs stay on their index node"),
            }
        }
    }
}
