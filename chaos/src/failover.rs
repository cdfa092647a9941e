//! How long until another node acknowledges a write, after the leader is killed, frozen or asked to
//! hand over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use proto::etcd;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Client, within};
use crate::cluster::{Cluster, ClusterOptions};
use crate::disk::fault::Faults;
use crate::numbers::{float, max, median, millis};
use crate::report;

/// A new write to each node this often, answered or not: some servers let a write that came just
/// after the leader's death hang until its deadline.
const EVERY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(15);
/// Time for a node that came back to catch up before the next run.
const CALM: Duration = Duration::from_millis(1500);

/// Of a slow disk: what it holds, and how long each call takes.
const SLOW_DISK_BYTES: u64 = 1 << 30;
const SLOW_CALL: Duration = Duration::from_millis(500);

/// What happens to the leader.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Mode {
    /// SIGKILL.
    Kill,
    /// SIGSTOP; later SIGCONT, which must disturb nobody.
    Stop,
    /// Cut off from its peers; later healed, which must disturb nobody.
    Isolate,
    /// A follower is cut off from its peers; later healed, which must disturb nobody.
    IsolateFollower,
    /// `MoveLeader`.
    Transfer,
    /// Its disk hangs, a file system of its own that is frozen; later it answers again, which must
    /// disturb nobody. Needs root.
    HangDisk,
    /// The disk of a follower hangs; later it answers again, which must disturb nobody. Needs root.
    HangFollowerDisk,
    /// Each call to its disk takes half a second; later none does, which must disturb nobody. Needs
    /// root.
    SlowDisk,
    /// Each call to the disk of a follower takes half a second; later none does, which must disturb
    /// nobody. Needs root.
    SlowFollowerDisk,
}

impl Mode {
    fn hangs(self) -> bool {
        matches!(self, Mode::HangDisk | Mode::HangFollowerDisk)
    }

