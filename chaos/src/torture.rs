//! Random faults under a mixed load, then every checker over what was recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::etcd;

use crate::checker::{self, Verdict};
use crate::client::{Client, within};
use crate::cluster::counters::{Counters, Sum};
use crate::cluster::{Cluster, ClusterKind, ClusterOptions};
use crate::history::{History, Recorder, Seen};
use crate::nemesis::{self, Kinds, Outcome};
use crate::numbers::grouped;
use crate::report;
use crate::workload::{self, Clients, Mix, Phase, Setting, Stage};

/// How long watchers and nodes may take to catch up after the last fault.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Violations that are printed; the rest is counted.
const SHOWN_MAX: usize = 20;
/// Snapshots are built, sent and installed and logs are purged within seconds.
pub(crate) const SMALL_LOG: [&str; 2] = ["--snapshot-log-bytes=256KiB", "--log-kept-bytes=256KiB"];
/// What a run must have seen at least once, or it proves nothing about it.
const MUST_HAPPEN: [(&str, &str); 3] = [
    ("snapshots installed", "quorate_storage_snapshot_install_seconds_count"),
    ("purges of a log", "quorate_raft_purged_index"),
    ("compactions on a node", "quorate_state_compacted_revision"),
];
const COUNTED: &[(&str, Sum)] = &[
    (MUST_HAPPEN[0].1, Sum::Counter),
    (MUST_HAPPEN[1].1, Sum::Rises),
    (MUST_HAPPEN[2].1, Sum::Rises),
];

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
    let is_ours = matches!(options.cluster.kind, ClusterKind::Quorate(_));
    let kinds = Kinds { network: options.cluster.proxied, members: is_ours };
    let steps = nemesis::plan(options.seed, options.cluster.n_nodes, options.duration, kinds);
    report::progress(format!(
        "torture of {} for about {} s, seed {}: {} planned faults",
        options.cluster.kind.label(),
        options.duration.as_secs(),
        options.seed,
        steps.len()
    ));
    let mut prepared = options.cluster.clone();
    if is_ours {
        prepared.extra_args.extend(SMALL_LOG.map(str::to_owned));
    }
    let mut cluster = Cluster::start(&prepared).await?;
    let load = Load::start(&cluster, options.mix, options.seed)?;
    let recorder = load.recorder();
    let counters = is_ours.then(|| Counters::start(&cluster, COUNTED));
    let mut outcome = Outcome::default();
    let mut result = torture(&mut cluster, load, options, &steps, &mut outcome).await;
    let ending = match &mut result {
        Ok(concluded) => {
            let happened = |counters: &Counters| {
                MUST_HAPPEN.map(|(label, metric)| (label, counters.total(metric)))
            };
            concluded.n_happened = counters.as_ref().map(happened);
            conclude(options, &outcome, concluded)
        }
        Err(_error) => Ending::Invalid,
    };
    if ending != Ending::Green {
        let logs = cluster.log_tails();
        let folder = cluster.keep_folder();
        let history = match &mut result {
            Ok(concluded) => std::mem::take(&mut concluded.history),
            Err(_error) => recorder.take(),
        };
        // What clients saw, for whoever looks for the cause.
        std::fs::write(folder.join("history.txt"), format!("{history:#?}"))?;
        report::progress(format!("history, logs and data stay in {}\n{logs}", folder.display()));
    }
    result.map(|_concluded| ending)
}

async fn torture(
    cluster: &mut Cluster,
    load: Load,
    options: &TortureOptions,
    steps: &[nemesis::Step],
    outcome: &mut Outcome,
) -> Result<Concluded> {
    let deadline = Instant::now() + options.duration * 2 + Duration::from_secs(60);
    nemesis::carry_out(cluster, steps, deadline, outcome).await?;
    // Some quiet load at the end: what the faults left behind must still work.
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.conclude(cluster).await
}

