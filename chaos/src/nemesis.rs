//! Breaks a cluster by a plan that follows from a seed, and says which faults really happened.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::etcd;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::within;
use crate::cluster::{Cluster, members};
use crate::numbers::index;
use crate::report;

/// How long a restarted cluster may take until every node answers again.
const HEAL_PATIENCE: Duration = Duration::from_secs(60);

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// Whoever leads at that moment.
    Leader,
    Node(usize),
    /// Two nodes: no majority is left.
    AllBut(usize),
    All,
}

/// What is done to the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// SIGKILL, and a start after `down`.
    Kill { down: Duration },
    /// SIGKILL again while it is still coming up, then a start.
    KillTwice { between: Duration },
    /// SIGSTOP, and SIGCONT after `frozen`.
    Freeze { frozen: Duration },
    /// The node is cut off from its peers: what it sends, what is sent to it, or both.
    Cut { sides: Sides, length: Duration },
    /// The others are cut from each other; each of them still reaches the node that is hit.
    Bridge { length: Duration },
    /// What the node sends and what is sent to it takes longer.
    Slow { delay: Duration, length: Duration },
    /// `MoveLeader` to another node. No fault, but the load must not notice.
    Transfer,
    /// The node loses its data and is put in its own place by `member replace`.
    Replace,
    /// The node is removed, loses its data, and comes back by `member add` and `member promote`.
    Rejoin,
}

/// Which direction a cut holds back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sides {
    Both,
    Inbound,
    Outbound,
}

/// One planned fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// Quiet time before it.
    pub pause: Duration,
    pub target: Target,
    pub fault: Fault,
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    pub n_planned: usize,
    pub n_kills: usize,
    pub n_freezes: usize,
    pub n_transfers: usize,
    pub n_cuts: usize,
    pub n_bridges: usize,
    pub n_slow_links: usize,
    pub n_member_changes: usize,
    pub n_whole_cluster: usize,
    /// Planned faults that did not happen, each with its reason. Not empty: the run proves nothing.
    pub missed: Vec<String>,
}

/// Which kinds of faults a plan may have beside those of processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinds {
    /// Those of the network: peers reach each other through proxies.
    pub network: bool,
    /// Changes of membership, by the commands of `quorate`.
    pub members: bool,
}

/// One fault in so many is a change of membership.
const MEMBER_CHANGE_EVERY: u32 = 5;

/// The faults of a run of about `total`. The same seed gives the same plan.
#[must_use]
pub fn plan(seed: u64, n_nodes: usize, total: Duration, kinds: Kinds) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let mut spent = Duration::ZERO;
    // Due at every so many, so that a short run has some, but not before logs have been purged.
    let mut since_change = random.random_range(0..MEMBER_CHANGE_EVERY - 1);
    loop {
        since_change += 1;
        let due = since_change >= MEMBER_CHANGE_EVERY;
        let step = if kinds.members && due {
            since_change = 0;
            member_change(&mut random, n_nodes)
        } else if kinds.network && random.random_ratio(1, 2) {
            of_network(&mut random, n_nodes)
        } else {
            step(&mut random, n_nodes)
        };
        // Healing and elections come on top, so a run takes at least as long as it was told to.
        spent += step.pause + step.length();
        if spent > total {
            return steps;
        }
        steps.push(step);
    }
}

fn member_change(random: &mut StdRng, n_nodes: usize) -> Step {
    let target = match random.random_range(0..3) {
        0 => Target::Leader,
        _ => Target::Node(index(random.random(), n_nodes)),
    };
    let fault = if random.random_ratio(1, 2) { Fault::Replace } else { Fault::Rejoin };
    Step { pause: Duration::from_millis(random.random_range(500..3000)), target, fault }
}

fn step(random: &mut StdRng, n_nodes: usize) -> Step {
    let mut millis = |low: u64, high: u64| Duration::from_millis(random.random_range(low..high));
    let pause = millis(500, 4000);
    let (short, long) = (millis(0, 300), millis(300, 4000));
    let node = index(random.random(), n_nodes);
    let target = match random.random_range(0..10) {
        0..4 => Target::Leader,
        4..7 => Target::Node(node),
        7..8 => Target::AllBut(node),
        _ => Target::All,
    };
    let fault = match random.random_range(0..12) {
        0..3 => Fault::Kill { down: short },
        3..6 => Fault::Kill { down: long },
        6..8 => Fault::KillTwice { between: long / 4 },
        8..11 => Fault::Freeze { frozen: long },
        _ => Fault::Transfer,
    };
    let target = if fault == Fault::Transfer { Target::Leader } else { target };
    Step { pause, target, fault }
}

