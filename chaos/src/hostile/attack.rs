//! The attacks, and what becomes of them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tonic::Status;

use super::{garbage, held, requests};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::numbers::{grouped, index};

/// After a call that could not be made: the attack is not on this machine.
const PAUSE: Duration = Duration::from_millis(20);

type Work = fn(Target, StdRng) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One kind of attack.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) n_workers: usize,
    pub(super) work: Work,
}

/// An attack whose function is async.
macro_rules! attack {
    ($name:literal, $n_workers:literal, $work:path) => {
        Attack {
            name: $name,
            n_workers: $n_workers,
            work: |target, rng| Box::pin($work(target, rng)),
        }
    };
}

/// All of them, at once.
pub(super) const ATTACKS: &[Attack] = &[
    attack!("bombs of nested transactions", 2, requests::bombs),
    attack!("huge ranges and deletes", 2, requests::huge),
    attack!("empty elements", 2, requests::empty_elements),
    attack!("forged session keys", 1, requests::forged_sessions),
    attack!("errors that name long keys", 1, requests::long_keys),
    attack!("hashes of everything", 1, requests::hashes),
    attack!("leases", 4, held::leases),
    attack!("watchers that never read", 1, held::watchers),
    attack!("snapshots that are never read", 1, held::snapshots),
    attack!("ranges that are never read", 1, held::unread),
    attack!("requests that never end", 1, held::unfinished),
    attack!("silent connections", 1, garbage::silent),
    attack!("garbage on every port", 2, garbage::junk),
    attack!("floods of frames", 2, garbage::floods),
    attack!("unknown methods and paths", 1, garbage::unknown),
];

/// What is attacked. Clones share it.
#[derive(Clone)]
pub(super) struct Target {
    clients: Arc<Vec<Client>>,
    /// Every port of every node.
    ports: Arc<Vec<String>>,
    over: Arc<watch::Sender<bool>>,
    tallies: Arc<BTreeMap<&'static str, Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Target {
    pub(super) fn of(cluster: &Cluster) -> Target {
        let ports = cluster.nodes.iter().flat_map(|node| {
            let ports = node.ports;
            [ports.client(), ports.peer(), ports.http(), ports.coordinator()]
        });
        Target {
            clients: Arc::new(cluster.clients()),
            ports: Arc::new(ports.collect()),
            over: Arc::new(watch::Sender::new(false)),
            tallies: Arc::new(ATTACKS.iter().map(|it| (it.name, Tally::default())).collect()),
        }
    }

    /// Ends all attacks.
    pub(super) fn end(&self) {
        self.over.send_replace(true);
    }

    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits for the end.
    pub(super) async fn wait_over(&self) {
        // The sender lives as long as this does.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// A client of one node with a connection of its own.
    pub(super) fn client(&self, rng: &mut StdRng) -> Client {
        let client = &self.clients[index(rng.random(), self.clients.len())];
        client.reconnected().expect("its endpoint was used before")
    }

    /// The address of one port of one node.
    pub(super) fn port(&self, rng: &mut StdRng) -> &str {
        &self.ports[index(rng.random(), self.ports.len())]
    }

    /// The client port of one node.
    pub(super) fn client_port(&self, rng: &mut StdRng) -> &str {
        self.clients[index(rng.random(), self.clients.len())].endpoint()
    }

    /// Notes what became of a call; waits a little where there was no answer.
    pub(super) async fn note<T>(&self, name: &'static str, outcome: Result<T, Status>) {
        let tally = &self.tallies[name];
        match outcome {
            Ok(_) => tally.answered.fetch_add(1, Ordering::Relaxed),
            Err(status) if std::error::Error::source(&status).is_none() => {
                tally.refused.fetch_add(1, Ordering::Relaxed)
            }
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                tally.broken.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    /// Notes that something was sent for which there is no call.
    pub(super) fn sent(&self, name: &'static str) {
        self.tallies[name].answered.fetch_add(1, Ordering::Relaxed);
    }

    /// One line for people.
    pub(super) fn tally(&self, name: &str) -> String {
        let tally = &self.tallies[name];
        let count = |counter: &AtomicU64| grouped(counter.load(Ordering::Relaxed));
        format!(
            "{name}: {} answered or sent, {} refused, {} broken off",
            count(&tally.answered),
            count(&tally.refused),
            count(&tally.broken)
        )
    }
}