/// What a load came to.
#[derive(Debug)]
pub struct Concluded {
    pub verdict: Verdict,
    pub history: History,
    /// `HashKV` of each node at the last revision.
    pub digests: Vec<(String, u32)>,
    /// How often each of [`MUST_HAPPEN`] did.
    n_happened: Option<[(&'static str, u64); 3]>,
}

/// A mixed load whose every operation is recorded, beside whatever is done to the cluster.
#[derive(Debug)]
pub struct Load {
    recorder: Arc<Recorder>,
    stage: tokio::sync::watch::Sender<Stage>,
    clients: Clients,
}

impl Load {
    /// Starts the clients.
    ///
    /// # Errors
    /// An endpoint is malformed.
    pub fn start(cluster: &Cluster, mix: Mix, seed: u64) -> Result<Load> {
        let recorder = Arc::new(Recorder::default());
        let (stage, phase) = Phase::new();
        let setting = Setting { recorder: Arc::clone(&recorder), nodes: cluster.clients(), phase };
        let clients = workload::start(&setting, mix, seed)?;
        Ok(Load { recorder, stage, clients })
    }

    /// Where the clients record.
    #[must_use]
    pub fn recorder(&self) -> Arc<Recorder> {
        Arc::clone(&self.recorder)
    }

    /// The newest revision that a client was given.
    #[must_use]
    pub fn acknowledged(&self) -> i64 {
        self.recorder.revision()
    }

    /// Operations that were answered.
    #[must_use]
    pub fn n_answered(&self) -> u64 {
        self.recorder.n_answered.load(Ordering::Relaxed)
    }

    /// Ends the load and runs every checker.
    ///
    /// # Errors
    /// The cluster did not come to rest.
    pub async fn conclude(mut self, cluster: &mut Cluster) -> Result<Concluded> {
        self.stage.send_replace(Stage::Draining);
        let workers = &mut self.clients.workers;
        while workers.join_next().await.transpose().context("a client panicked")?.is_some() {}
        cluster.check_alive()?;
        let (final_state, final_revision) = settle(cluster, &self.recorder).await?;
        self.stage.send_replace(Stage::Until(final_revision));
        let followers = &mut self.clients.followers;
        let joined = tokio::time::timeout(CATCH_UP, async {
            while followers.join_next().await.transpose()?.is_some() {}
            Ok::<(), tokio::task::JoinError>(())
        });
        match joined.await {
            Ok(joined) => joined.context("a watcher panicked")?,
            Err(_elapsed) => bail!(
                "{} watchers had not shown revision {final_revision} {CATCH_UP:?} after the load",
                self.clients.followers.len()
            ),
        }
        let digests = digests(cluster, final_revision).await?;
        report::progress(format!("{} answers; checking", grouped(self.n_answered())));
        let history = self.recorder.take();
        let check = move || (checker::check(&history, &final_state, final_revision), history);
        let (verdict, history) =
            tokio::task::spawn_blocking(check).await.context("a checker panicked")?;
        Ok(Concluded { verdict, history, digests, n_happened: None })
    }
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

fn conclude(options: &TortureOptions, outcome: &Outcome, concluded: &Concluded) -> Ending {
    let Concluded { verdict, digests, n_happened, .. } = concluded;
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
        .chain(
            n_happened
                .iter()
                .flatten()
                .filter(|(_, n)| *n == 0)
                .map(|(what, _)| format!("no {what} in the whole run")),
        )
        .collect();
    let count = |number: usize| grouped(u64::try_from(number).unwrap_or(0));
    report::line(format!(
        "torture {} seed {}: {} kills, {} freezes, {} cuts, {} bridge cuts, {} slow links, \
         {} transfers, {} changes of membership, {} times the whole cluster, of {} planned",
        options.cluster.kind.label(),
        options.seed,
        outcome.n_kills,
        outcome.n_freezes,
        outcome.n_cuts,
        outcome.n_bridges,
        outcome.n_slow_links,
        outcome.n_transfers,
        outcome.n_member_changes,
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
    let happened: Vec<String> =
        n_happened.iter().flatten().map(|(what, n)| format!("{} {what}", grouped(*n))).collect();
    if !happened.is_empty() {
        report::line(format!("  {}", happened.join(", ")));
    }
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
