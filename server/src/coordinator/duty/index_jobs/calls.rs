//! Calls to index nodes, and what their answers mean.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::milvus::common::IndexState;
use proto::milvus::index;
use proto::quorate::index_command::Kind;
use proto::quorate::{self, BuildResult};
use statemachine::view::ServerId;
use tokio::time::timeout;

use super::job;
use super::plan::{Attempt, Nodes, Slots};
use crate::coordinator::clients::{CallError, IndexNode};
use crate::coordinator::{Failure, Lead};

/// Questions are answered from memory; whoever takes longer has no time for jobs either.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Jobs named in one call.
const NAMED_MAX: usize = 512;

fn index_node(lead: &Lead, node: ServerId) -> Result<IndexNode, CallError> {
    match &lead.settings().bound_index_node {
        Some((address, _)) => Ok(lead.clients().bound_index_node(node, address)),
        None => lead.clients().index_node(node),
    }
}

async fn in_time<T>(
    node: ServerId,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let silent = |_elapsed| CallError::Unreachable {
        who: format!("index node {node}"),
        reason: format!("no answer within {ANSWERED_WITHIN:?}"),
    };
    timeout(ANSWERED_WITHIN, call).await.map_err(silent)?
}

pub(super) async fn slots(lead: &Lead, node: ServerId) -> Result<Slots, CallError> {
    let stats = in_time(node, index_node(lead, node)?.job_stats()).await?;
    let n_free = usize::try_from(stats.task_slots).unwrap_or(0);
    Ok(Slots { node, n_free, has_disk: stats.enable_disk })
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Wait,
    Finish(BuildResult),
    Retry(String),
}

/// One verdict for each attempt, in their order.
pub(super) async fn query(
    lead: &Lead,
    node: ServerId,
    attempts: &[Attempt],
) -> Result<Vec<Verdict>, CallError> {
    let mut verdicts = Vec::with_capacity(attempts.len());
    for attempts in attempts.chunks(NAMED_MAX) {
        let request = index::QueryJobsRequest {
            cluster_id: lead.settings().cluster.clone(),
            build_i_ds: attempts.iter().map(|attempt| attempt.build.build).collect(),
        };
        let answer = in_time(node, index_node(lead, node)?.query_jobs(request)).await?;
        verdicts.extend(attempts.iter().map(|attempt| {
            let of_build = |info: &&index::IndexTaskInfo| info.build_id == attempt.build.build;
            verdict(answer.index_infos.iter().find(of_build))
        }));
    }
    Ok(verdicts)
}

/// What a node says of a job; `None`: nothing.
pub(super) fn verdict(info: Option<&index::IndexTaskInfo>) -> Verdict {
    let Some(info) = info else {
        return Verdict::Retry("its index node does not know the job".to_owned());
    };
    match info.state() {
        IndexState::Finished => Verdict::Finish(BuildResult {
            failure: String::new(),
            file_keys: info.index_file_keys.clone(),
            size_bytes: info.serialized_size,
            engine_version: info.current_index_version,
        }),
        IndexState::Failed => {
            let said = Some(info.fail_reason.clone()).filter(|reason| !reason.is_empty());
            let failure = said.unwrap_or_else(|| "the index node gives no reason".to_owned());
            Verdict::Finish(BuildResult { failure, ..BuildResult::default() })
        }
        IndexState::InProgress | IndexState::Unissued => Verdict::Wait,
        IndexState::None => Verdict::Retry("its index node does not know the job".to_owned()),
        IndexState::Retry => {
            Verdict::Retry(format!("its index node asks for it: {}", info.fail_reason))
        }
    }
}

/// Why an attempt did not begin.
pub(super) struct NotBegun {
    pub(super) error: Failure,
    /// The attempt is on record all the same.
    pub(super) on_record: bool,
}

/// Begins the next attempt at a build on a node.
pub(super) async fn start(
    lead: &Lead,
    attempt: &Attempt,
    node: ServerId,
    nodes: &Nodes,
) -> Result<(), NotBegun> {
    let not_begun = |error| NotBegun { error, on_record: false };
    if attempt.version > 0 && nodes.is_there(attempt.node) {
        let jobs = BTreeSet::from([attempt.build.build]);
        let dropped = drop_jobs(lead, attempt.node, &jobs).await;
        // Another node knows nothing of the old job, and keeps its files apart.
        if let Err(error) = dropped
            && attempt.node == node
        {
            return Err(not_begun(error.into()));
        }
    }
    let request = job::request(lead, attempt).map_err(not_begun)?;
    let command = quorate::StartBuild {
        build: Some(attempt.build),
        expect_version: attempt.version,
        node: node.0,
    };
    lead.propose_index(Kind::Start(command)).await.map_err(not_begun)?;
    let created = match index_node(lead, node) {
        Ok(mut index_node) => index_node.create_job(request).await,
        Err(error) => Err(error),
    };
    created.map_err(|error| NotBegun { error: error.into(), on_record: true })
}

pub(super) async fn drop_jobs(
    lead: &Lead,
    node: ServerId,
    jobs: &BTreeSet<i64>,
) -> Result<(), CallError> {
    let jobs: Vec<i64> = jobs.iter().copied().collect();
    for jobs in jobs.chunks(NAMED_MAX) {
        let request = index::DropJobsRequest {
            cluster_id: lead.settings().cluster.clone(),
            build_i_ds: jobs.to_vec(),
        };
        in_time(node, index_node(lead, node)?.drop_jobs(request)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(state: IndexState, reason: &str) -> index::IndexTaskInfo {
        index::IndexTaskInfo {
            build_id: 20,
            state: state.into(),
            index_file_keys: vec!["HNSW".to_owned()],
            serialized_size: 9,
            fail_reason: reason.to_owned(),
            current_index_version: 3,
        }
    }

    #[test]
    fn an_answer_ends_an_attempt_or_lets_it_go_on() {
        let retry = |reason: &str| Verdict::Retry(reason.to_owned());
        let failed = |reason: &str| {
            Verdict::Finish(BuildResult { failure: reason.to_owned(), ..BuildResult::default() })
        };
        let finished = Verdict::Finish(BuildResult {
            file_keys: vec!["HNSW".to_owned()],
            size_bytes: 9,
            engine_version: 3,
            ..BuildResult::default()
        });
        assert_eq!(verdict(Some(&info(IndexState::Finished, ""))), finished);
        assert_eq!(verdict(Some(&info(IndexState::Failed, "bad"))), failed("bad"));
        let silent = failed("the index node gives no reason");
        assert_eq!(verdict(Some(&info(IndexState::Failed, ""))), silent);
        assert_eq!(verdict(Some(&info(IndexState::InProgress, ""))), Verdict::Wait);
        assert_eq!(verdict(Some(&info(IndexState::Unissued, ""))), Verdict::Wait);
        let unknown = retry("its index node does not know the job");
        assert_eq!(verdict(Some(&info(IndexState::None, ""))), unknown);
        assert_eq!(verdict(None), unknown);
        let asked = retry("its index node asks for it: no memory");
        assert_eq!(verdict(Some(&info(IndexState::Retry, "no memory"))), asked);
    }
}
