//! The ports of the nodes that a driver starts.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Ports below the range that Linux gives to outgoing connections (32768 and up), so that none of
/// those takes a node's port while the node is down.
const FIRST: u16 = 24_000;
const LAST: u16 = 24_990;
/// Client, peer, HTTP, the proxy before the peer port, and Milvus's coordinator.
const PER_NODE: u16 = 5;

/// The ports of a node.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    first: u16,
}

impl Ports {
    /// Serves clients.
    #[must_use]
    pub fn client(self) -> String {
        format!("127.0.0.1:{}", self.first)
    }

    /// Serves peers.
    #[must_use]
    pub fn peer(self) -> String {
        format!("127.0.0.1:{}", self.first + 1)
    }

    /// Serves health and metrics.
    #[must_use]
    pub fn http(self) -> String {
        format!("127.0.0.1:{}", self.first + 2)
    }

    /// Serves Milvus as its coordinator.
    #[must_use]
    pub fn coordinator(self) -> String {
        format!("127.0.0.1:{}", self.first + 4)
    }

    /// Where a proxy listens for peers.
    #[must_use]
    pub fn peer_proxy(self) -> String {
        format!("127.0.0.1:{}", self.first + 3)
    }
}

/// The ports of one node, kept from every other driver on this machine while this lives: a node
/// that is down must find its ports free when it comes back.
#[derive(Debug)]
pub struct Reservation {
    pub ports: Ports,
    // The system drops the lock with the file, even when this process is killed.
    _lock: Flock<File>,
}

/// Ports for every node that nobody has reserved and nobody listens on now.
///
/// # Errors
/// Fewer free ports than the nodes need, or no place for the lock files.
pub fn reserve(n_nodes: usize) -> Result<Vec<Reservation>> {
    let locks = std::env::temp_dir().join("quorate-chaos-ports");
    std::fs::create_dir_all(&locks)
        .with_context(|| format!("making the folder of the port locks {}", locks.display()))?;
    let mut reserved = Vec::new();
    let blocks = (FIRST..LAST).step_by(usize::from(PER_NODE));
    for first in blocks.filter(|first| first + PER_NODE <= LAST) {
        if reserved.len() == n_nodes {
            break;
        }
        reserved.extend(reserve_block(&locks, first)?);
    }
    if reserved.len() < n_nodes {
        bail!("fewer than {n_nodes} free blocks of {PER_NODE} ports between {FIRST} and {LAST}");
    }
    Ok(reserved)
}

fn reserve_block(locks: &Path, first: u16) -> Result<Option<Reservation>> {
    let path = locks.join(first.to_string());
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening the port lock {}", path.display()))?;
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
    let free = (first..first + PER_NODE).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    Ok(free.then_some(Reservation { ports: Ports { first }, _lock: lock }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Reservation, reserve};

    fn clients(reserved: &[Reservation]) -> BTreeSet<String> {
        reserved.iter().map(|reservation| reservation.ports.client()).collect()
    }

    #[test]
    fn ports_of_a_node_that_is_down_are_given_to_nobody_else() {
        let ours = reserve(3).expect("ports are free");
        let others = reserve(3).expect("ports are free");
        assert_eq!(clients(&ours).len(), 3);
        assert!(clients(&ours).is_disjoint(&clients(&others)));
    }
}