    fn slows(self) -> bool {
        matches!(self, Mode::SlowDisk | Mode::SlowFollowerDisk)
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct FailoverOptions {
    pub cluster: ClusterOptions,
    pub mode: Mode,
    pub n_runs: usize,
}

/// Gaps of all runs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FailoverReport {
    pub gaps_ms: Vec<f64>,
    pub median_ms: f64,
    pub max_ms: f64,
    pub n_acknowledged: u64,
    pub n_failed: u64,
    pub n_lost: u64,
}

/// Runs all rounds on one cluster.
///
/// # Errors
/// A node exited by itself, no other node took over, a write was lost, or a leader that woke
/// disturbed the others.
pub async fn run(options: &FailoverOptions) -> Result<FailoverReport> {
    let proxied = matches!(options.mode, Mode::Isolate | Mode::IsolateFollower);
    let own_disks = options.mode.hangs();
    let forgetful_disks = options.mode.slows().then_some(SLOW_DISK_BYTES);
    let cluster = ClusterOptions { proxied, own_disks, forgetful_disks, ..options.cluster.clone() };
    let mut cluster = Cluster::start(&cluster).await?;
    let mut gaps_ms = Vec::new();
    let (mut n_acknowledged, mut n_failed, mut n_lost) = (0, 0, 0);
    for number in 1..=options.n_runs {
        tokio::time::sleep(CALM).await;
        let round = match options.mode {
            Mode::Kill => kill_leader(&mut cluster, number).await,
            Mode::Stop | Mode::Isolate | Mode::HangDisk | Mode::SlowDisk => {
                silence_leader(&mut cluster, options.mode, number).await
            }
            Mode::IsolateFollower | Mode::HangFollowerDisk | Mode::SlowFollowerDisk => {
                silence_follower(&mut cluster, options.mode, number).await
            }
            Mode::Transfer => transfer(&mut cluster, number).await,
        }
        .with_context(|| format!("run {number}; {}", cluster.log_tails()))?;
        report::progress(format!(
            "{} {:?} {number}/{}: {:.0} ms, {} writes acknowledged, {} failed, {} lost",
            options.cluster.kind.label(),
            options.mode,
            options.n_runs,
            millis(round.gap),
            round.n_acknowledged,
            round.n_failed,
            round.n_lost
        ));
        gaps_ms.push(millis(round.gap));
        n_acknowledged += round.n_acknowledged;
        n_failed += round.n_failed;
        n_lost += round.n_lost;
    }
    let (median_ms, max_ms) = (median(&gaps_ms), max(&gaps_ms));
    Ok(FailoverReport { gaps_ms, median_ms, max_ms, n_acknowledged, n_failed, n_lost })
}

/// One round.
#[derive(Debug)]
pub struct Round {
    pub gap: Duration,
    pub n_acknowledged: u64,
    /// Writes that got an error or no answer within 8 s, those to the victim included.
    pub n_failed: u64,
    pub n_lost: u64,
}

/// SIGKILL of the leader under writes to all nodes, measured to the first write that was sent after
/// it and acknowledged; then the killed node comes back and every acknowledged write is read.
///
/// # Errors
/// As [`run`].
pub async fn kill_leader(cluster: &mut Cluster, number: usize) -> Result<Round> {
    let leader = cluster.wait_leader(PATIENCE).await?;
    let term = term_of(&cluster.nodes[leader].client).await?;
    let mut writers = Writers::start(cluster, number);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let killed = cluster.nodes[leader].process.kill()?;
    let gap = writers.first_after(killed, leader, term).await?;
    cluster.nodes[leader].process.start()?;
    cluster.wait_ready(Duration::from_secs(60)).await.context("the killed node came back")?;
    writers.conclude(cluster, gap).await
}

/// Makes a node fall silent; when.
fn silence(cluster: &mut Cluster, mode: Mode, node: usize) -> Result<Instant> {
    if mode.hangs() {
        cluster.disks[node].freeze()?;
        return Ok(Instant::now());
    }
    if mode.slows() {
        let disks = cluster.forgetful.as_mut().context("no disks")?;
        disks.set_faults(node, &Faults { delay: SLOW_CALL, ..Faults::default() })?;
        return Ok(Instant::now());
    }
    match &cluster.network {
        Some(network) if mode != Mode::Stop => {
            network.cut_inbound(node);
            network.cut_outbound(node);
            Ok(Instant::now())
        }
        Some(_) | None => cluster.nodes[node].process.stop(),
    }
}

fn wake(cluster: &mut Cluster, mode: Mode, node: usize) -> Result<()> {
    if mode.hangs() {
        return cluster.disks[node].thaw();
    }
    if mode.slows() {
        let disks = cluster.forgetful.as_mut().context("no disks")?;
        return disks.set_faults(node, &Faults::default());
    }
    match &cluster.network {
        Some(network) if mode != Mode::Stop => {
            network.heal();
            Ok(())
        }
        Some(_) | None => cluster.nodes[node].process.resume(),
    }
}

async fn silence_leader(cluster: &mut Cluster, mode: Mode, number: usize) -> Result<Round> {
    let leader = cluster.wait_leader(PATIENCE).await?;
    let old_term = term_of(&cluster.nodes[leader].client).await?;
    let mut writers = Writers::start(cluster, number);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let silenced = silence(cluster, mode, leader)?;
    let gap = writers.first_after(silenced, leader, old_term).await?;
    // Long enough that the sleeper's own timers are all overdue when it wakes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let successor = cluster.wait_leader(PATIENCE).await?;
    undisturbed_by_waking(cluster, mode, leader, successor, &mut writers).await?;
    writers.conclude(cluster, gap).await
}

/// The gap is the longest time without an acknowledgement from the others.
async fn silence_follower(cluster: &mut Cluster, mode: Mode, number: usize) -> Result<Round> {
    let leader = cluster.wait_leader(PATIENCE).await?;
    let follower = (leader + 1 + number % (cluster.nodes.len() - 1)) % cluster.nodes.len();
    let term = term_of(&cluster.nodes[leader].client).await?;
    let mut writers = Writers::start(cluster, number);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = silence(cluster, mode, follower)?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    undisturbed_by_waking(cluster, mode, follower, leader, &mut writers).await?;
    let term_after = term_of(&cluster.nodes[leader].client).await?;
    ensure!(term == term_after, "a lonely follower raised the term from {term} to {term_after}");
    let gap = writers.longest_silence_since(began);
    writers.conclude(cluster, gap).await
}

async fn undisturbed_by_waking(
    cluster: &mut Cluster,
    mode: Mode,
    sleeper: usize,
    leader: usize,
    writers: &mut Writers,
) -> Result<()> {
    let term = term_of(&cluster.nodes[leader].client).await?;
    let n_failed = writers.n_failed_elsewhere(sleeper);
    wake(cluster, mode, sleeper)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let term_after = term_of(&cluster.nodes[leader].client).await?;
    ensure!(term == term_after, "the node that woke raised the term from {term} to {term_after}");
    let n_failed_after = writers.n_failed_elsewhere(sleeper);
    ensure!(
        n_failed == n_failed_after,
        "{} writes to the other nodes failed after the sleeper woke",
        n_failed_after - n_failed
    );
    Ok(())
}

async fn term_of(client: &Client) -> Result<u64> {
    Ok(client.status(PATIENCE).await?.raft_term)
}

/// The longest time without any acknowledgement around a planned hand-over.
async fn transfer(cluster: &mut Cluster, number: usize) -> Result<Round> {
    let leader = cluster.wait_leader(PATIENCE).await?;
    let heir = (leader + 1 + number % (cluster.nodes.len() - 1)) % cluster.nodes.len();
    let header = cluster.nodes[heir].client.status(PATIENCE).await?.header;
    let target_id = header.context("a status without header")?.member_id;
    let mut writers = Writers::start(cluster, number);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let request = etcd::MoveLeaderRequest { target_id };
    within(PATIENCE, cluster.nodes[leader].client.maintenance().move_leader(request))
        .await
        .context("MoveLeader")?;
    let moved = began.elapsed();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let now = cluster.wait_leader(PATIENCE).await?;
    ensure!(now == heir, "node {now} leads, not node {heir} that was named");
    let gap = writers.longest_silence_since(began);
    report::progress(format!("the call took {:.1} ms", millis(moved)));
    writers.conclude(cluster, gap).await
}

/// An acknowledged write.
#[derive(Clone, Debug)]
struct Ack {
    key: String,
    node: usize,
    term: u64,
    sent: Instant,
    at: Instant,
}

/// Writes to every node at a steady pace.
struct Writers {
    acks: mpsc::UnboundedReceiver<Ack>,
    seen: Vec<Ack>,
    failed: Vec<Arc<AtomicU64>>,
    over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    fn start(cluster: &Cluster, round: usize) -> Writers {
        let (sender, acks) = mpsc::unbounded_channel();
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let mut failed = Vec::new();
        for (node, client) in cluster.clients().into_iter().enumerate() {
            let n_failed = Arc::new(AtomicU64::new(0));
            failed.push(Arc::clone(&n_failed));
            let (sender, over) = (sender.clone(), Arc::clone(&over));
            tasks.spawn(async move {
                let mut tick = tokio::time::interval(EVERY);
                tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                let mut writes = JoinSet::new();
                for number in 0_u64.. {
                    tick.tick().await;
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    while writes.try_join_next().is_some() {}
                    let key = format!("failover/{round}/{node}/{number}");
                    writes.spawn(write(
                        client.clone(),
                        node,
                        key,
                        sender.clone(),
                        n_failed.clone(),
                    ));
                }
                while writes.join_next().await.is_some() {}
            });
        }
        Writers { acks, seen: Vec::new(), failed, over, tasks }
    }

