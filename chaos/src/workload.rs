//! Clients that use a cluster as applications do, and write down what they saw.

pub mod compact;
pub mod fill;
pub mod kv;
pub mod lease;
pub mod steady;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch as signal;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::history::Recorder;
use crate::numbers::index;

/// How long a client waits for an answer before it counts the fate as unknown.
const PATIENCE: Duration = Duration::from_millis(2500);

/// What tells the clients to go on or to come to an end.
#[derive(Clone, Debug)]
pub struct Phase {
    receiver: signal::Receiver<Stage>,
}

/// Where the run is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    Running,
    /// No new operations; watchers that follow everything go on.
    Draining,
    /// Watchers stop when they have shown this revision.
    Until(i64),
}

impl Phase {
    /// A phase and the handle that moves it.
    #[must_use]
    pub fn new() -> (signal::Sender<Stage>, Phase) {
        let (sender, receiver) = signal::channel(Stage::Running);
        (sender, Phase { receiver })
    }

    /// True until the run drains.
    #[must_use]
    pub fn is_running(&self) -> bool {
        *self.receiver.borrow() == Stage::Running
    }

    /// True where a watcher that has shown `revision` is done.
    #[must_use]
    pub fn is_done(&self, revision: i64) -> bool {
        matches!(*self.receiver.borrow(), Stage::Until(last) if revision >= last)
    }

    /// Waits for a change of stage.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The run is over and its handle gone: nothing will change any more.
            std::future::pending::<()>().await;
        }
    }

    /// Sleeps, but not beyond the end of the running stage.
    pub async fn pause(&mut self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.changed() => {}
        }
    }
}

/// What every client of a run shares.
#[derive(Clone, Debug)]
pub struct Setting {
    pub recorder: Arc<Recorder>,
    /// One client of each node.
    pub nodes: Vec<Client>,
    pub phase: Phase,
}

impl Setting {
    /// The same nodes over connections of their own.
    fn with_own_connections(&self) -> anyhow::Result<Setting> {
        let nodes = self.nodes.iter().map(Client::reconnected).collect::<anyhow::Result<_>>()?;
        Ok(Setting { nodes, ..self.clone() })
    }
}

/// How many clients of each sort.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub n_kv: usize,
    pub n_lease: usize,
    pub n_watch: usize,
    /// Between two operations of one client.
    pub think: Duration,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { n_kv: 9, n_lease: 3, n_watch: 4, think: Duration::from_millis(8) }
    }
}

/// The running clients of a mix.
#[derive(Debug)]
pub struct Clients {
    /// Those that end when the run drains.
    pub workers: JoinSet<()>,
    /// Those that go on to the last revision.
    pub followers: JoinSet<()>,
}

/// Starts all clients of a mix: their choices follow from the seed, their timing does not.
///
/// # Errors
/// An endpoint is malformed.
pub fn start(setting: &Setting, mix: Mix, seed: u64) -> anyhow::Result<Clients> {
    let mut clients = Clients { workers: JoinSet::new(), followers: JoinSet::new() };
    let mut stream = 0;
    let mut random = || {
        stream += 1;
        StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(stream))
    };
    for number in 0..mix.n_kv {
        let setting = setting.with_own_connections()?;
        clients.workers.spawn(kv::run(setting, number, mix.think, random()));
    }
    for _ in 0..mix.n_lease {
        clients.workers.spawn(lease::run(setting.with_own_connections()?, random()));
    }
    clients.workers.spawn(compact::run(setting.with_own_connections()?, random()));
    for number in 0..mix.n_watch {
        clients.workers.spawn(watch::hop(setting.with_own_connections()?, number, random()));
    }
    for node in 0..setting.nodes.len() {
        clients.followers.spawn(watch::follow(setting.with_own_connections()?, node));
    }
    Ok(clients)
}

/// Any of the nodes.
fn any_node(setting: &Setting, random: &mut StdRng) -> usize {
    index(random.random(), setting.nodes.len())
}
