//! Random faults under a mixed load, then every checker over what was recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::etcd;

use crate::checker::{self, Verdict};
use crate::client::{Client, within};
use crate::cluster::{Cluster, ClusterOptions};
use crate::history::{Recorder, Seen};
use crate::nemesis::{self, Outcome};
use crate::numbers::grouped;
use crate::report;
use crate::workload::{self, Mix, Phase, Setting, Stage};

/// How long watchers and nodes may take to catch up after the last fault.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Violations that are printed; the rest is counted.
const SHOWN_MAX: usize = 20;

/// What to do to whom.
#[derive(Clone, Debug)]
pub struct TortureOptions {
    pub cluster: ClusterOptions,
    pub duration: Duration,
    pub seed: u64,
    pub mix: Mix,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    Green,
    /// A promise was broken.
    Violated,
    /// A planned fault did not happen or a search gave up: the run proves nothing.
    Invalid,
}

/// Runs, checks and reports. The cluster's folder is kept where the run is not green.
///
/// # Errors
/// A node exited by itself, or the cluster did not heal.
pub async fn run(options: &TortureOptions) -> Result<Ending> {
    let steps = nemesis::plan(
        options.seed,
        options.cluster.n_nodes,
        options.duration,
        options.cluster.proxied,
    );
    report::progress(format!(
        "torture of {} for about {} s, seed {}: {} planned faults",
        options.cluster.kind.label(),
        options.duration.as_secs(),
        options.seed,
        steps.len()
    ));
    let mut cluster = Cluster::start(&options.cluster).await?;
    let result = torture(&mut cluster, options, &steps).await;
    if !matches!(result, Ok(Ending::Green)) {
        let logs = cluster.log_tails();
        let folder = cluster.keep_folder();
        report::progress(format!("logs and data stay in {}\n{logs}", folder.display()));
    }
    result
}

async fn torture(
    cluster: &mut Cluster,
    options: &TortureOptions,
    steps: &[nemesis::Step],
) -> Result<Ending> {
    let recorder = Arc::new(Recorder::default());
    let (stage, phase) = Phase::new();
    let setting = Setting { recorder: Arc::clone(&recorder), nodes: cluster.clients(), phase };
    let mut clients = workload::start(&setting, options.mix, options.seed)?;
    let mut outcome = Outcome::default();
    let deadline = Instant::now() + options.duration * 2 + Duration::from_secs(60);
    nemesis::carry_out(cluster, steps, deadline, &mut outcome).await?;
    // Some quiet load at the end: what the faults left behind must still work.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.send_replace(Stage::Draining);
    while clients.workers.join_next().await.transpose().context("a client panicked")?.is_some() {}
    cluster.check_alive()?;
    let (final_state, final_revision) = settle(cluster, &recorder).await?;
    stage.send_replace(Stage::Until(final_revision));
    let joined = tokio::time::timeout(CATCH_UP, async {
        while clients.followers.join_next().await.transpose()?.is_some() {}
        Ok::<(), tokio::task::JoinError>(())
    });
    match joined.await {
        Ok(joined) => joined.context("a watcher panicked")?,
        Err(_elapsed) => bail!(
            "{} watchers had not shown revision {final_revision} {CATCH_UP:?} after the load",
            clients.followers.len()
        ),
    }
    let digests = digests(cluster, final_revision).await?;
    report::progress(format!(
        "{} answers; checking",
        grouped(recorder.n_answered.load(Ordering::Relaxed))
    ));
    let history = recorder.take();
    let verdict =
        tokio::task::spawn_blocking(move || checker::check(&history, &final_state, final_revision))
            .await
            .context("a checker panicked")?;
    Ok(conclude(options, &outcome, &verdict, &digests))
}