    /// From `fault` to the first acknowledgement in a later term, by another node, of a write sent
    /// after it. (A signal takes effect a little after it was sent: the term tells the leaders apart.)
    async fn first_after(&mut self, fault: Instant, victim: usize, term: u64) -> Result<Duration> {
        let first = tokio::time::timeout(PATIENCE, async {
            while let Some(ack) = self.acks.recv().await {
                let found = ack.node != victim && ack.sent > fault && ack.term > term;
                self.seen.push(ack.clone());
                if found {
                    return Some(ack.at - fault);
                }
            }
            None
        });
        match first.await {
            Ok(Some(gap)) => Ok(gap),
            Ok(None) | Err(_) => {
                bail!("no other node acknowledged a write within {PATIENCE:?} of the fault")
            }
        }
    }

    fn longest_silence_since(&mut self, began: Instant) -> Duration {
        while let Ok(ack) = self.acks.try_recv() {
            self.seen.push(ack);
        }
        let mut at: Vec<Instant> = self.seen.iter().map(|ack| ack.at).collect();
        at.sort();
        at.windows(2)
            .filter(|pair| pair[1] > began)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(PATIENCE)
    }

    fn n_failed_elsewhere(&self, victim: usize) -> u64 {
        let others = self.failed.iter().enumerate().filter(|(node, _)| *node != victim);
        others.map(|(_, n_failed)| n_failed.load(Ordering::Relaxed)).sum()
    }

