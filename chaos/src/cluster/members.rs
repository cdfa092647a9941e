//! Members that come and go, by the commands that an operator uses.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::etcd;

use super::{Cluster, command};
use crate::client::within;
use crate::report;

/// A newcomer that is slower than this has failed.
const INSTALL_PATIENCE: Duration = Duration::from_secs(600);
/// Between two tries of a command.
const RETRY: Duration = Duration::from_millis(500);

/// Kills a node, removes its data and starts it again: it waits until it is taken in.
///
/// # Errors
/// It had exited by itself, or its data cannot be removed.
pub fn wipe(cluster: &mut Cluster, victim: usize) -> Result<()> {
    let node = &mut cluster.nodes[victim];
    node.process.kill()?;
    std::fs::remove_dir_all(&node.data_dir)
        .with_context(|| format!("wiping {}", node.data_dir.display()))?;
    node.process.start()
}

/// `quorate member replace`, asked again while the newcomer is still starting.
///
/// # Errors
/// It was refused for too long.
pub async fn replace(cluster: &Cluster, binary: &Path, victim: usize) -> Result<()> {
    let node = &cluster.nodes[victim];
    let args = ["member", "replace", &node.name, "--with", &node.peer, "--catch-up", "10m"];
    until_done(cluster, binary, victim, &args, INSTALL_PATIENCE).await
}

/// Removes a member, wipes its node, and takes that in again: as a learner, then with a vote.
///
/// # Errors
/// A command was refused for too long.
pub async fn rejoin(cluster: &mut Cluster, binary: &Path, victim: usize) -> Result<()> {
    let patience = Duration::from_secs(90);
    cluster.nodes[victim].process.kill()?;
    let name = cluster.nodes[victim].name.clone();
    until_done(cluster, binary, victim, &["member", "remove", &name], patience).await?;
    let node = &mut cluster.nodes[victim];
    std::fs::remove_dir_all(&node.data_dir)
        .with_context(|| format!("wiping {}", node.data_dir.display()))?;
    node.process.start()?;
    let peer = node.peer.clone();
    until_done(cluster, binary, victim, &["member", "add", &peer], patience).await?;
    until_done(cluster, binary, victim, &["member", "promote", &name], patience).await
}

/// Repeats a command, asked on the other nodes, until it succeeds.
async fn until_done(
    cluster: &Cluster,
    binary: &Path,
    victim: usize,
    args: &[&str],
    patience: Duration,
) -> Result<()> {
    let own = cluster.nodes[victim].ports.client();
    let others = cluster.endpoints().into_iter().filter(|endpoint| *endpoint != own);
    let endpoints = others.collect::<Vec<_>>().join(",");
    let with_endpoints = [args, &["--endpoints", &endpoints]].concat();
    let deadline = Instant::now() + patience;
    loop {
        let output = command::run(binary, &with_endpoints, patience).await?;
        // The command may have taken effect although its answer was lost.
        if output.succeeded || is_done(cluster, victim, args[1]).await {
            return Ok(());
        }
        let reason = output.stderr.lines().last().unwrap_or_default();
        report::progress(format!("`{}` is asked again: {reason}", args[..2].join(" ")));
        ensure!(Instant::now() < deadline, "{} still fails: {}", args.join(" "), output.stderr);
        tokio::time::sleep(RETRY).await;
    }
}

async fn is_done(cluster: &Cluster, victim: usize, verb: &str) -> bool {
    let node = &cluster.nodes[victim];
    let Some(members) = members(cluster, victim).await else { return false };
    let named = members.iter().find(|member| member.name == node.name);
    match verb {
        "remove" => named.is_none(),
        "add" => named.is_some_and(|member| member.is_learner),
        "promote" => named.is_some_and(|member| !member.is_learner),
        _ => false,
    }
}

/// As another node lists them.
async fn members(cluster: &Cluster, victim: usize) -> Option<Vec<etcd::Member>> {
    for (_, node) in cluster.nodes.iter().enumerate().filter(|(at, _)| *at != victim) {
        let request = etcd::MemberListRequest { linearizable: true };
        let mut client = node.client.cluster();
        if let Ok(answer) = within(Duration::from_secs(2), client.member_list(request)).await {
            return Some(answer.members);
        }
    }
    None
}

/// The newcomer answers linearizable reads, is a member under its name, and the old one is not.
///
/// # Errors
/// It did not come back, or a node exited by itself.
pub async fn caught_up(cluster: &mut Cluster, victim: usize) -> Result<()> {
    let deadline = Instant::now() + INSTALL_PATIENCE;
    loop {
        cluster.check_alive()?;
        let node = &cluster.nodes[victim];
        let answer = node.client.get("none", Duration::from_secs(2)).await;
        if answer.is_ok() && is_voter(cluster, victim).await {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{} did not come back: {answer:?}", node.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// True where the node itself lists itself with a vote, among as many members as there are nodes.
pub async fn is_voter(cluster: &Cluster, victim: usize) -> bool {
    let node = &cluster.nodes[victim];
    let request = etcd::MemberListRequest { linearizable: true };
    let Ok(answer) = node.client.cluster().member_list(request).await else {
        return false;
    };
    let members = answer.into_inner().members;
    members.len() == cluster.nodes.len()
        && members.iter().any(|member| member.name == node.name && !member.is_learner)
}