/// Waits until no lease is left, so that nothing changes by itself any more, then reads everything.
async fn settle(cluster: &mut Cluster, recorder: &Recorder) -> Result<(Vec<Seen>, i64)> {
    let deadline = Instant::now() + CATCH_UP;
    let client = cluster.nodes[0].client.clone();
    loop {
        let mut lease = client.lease();
        let leases = lease.lease_leases(etcd::LeaseLeasesRequest {});
        if within(Duration::from_secs(5), leases).await.is_ok_and(|answer| answer.leases.is_empty())
        {
            break;
        }
        if Instant::now() > deadline {
            bail!("leases that nobody prolongs are still alive {CATCH_UP:?} after the load");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (state, revision) = read_everything(&client).await?;
    if revision < recorder.revision() {
        bail!("the final read is at {revision}, but {} was acknowledged", recorder.revision());
    }
    Ok((state, revision))
}

async fn read_everything(client: &Client) -> Result<(Vec<Seen>, i64)> {
    let all = bytes::Bytes::from_static(&[0]);
    let request = etcd::RangeRequest { key: all.clone(), range_end: all, ..Default::default() };
    let answer = client.range(request, Duration::from_secs(30)).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    Ok((answer.kvs.iter().map(Seen::parse).collect(), revision))
}

/// `HashKV` of every node at one revision, as (node, hash, compacted revision).
///
/// # Errors
/// A node did not answer, or had not applied the revision in time.
pub async fn digests(cluster: &Cluster, revision: i64) -> Result<Vec<(String, u32)>> {
    let mut digests = Vec::new();
    for node in &cluster.nodes {
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let request = etcd::HashKvRequest { revision };
            let answer =
                within(Duration::from_secs(30), node.client.maintenance().hash_kv(request)).await;
            match answer {
                Ok(answer) => {
                    digests.push((node.name.clone(), answer.hash));
                    break;
                }
                Err(status) if Instant::now() > deadline => {
                    bail!("{} gave no HashKV at {revision}: {status}", node.name);
                }
                Err(_behind) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
    Ok(digests)
}

fn conclude(
    options: &TortureOptions,
    outcome: &Outcome,
    verdict: &Verdict,
    digests: &[(String, u32)],
) -> Ending {
    let mut violations: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    if digests.iter().any(|(_, hash)| *hash != digests[0].1) {
        violations.push(format!("digest: the nodes differ: {digests:08x?}"));
    }
    let invalid: Vec<String> = outcome
        .missed
        .iter()
        .cloned()
        .chain(
            (verdict.n_undecided > 0)
                .then(|| format!("the search of {} registers was given up", verdict.n_undecided)),
        )
        .collect();
    let count = |number: usize| grouped(u64::try_from(number).unwrap_or(0));
    report::line(format!(
        "torture {} seed {}: {} kills, {} freezes, {} cuts, {} transfers, {} times the whole cluster, \
         of {} planned",
        options.cluster.kind.label(),
        options.seed,
        outcome.n_kills,
        outcome.n_freezes,
        outcome.n_cuts,
        outcome.n_transfers,
        outcome.n_whole_cluster,
        outcome.n_planned
    ));
    report::line(format!(
        "  {} operations answered, {} of unknown fate ({} of their writes had happened), {} revisions",
        count(verdict.n_answered),
        count(verdict.n_unknown),
        count(verdict.n_unknown_applied),
        count(verdict.n_revisions),
    ));
    report::line(format!(
        "  {} watch events, {} leases, {} registers searched; digests {digests:08x?}",
        count(verdict.n_watch_events),
        count(verdict.n_leases_checked),
        count(verdict.n_register_keys),
    ));
    for text in violations.iter().take(SHOWN_MAX) {
        report::line(format!("  VIOLATION {text}"));
    }
    if violations.len() > SHOWN_MAX {
        report::line(format!("  … and {} more", violations.len() - SHOWN_MAX));
    }
    for text in &invalid {
        report::line(format!("  INVALID {text}"));
    }
    let ending = ending(&violations, &invalid);
    report::line(match ending {
        Ending::Green => "  green: no acknowledged write lost, every promise kept".to_owned(),
        Ending::Violated => format!("  RED: {} violations", violations.len()),
        Ending::Invalid => "  INVALID: this run proves nothing".to_owned(),
    });
    ending
}

/// A broken promise weighs more than a fault that did not happen.
fn ending(violations: &[String], invalid: &[String]) -> Ending {
    match (violations, invalid) {
        ([], []) => Ending::Green,
        ([], _) => Ending::Invalid,
        _ => Ending::Violated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_fault_makes_a_run_invalid() {
        let text = || vec!["something".to_owned()];
        assert_eq!(ending(&[], &[]), Ending::Green);
        assert_eq!(ending(&[], &text()), Ending::Invalid);
        assert_eq!(ending(&text(), &text()), Ending::Violated);
    }
}
