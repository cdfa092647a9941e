//! `quorate status`: asks every member and judges the whole.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use proto::admin::{NodeStatus, Role, Stage};
use proto::client::Client;
use serde::Serialize;

use crate::config::checked::show_size;

use super::args::ClusterArgs;
use super::text::{full_digest, show_id, show_span, since};
use super::{Ending, output};

/// A follower further behind than this is worth a warning.
const LAG_WARN: u64 = 10_000;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 healthy, 1 degraded (it works, and something is wrong), 3 no leader that a
majority follows.

  quorate status
  quorate status --endpoints 10.0.0.1:2379,10.0.0.2:2379
  watch -n1 quorate status
  quorate status -o json | jq '.nodes[] | {name, role, revision}'")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What `status` found, as it is printed in JSON.
#[derive(Debug, Serialize)]
pub(super) struct ClusterReport {
    pub(super) health: &'static str,
    cluster_id: String,
    leader: Option<String>,
    problems: Vec<String>,
    nodes: Vec<NodeLine>,
}

#[derive(Debug, Serialize)]
struct NodeLine {
    name: String,
    id: String,
    endpoint: String,
    role: String,
    stage: &'static str,
    term: u64,
    index: u64,
    /// Entries behind the furthest node.
    lag: Option<u64>,
    revision: i64,
    compacted_revision: i64,
    digest: String,
    digest_index: u64,
    state_bytes: u64,
    log_bytes: u64,
    logical_bytes: u64,
    resident_bytes: u64,
    disk_free_bytes: u64,
    disk_low_bytes: u64,
    disk_ballast_bytes: u64,
    keys: u64,
    leader_since_ms: u64,
    uptime_ms: u64,
    version: String,
    /// How it stands with the coordinator's role; empty where the node has no part in it.
    coordinator: String,
    error: Option<String>,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<Ending> {
    let client = args.cluster.client()?;
    let report = ask_all(&client).await?;
    output::show(args.cluster.output.output, &report, table)?;
    Ok(match report.health {
        "healthy" => Ending::Good,
        "degraded" => Ending::Degraded,
        _ => Ending::Bad,
    })
}

/// Asks the given endpoints and every member that any of them tells.
///
/// # Errors
/// None of them answers.
pub(super) async fn ask_all(client: &Client) -> anyhow::Result<ClusterReport> {
    let first = client.discover().await?;
    let mut targets: Vec<(String, u64, String)> = Vec::new();
    for member in &first.members {
        let address = member.addresses.as_ref().map(|a| a.client.clone()).unwrap_or_default();
        targets.push((member.name.clone(), member.id, address));
    }
    if !first.members.iter().any(|member| member.id == first.node_id) {
        let address = client.addresses().first().cloned().unwrap_or_default();
        targets.push((first.name.clone(), first.node_id, address));
    }
    let answers = join_all(targets.iter().map(async |(_, _, address)| match address.is_empty() {
        true => Err("has told no client address yet".to_owned()),
        false => client.status_of(address).await.map_err(|error| error.brief()),
    }))
    .await;
    let mut lines = Vec::new();
    let mut statuses = Vec::new();
    for ((name, id, address), answer) in targets.into_iter().zip(answers) {
        match answer {
            Ok(status) => {
                lines.push(NodeLine::of(&status, address));
                statuses.push(status);
            }
            Err(error) => lines.push(NodeLine::unreachable(name, id, address, error)),
        }
    }
    if statuses.is_empty() {
        statuses.push(first);
    }
    Ok(judge(&statuses, lines))
}

fn judge(statuses: &[NodeStatus], mut nodes: Vec<NodeLine>) -> ClusterReport {
    let mut problems = Vec::new();
    let newest = statuses.iter().max_by_key(|status| status.term).expect("at least one answered");
    // A node that is cut off names no leader, and does not speak for the others.
    let leader = statuses
        .iter()
        .filter(|status| status.leader_id != 0)
        .max_by_key(|status| status.term)
        .and_then(|status| status.members.iter().find(|member| member.id == status.leader_id))
        .map(|member| member.name.clone());
    let furthest = statuses.iter().map(|s| s.last_log_index.max(s.applied_index)).max();
    for line in &mut nodes {
        match (&line.error, furthest) {
            (Some(error), _) => problems.push(format!("{} does not answer at {error}", line.name)),
            (None, Some(furthest)) => {
                let lag = furthest.saturating_sub(line.index);
                line.lag = Some(lag);
                if lag > LAG_WARN {
                    problems.push(format!("{} is {lag} entries behind", line.name));
                }
            }
            (None, None) => {}
        }
    }
    for status in statuses {
        for alarm in &status.alarms {
            problems.push(format!("alarm {alarm} is raised, seen by {}", status.name));
        }
        for warning in &status.warnings {
            problems.push(format!("{}: {warning}", status.name));
        }
        if status.role() == Role::Outside {
            problems.push(format!("{} belongs to no cluster", status.name));
        }
    }
    let clusters: BTreeSet<u64> = statuses.iter().map(|status| status.cluster_id).collect();
    if clusters.len() > 1 {
        problems.push("the nodes belong to different clusters".to_owned());
    }
    problems.extend(differing_digests(statuses));
    problems.dedup();
    let health = match (&leader, problems.is_empty()) {
        (None, _) => "no leader",
        (Some(_), true) => "healthy",
        (Some(_), false) => "degraded",
    };
    ClusterReport { health, cluster_id: show_id(newest.cluster_id), leader, problems, nodes }
}

/// Digests can be compared only where they were taken at the same entry.
fn differing_digests(statuses: &[NodeStatus]) -> Option<String> {
    for (place, one) in statuses.iter().enumerate() {
        for other in &statuses[place + 1..] {
            let same_place =
                one.digest_index == other.digest_index && one.cluster_id == other.cluster_id;
            if same_place && one.content_digest != other.content_digest {
                return Some(format!(
                    "{} and {} hold different data at index {}: run `quorate digest` and keep \
                     the data directories",
                    one.name, other.name, one.digest_index
                ));
            }
        }
    }
    None
}

impl NodeLine {
    fn of(status: &NodeStatus, endpoint: String) -> NodeLine {
        NodeLine {
            name: status.name.clone(),
            id: show_id(status.node_id),
            endpoint,
            role: role(status.role()).to_owned(),
            stage: stage(status.stage()),
            term: status.term,
            index: status.applied_index,
            lag: None,
            revision: status.revision,
            compacted_revision: status.compacted_revision,
            digest: full_digest(&status.content_digest),
            digest_index: status.digest_index,
            state_bytes: status.state_bytes,
            log_bytes: status.log_bytes,
            logical_bytes: status.logical_bytes,
            resident_bytes: status.resident_bytes,
            disk_free_bytes: status.disk_free_bytes,
            disk_low_bytes: status.disk_low_bytes,
            disk_ballast_bytes: status.disk_ballast_bytes,
            keys: status.keys,
            leader_since_ms: status.leader_since_ms,
            uptime_ms: status.uptime_ms,
            version: status.version.clone(),
            coordinator: status.coordinator.clone(),
            error: None,
        }
    }