fn of_network(random: &mut StdRng, n_nodes: usize) -> Step {
    let target = match random.random_range(0..2) {
        0 => Target::Leader,
        _ => Target::Node(index(random.random(), n_nodes)),
    };
    let length = Duration::from_millis(random.random_range(300..6000));
    let pause = Duration::from_millis(random.random_range(500..3000));
    let fault = match random.random_range(0..8) {
        0 | 1 => Fault::Cut { sides: Sides::Both, length },
        2 | 3 => Fault::Cut { sides: Sides::Inbound, length },
        4 | 5 => Fault::Cut { sides: Sides::Outbound, length },
        6 => Fault::Bridge { length },
        _ => Fault::Slow { delay: Duration::from_millis(random.random_range(5..100)), length },
    };
    Step { pause, target, fault }
}

impl Step {
    fn length(self) -> Duration {
        match self.fault {
            Fault::Kill { down: length }
            | Fault::KillTwice { between: length }
            | Fault::Freeze { frozen: length }
            | Fault::Cut { length, .. }
            | Fault::Bridge { length }
            | Fault::Slow { length, .. } => length,
            Fault::Transfer => Duration::ZERO,
            // About as long as it takes.
            Fault::Replace | Fault::Rejoin => Duration::from_secs(3),
        }
    }
}