    /// Stops the writers and reads back every acknowledged write, from a follower.
    async fn conclude(mut self, cluster: &mut Cluster, gap: Duration) -> Result<Round> {
        self.over.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.acks.close();
        while let Some(ack) = self.acks.recv().await {
            self.seen.push(ack);
        }
        let leader = cluster.wait_leader(PATIENCE).await?;
        let reader = &cluster.nodes[(leader + 1) % cluster.nodes.len()].client;
        let found = keys_under(reader, "failover/").await?;
        let lost: Vec<&str> = self
            .seen
            .iter()
            .map(|ack| ack.key.as_str())
            .filter(|it| !found.contains(*it))
            .collect();
        if !lost.is_empty() {
            report::line(format!("LOST: {lost:?}"));
        }
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (n_acknowledged, n_lost) = (count(self.seen.len()), count(lost.len()));
        let n_failed = self.failed.iter().map(|it| it.load(Ordering::Relaxed)).sum();
        Ok(Round { gap, n_acknowledged, n_failed, n_lost })
    }
}

async fn write(
    client: Client,
    node: usize,
    key: String,
    acks: mpsc::UnboundedSender<Ack>,
    n_failed: Arc<AtomicU64>,
) {
    let sent = Instant::now();
    let request =
        etcd::PutRequest { key: key.clone().into(), value: "value".into(), ..Default::default() };
    match within(Duration::from_secs(8), client.kv().put(request)).await {
        Ok(answer) => {
            let term = answer.header.map_or(0, |header| header.raft_term);
            // The reader may be gone when the last answers come.
            let _ = acks.send(Ack { key, node, term, sent, at: Instant::now() });
        }
        Err(_status) => {
            n_failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All keys under a prefix, by a linearizable read.
///
/// # Errors
/// The node's own.
pub async fn keys_under(
    client: &Client,
    prefix: &str,
) -> Result<std::collections::BTreeSet<String>> {
    let request = etcd::RangeRequest {
        key: prefix.to_owned().into(),
        range_end: crate::client::prefix_end(prefix),
        keys_only: true,
        ..Default::default()
    };
    let answer = client.range(request, Duration::from_secs(30)).await?;
    Ok(answer.kvs.iter().map(|pair| String::from_utf8_lossy(&pair.key).into_owned()).collect())
}

impl FailoverReport {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} runs: median {:.0} ms, max {:.0} ms; {} writes acknowledged, {} failed, {} lost",
            self.gaps_ms.len(),
            self.median_ms,
            self.max_ms,
            crate::numbers::grouped(self.n_acknowledged),
            crate::numbers::grouped(self.n_failed),
            self.n_lost
        )
    }

    /// Median and maximum in seconds.
    #[must_use]
    pub fn seconds(&self) -> (f64, f64) {
        (self.median_ms / 1e3, self.max_ms / float(1000))
    }
}