    fn unreachable(name: String, id: u64, endpoint: String, error: String) -> NodeLine {
        let nothing = NodeStatus { name, node_id: id, ..NodeStatus::default() };
        let role = "unreachable".to_owned();
        NodeLine { role, error: Some(error), ..NodeLine::of(&nothing, endpoint) }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Outside => "outside",
        Role::Unspecified => "unknown",
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Recovering => "recovering",
        Stage::Keyspace => "keyspace",
        Stage::Hot => "hot",
        Stage::Unspecified => "unknown",
    }
}

fn table(report: &ClusterReport) -> String {
    let heads = [
        "node",
        "role",
        "stage",
        "term",
        "index",
        "lag",
        "revision",
        "digest",
        "size",
        "memory",
        "disk free",
        "leader since",
        "endpoint",
    ];
    let rows = report.nodes.iter().map(row).collect();
    let mut text = output::table(&heads, &[3, 4, 5, 6], rows);
    let leader = report.leader.as_deref().unwrap_or("none");
    text.push_str(&format!(
        "\n\ncluster {}  leader {leader}  {}",
        report.cluster_id,
        report.health.to_uppercase()
    ));
    let parts = report.nodes.iter().filter(|node| !node.coordinator.is_empty());
    let parts: Vec<String> =
        parts.map(|node| format!("{} {}", node.name, node.coordinator)).collect();
    if !parts.is_empty() {
        text.push_str(&format!("\ncoordinator of Milvus: {}", parts.join(", ")));
    }
    for problem in &report.problems {
        text.push_str(&format!("\n  - {problem}"));
    }
    text
}

fn row(line: &NodeLine) -> Vec<String> {
    let answered = line.error.is_none();
    let number = |value: u64| if answered { value.to_string() } else { "-".to_owned() };
    let size = |value: u64| if answered { show_size(value) } else { "-".to_owned() };
    vec![
        line.name.clone(),
        line.role.clone(),
        if answered { line.stage.to_owned() } else { "-".to_owned() },
        number(line.term),
        number(line.index),
        line.lag.map_or("-".to_owned(), |lag| lag.to_string()),
        if answered { line.revision.to_string() } else { "-".to_owned() },
        if line.digest.is_empty() { "-".to_owned() } else { line.digest[..8].to_owned() },
        size(line.state_bytes + line.log_bytes),
        size(line.resident_bytes),
        size(line.disk_free_bytes),
        since(line.leader_since_ms)
            .map_or("-".to_owned(), |span: Duration| format!("{} ago", show_span(span))),
        line.endpoint.clone(),
    ]
}
