//! The power of all nodes is cut at random moments under load: what was acknowledged must be there
//! afterwards, every node must open by itself, and all must hold the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Cluster, ClusterOptions};
use crate::disk::cut::Dropped;
use crate::disk::fault::Faults;
use crate::numbers::{grouped, index};
use crate::report;
use crate::torture::{Concluded, Load, SMALL_LOG, digests};
use crate::workload::Mix;

/// Room of each node's disk.
const DISK_BYTES: u64 = 1 << 30;
/// Cuts that one cluster lives through before its history is checked and another is founded.
const CUTS_PER_LIFE: usize = 6;
/// How long a cluster may take until every node answers again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Violations that are printed; the rest is counted.
const SHOWN_MAX: usize = 20;

/// How often, and by which plan.
#[derive(Clone, Debug)]
pub struct PowerCutOptions {
    pub cluster: ClusterOptions,
    pub n_cuts: usize,
    pub seed: u64,
    pub mix: Mix,
}

/// What the cuts did.
#[derive(Debug, Default)]
struct Tally {
    /// Of all nodes, each of which dropped something.
    n_cuts: usize,
    /// Of all nodes, that dropped nothing but the store's own notes.
    n_without_loss: usize,
    n_single: usize,
    n_elections: usize,
    n_early: usize,
    n_lives: usize,
    n_pages: u64,
    n_torn: u64,
    n_names: usize,
    /// What was dropped, by the part of the data directory.
    parts: BTreeMap<String, u64>,
    n_answered: usize,
    n_revisions: usize,
    slowest_start: Duration,
    violations: Vec<String>,
}

/// Runs all cuts; true where nothing was lost.
///
/// # Errors
/// A node did not open by itself, or the cluster did not come back.
pub async fn run(options: &PowerCutOptions) -> Result<bool> {
    report::progress(format!("{} cuts of power, seed {}", options.n_cuts, options.seed));
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut cluster = options.cluster.clone();
    cluster.forgetful_disks = Some(DISK_BYTES);
    cluster.extra_args.extend(SMALL_LOG.map(str::to_owned));
    let mut tally = Tally::default();
    while tally.n_cuts < options.n_cuts {
        ensure!(
            tally.n_without_loss <= 2 * options.n_cuts + 10,
            "{} cuts dropped nothing: the load writes nothing, or all of it is durable at once",
            tally.n_without_loss
        );
        let left = options.n_cuts - tally.n_cuts;
        let mut cluster = Cluster::prepare(&cluster)?;
        let lived = live(&mut cluster, options.mix, left, &mut random, &mut tally).await;
        if lived.is_err() || !tally.violations.is_empty() {
            let logs = cluster.log_tails();
            let folder = cluster.keep_folder();
            report::progress(format!("logs and data stay in {}\n{logs}", folder.display()));
            conclude(options, &tally);
            lived?;
            return Ok(false);
        }
        tally.n_lives += 1;
    }
    Ok(conclude(options, &tally))
}

/// One cluster from its founding to the check of its history.
async fn live(
    cluster: &mut Cluster,
    mix: Mix,
    n_left: usize,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    // How long written bytes stay unsynced, as on disks of several kinds.
    let sync_delay = Duration::from_millis([0, 2, 8][random.random_range(0..3)]);
    for disk in &all {
        let faults = Faults { sync_delay, ..Faults::default() };
        cluster.forgetful.as_mut().context("no disks")?.set_faults(*disk, &faults)?;
    }
    cluster.start_all()?;
    let load = Load::start(cluster, mix, random.random())?;
    let first = tally.n_cuts;
    let mut n_tries = 0;
    while tally.n_cuts - first < n_left.min(CUTS_PER_LIFE) && n_tries < 2 * CUTS_PER_LIFE {
        n_tries += 1;
        let single = random.random_ratio(1, 4);
        if !single && random.random_ratio(1, 4) {
            // Into the founding, or into the recovery from the cut before.
            let moment = Duration::from_millis(random.random_range(20..1500));
            tokio::time::sleep(moment).await;
            tally.n_early += 1;
        } else {
            healed(cluster, &load, tally).await?;
            let moment = Duration::from_millis(random.random_range(200..3000));
            tokio::time::sleep(moment).await;
        }
        let mut hit = all.clone();
        if single {
            hit = vec![index(random.random(), all.len())];
            if random.random_ratio(1, 2) {
                // Into an election: a vote that was given must still be known afterwards.
                let leader = cluster.wait_leader(PATIENCE).await?;
                hit = vec![(leader + 1) % all.len()];
                cluster.nodes[leader].process.kill()?;
                let moment = Duration::from_millis(random.random_range(200..700));
                tokio::time::sleep(moment).await;
                tally.n_elections += 1;
            }
        }
        cut(cluster, &hit, random.random(), tally)?;
    }
    healed(cluster, &load, tally).await?;
    // Some quiet load at the end: what the cuts left behind must still work.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let concluded = load.conclude(cluster).await?;
    count(&concluded, tally);
    Ok(())
}