/// Carries a plan out. Returns early with an error where a node exits by itself.
///
/// # Errors
/// A node exited by itself or could not be started: that is a finding, not a missed fault.
pub async fn carry_out(
    cluster: &mut Cluster,
    steps: &[Step],
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<()> {
    outcome.n_planned = steps.len();
    for (number, step) in steps.iter().enumerate() {
        if Instant::now() > deadline {
            outcome.missed.push(format!("step {} of {}: out of time", number + 1, steps.len()));
            continue;
        }
        tokio::time::sleep(step.pause).await;
        let Some(hit) = resolve(cluster, step.target).await else {
            outcome.missed.push(format!("step {}: no leader to hit", number + 1));
            continue;
        };
        report::progress(format!(
            "fault {}/{}: {:?} on {}",
            number + 1,
            steps.len(),
            step.fault,
            hit.iter().map(|at| cluster.nodes[*at].name.as_str()).collect::<Vec<_>>().join(", ")
        ));
        cluster.check_alive()?;
        if hit.len() == cluster.nodes.len() {
            outcome.n_whole_cluster += 1;
        }
        strike(cluster, &hit, step.fault, outcome).await.with_context(|| {
            format!("fault {} ({:?} on {:?})", number + 1, step.fault, step.target)
        })?;
    }
    cluster.start_all()?;
    cluster.wait_ready(HEAL_PATIENCE).await.context("after the last fault")
}

async fn resolve(cluster: &mut Cluster, target: Target) -> Option<Vec<usize>> {
    let all = 0..cluster.nodes.len();
    match target {
        Target::Leader => Some(vec![cluster.wait_leader(Duration::from_secs(20)).await.ok()?]),
        Target::Node(at) => Some(vec![at]),
        Target::AllBut(spared) => Some(all.filter(|at| *at != spared).collect()),
        Target::All => Some(all.collect()),
    }
}

async fn strike(
    cluster: &mut Cluster,
    hit: &[usize],
    fault: Fault,
    outcome: &mut Outcome,
) -> Result<()> {
    match fault {
        Fault::Kill { down } => {
            kill(cluster, hit, outcome)?;
            tokio::time::sleep(down).await;
            start(cluster, hit)
        }
        Fault::KillTwice { between } => {
            kill(cluster, hit, outcome)?;
            start(cluster, hit)?;
            tokio::time::sleep(between).await;
            kill(cluster, hit, outcome)?;
            start(cluster, hit)
        }
        Fault::Freeze { frozen } => {
            for at in hit {
                cluster.nodes[*at].process.stop()?;
                outcome.n_freezes += 1;
            }
            tokio::time::sleep(frozen).await;
            for at in hit {
                cluster.nodes[*at].process.resume()?;
            }
            Ok(())
        }
        Fault::Cut { sides, length } => {
            let network = cluster.network.as_ref().context("peers without proxies")?;
            if matches!(sides, Sides::Both | Sides::Inbound) {
                hit.iter().for_each(|at| network.cut_inbound(*at));
            }
            if matches!(sides, Sides::Both | Sides::Outbound) {
                hit.iter().for_each(|at| network.cut_outbound(*at));
            }
            tokio::time::sleep(length).await;
            network.heal();
            outcome.n_cuts += 1;
            Ok(())
        }
        Fault::Bridge { length } => {
            cluster.network.as_ref().context("peers without proxies")?.cut_all_but_bridge(hit[0]);
            tokio::time::sleep(length).await;
            cluster.network.as_ref().context("peers without proxies")?.heal();
            outcome.n_bridges += 1;
            Ok(())
        }
        Fault::Slow { delay, length } => {
            let network = cluster.network.as_ref().context("peers without proxies")?;
            network.slow_down(hit[0], delay);
            tokio::time::sleep(length).await;
            network.heal();
            outcome.n_slow_links += 1;
            Ok(())
        }
        Fault::Replace => {
            let binary = cluster.kind.binary().to_owned();
            members::wipe(cluster, hit[0])?;
            members::replace(cluster, &binary, hit[0]).await?;
            members::caught_up(cluster, hit[0]).await?;
            outcome.n_member_changes += 1;
            Ok(())
        }
        Fault::Rejoin => {
            let binary = cluster.kind.binary().to_owned();
            members::rejoin(cluster, &binary, hit[0]).await?;
            members::caught_up(cluster, hit[0]).await?;
            outcome.n_member_changes += 1;
            Ok(())
        }
        Fault::Transfer => {
            match transfer(cluster, hit[0]).await {
                Ok(()) => outcome.n_transfers += 1,
                Err(error) => outcome.missed.push(format!("a transfer: {error:#}")),
            }
            Ok(())
        }
    }
}

/// A follower that has just come back may be too far behind to be handed the lead, so the others
/// are tried in turn until one takes it.
async fn transfer(cluster: &mut Cluster, leader: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut turn = leader;
    loop {
        turn = (turn + 1) % cluster.nodes.len();
        if turn == leader {
            continue;
        }
        let leading = cluster.wait_leader(Duration::from_secs(20)).await?;
        if leading != leader {
            return Ok(());
        }
        let patience = Duration::from_secs(5);
        let heir = cluster.nodes[turn].client.status(patience).await;
        let target_id = heir.ok().and_then(|it| it.header).map_or(0, |header| header.member_id);
        let request = etcd::MoveLeaderRequest { target_id };
        let mut client = cluster.nodes[leader].client.maintenance();
        match within(patience, client.move_leader(request)).await {
            Ok(_moved) => return Ok(()),
            Err(status) if Instant::now() > deadline => bail!("refused for 20 s: {status}"),
            Err(_not_yet) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// All signals first, so that "all at once" is within microseconds.
fn kill(cluster: &mut Cluster, hit: &[usize], outcome: &mut Outcome) -> Result<()> {
    for at in hit {
        cluster.nodes[*at].process.send_kill()?;
    }
    for at in hit {
        cluster.nodes[*at].process.reap()?;
        outcome.n_kills += 1;
    }
    Ok(())
}

fn start(cluster: &mut Cluster, hit: &[usize]) -> Result<()> {
    hit.iter().try_for_each(|at| cluster.nodes[*at].process.start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_its_plan() {
        let minute = Duration::from_secs(60);
        let kinds = Kinds { network: true, members: true };
        let processes = Kinds::default();
        assert_eq!(plan(7, 3, minute, kinds), plan(7, 3, minute, kinds));
        assert_ne!(plan(7, 3, minute, processes), plan(8, 3, minute, processes));
        assert!(plan(7, 3, minute, processes).len() > 8);
        let is_cut = |step: &Step| matches!(step.fault, Fault::Cut { .. });
        let changes = |step: &Step| matches!(step.fault, Fault::Replace | Fault::Rejoin);
        assert!(plan(7, 3, minute, kinds).iter().any(is_cut));
        assert!(!plan(7, 3, minute, processes).iter().any(|it| is_cut(it) || changes(it)));
        for seed in 0..100 {
            assert!(plan(seed, 3, minute, kinds).iter().any(changes), "seed {seed}");
        }
    }
}
