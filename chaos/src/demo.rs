//! Three nodes, a workload, the leader killed and brought back, and a report for people.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, ClusterOptions};
use crate::failover::{Round, kill_leader};
use crate::numbers::{grouped, millis};
use crate::report;
use crate::torture::digests;

/// Leaders killed in a demo.
const N_KILLS: usize = 3;

/// Runs the demo; true where nothing was lost and all nodes agree.
///
/// # Errors
/// A node exited by itself or the cluster did not come back.
pub async fn run(options: &ClusterOptions) -> Result<bool> {
    report::progress("starting three nodes on this machine");
    let began = Instant::now();
    let mut cluster = Cluster::start(options).await?;
    let leader = cluster.wait_leader(Duration::from_secs(30)).await?;
    report::progress(format!(
        "{} leads after {:.0} ms; clients at {}; about 15 seconds to go",
        cluster.nodes[leader].name,
        millis(began.elapsed()),
        cluster.endpoints().join(", ")
    ));
    let mut rounds = Vec::new();
    for number in 1..=N_KILLS {
        let leader = cluster.wait_leader(Duration::from_secs(30)).await?;
        let name = cluster.nodes[leader].name.clone();
        let pid = cluster.nodes[leader].process.pid().unwrap_or(0);
        report::progress(format!(
            "writing to all nodes; SIGKILL to {name} (pid {pid}), which leads; it comes back after"
        ));
        let round = kill_leader(&mut cluster, number).await?;
        let successor = cluster.wait_leader(Duration::from_secs(30)).await?;
        report::progress(format!(
            "{} leads; {name} is back; {:.0} ms without a leader",
            cluster.nodes[successor].name,
            millis(round.gap)
        ));
        rounds.push((name, round));
    }
    let revision = cluster.nodes[0].client.get("demo", Duration::from_secs(10)).await?;
    let revision = revision.header.map_or(0, |header| header.revision);
    let digests = digests(&cluster, revision).await?;
    let agree = digests.iter().all(|(_, hash)| *hash == digests[0].1);
    Ok(conclude(&rounds, revision, agree))
}

fn conclude(rounds: &[(String, Round)], revision: i64, agree: bool) -> bool {
    let n_acknowledged = rounds.iter().map(|(_, round)| round.n_acknowledged).sum();
    let n_lost: u64 = rounds.iter().map(|(_, round)| round.n_lost).sum();
    report::line("");
    report::line("  killed leader   gap to the next acknowledged write");
    for (name, round) in rounds {
        report::line(format!("  {name:<15} {:>6.0} ms", millis(round.gap)));
    }
    report::line("");
    report::line(format!("  writes acknowledged      {:>8}", grouped(n_acknowledged)));
    report::line(format!("  acknowledged and lost    {n_lost:>8}"));
    let word = if agree { "yes" } else { "NO" };
    report::line(format!(
        "  nodes agree              {word:>8}  (hash of all at revision {revision})"
    ));
    n_lost == 0 && agree
}