/// Every node answers, none is behind what was acknowledged, and all hold the same.
async fn healed(cluster: &mut Cluster, load: &Load, tally: &mut Tally) -> Result<()> {
    let began = Instant::now();
    let acknowledged = load.acknowledged();
    cluster.wait_ready(PATIENCE).await.context("after a cut of power")?;
    tally.slowest_start = tally.slowest_start.max(began.elapsed());
    let answer = cluster.nodes[0].client.get("none", Duration::from_secs(10)).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    if revision < acknowledged {
        let text =
            format!("revision {acknowledged} was acknowledged, and the cluster is at {revision}");
        tally.violations.push(text);
    }
    let digests = digests(cluster, revision).await?;
    if digests.iter().any(|(_, hash)| *hash != digests[0].1) {
        tally.violations.push(format!("the nodes differ at {revision}: {digests:08x?}"));
    }
    ensure!(tally.violations.is_empty(), "{}", tally.violations.join("; "));
    Ok(())
}

/// Freezes the disks in one instant, kills the nodes, cuts, mounts again and starts the nodes.
fn cut(cluster: &mut Cluster, hit: &[usize], seed: u64, tally: &mut Tally) -> Result<()> {
    cluster.check_alive()?;
    let mut disks = cluster.forgetful.take().context("no disks")?;
    disks.freeze(hit)?;
    for at in hit {
        cluster.nodes[*at].process.send_kill()?;
    }
    // A node that waits for its disk dies when the cut ends its calls.
    let dropped = disks.cut(hit, seed)?;
    for at in hit {
        cluster.nodes[*at].process.reap()?;
    }
    disks.remount(hit)?;
    cluster.forgetful = Some(disks);
    let counts = note(cluster, hit, &dropped, tally);
    match (hit.len() == cluster.nodes.len(), counts) {
        (false, _) => tally.n_single += 1,
        (true, true) => tally.n_cuts += 1,
        (true, false) => tally.n_without_loss += 1,
    }
    cluster.start_all()
}

/// True where the cut dropped more than what the store writes about itself and never syncs.
fn note(cluster: &Cluster, hit: &[usize], dropped: &[Dropped], tally: &mut Tally) -> bool {
    let mut counts = false;
    let mut texts = Vec::new();
    for (at, dropped) in hit.iter().zip(dropped) {
        let is_note = |path: &std::path::Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("LOG"))
        };
        let (mut n_pages, mut n_torn) = (0, 0);
        for file in dropped.files.iter().filter(|file| !is_note(&file.path)) {
            counts = true;
            n_pages += file.n_pages;
            n_torn += file.n_torn;
            // `data/raftlog/000012.log` is of the part `raftlog`.
            let part = file.path.iter().nth(1).unwrap_or_default().to_string_lossy().into_owned();
            *tally.parts.entry(part).or_default() += 1;
        }
        let n_names = dropped.names.iter().filter(|path| !is_note(path)).count();
        counts |= n_names > 0;
        tally.n_pages += n_pages;
        tally.n_torn += n_torn;
        tally.n_names += n_names;
        let name = &cluster.nodes[*at].name;
        texts.push(format!("{name} {n_pages} pages, {n_torn} torn, {n_names} names"));
    }
    report::progress(format!("cut {}: dropped {}", tally.n_cuts + 1, texts.join("; ")));
    counts
}

fn count(concluded: &Concluded, tally: &mut Tally) {
    let Concluded { verdict, digests, .. } = concluded;
    tally.n_answered += verdict.n_answered;
    tally.n_revisions += verdict.n_revisions;
    tally.violations.extend(verdict.violations.iter().map(ToString::to_string));
    if verdict.n_undecided > 0 {
        tally.violations.push(format!("{} registers were not decided", verdict.n_undecided));
    }
    if digests.iter().any(|(_, hash)| *hash != digests[0].1) {
        tally.violations.push(format!("digest: the nodes differ: {digests:08x?}"));
    }
}

fn conclude(options: &PowerCutOptions, tally: &Tally) -> bool {
    let number = |n: usize| grouped(u64::try_from(n).unwrap_or(0));
    report::line(format!(
        "power cut seed {}: {} cuts of all nodes that dropped something ({} of them or of the {} \
         that did not came before every node answered), {} of one node ({} after a leader was \
         killed), {} clusters",
        options.seed,
        tally.n_cuts,
        tally.n_early,
        tally.n_without_loss,
        tally.n_single,
        tally.n_elections,
        tally.n_lives
    ));
    report::line(format!(
        "  dropped {} pages, {} torn ones, {} names; files by part: {:?}",
        grouped(tally.n_pages),
        grouped(tally.n_torn),
        number(tally.n_names),
        tally.parts
    ));
    report::line(format!(
        "  {} operations answered, {} revisions; slowest return {:.1} s",
        number(tally.n_answered),
        number(tally.n_revisions),
        tally.slowest_start.as_secs_f64()
    ));
    for text in tally.violations.iter().take(SHOWN_MAX) {
        report::line(format!("  VIOLATION {text}"));
    }
    let good = tally.violations.is_empty() && tally.n_cuts >= options.n_cuts;
    report::line(match good {
        true => "  green: no acknowledged write lost, every node came back, all agree",
        false => "  RED",
    });
    good
}
