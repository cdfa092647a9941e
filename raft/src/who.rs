//! Who this node is to others, and whether a caller means it and is who it claims to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use statemachine::versions::PEER;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::identity::StoredIdentity;
use crate::peers::{
    CLUSTER_KEY, FROM_KEY, NONCE_KEY, TO_KEY, TO_NONCE_KEY, WIRE_KEY, WIRE_OLDEST_KEY, number,
    wire_range,
};

/// A call for another node that reached this one: that node had this address before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sought {
    pub(crate) cluster: u64,
    pub(crate) by: u64,
    pub(crate) node: u64,
}

/// Who this node is to others. The cluster is set once, when the node gets one.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) node: u64,
    /// Of this directory where it was restored; zero else.
    pub(crate) nonce: u64,
    cluster: AtomicU64,
    /// The directories that a restored cluster was founded with.
    roster: Mutex<BTreeMap<u64, u64>>,
    sought: Mutex<Option<Sought>>,
}

impl Identity {
    pub(crate) fn new(stored: &StoredIdentity) -> Arc<Identity> {
        Arc::new(Identity {
            node: stored.node,
            nonce: stored.nonce,
            cluster: AtomicU64::new(stored.cluster),
            roster: Mutex::new(stored.roster.clone()),
            sought: Mutex::default(),
        })
    }

    /// Zero while the node has none.
    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    pub(crate) fn set_cluster(&self, cluster: u64) {
        self.cluster.store(cluster, Ordering::Release);
    }

    pub(crate) fn roster(&self) -> BTreeMap<u64, u64> {
        self.roster.lock().clone()
    }

    pub(crate) fn set_roster(&self, roster: BTreeMap<u64, u64>) {
        *self.roster.lock() = roster;
    }

    /// Of the directory of `node`; zero where it was not restored, or is not known yet.
    pub(crate) fn nonce_of(&self, node: u64) -> u64 {
        self.roster.lock().get(&node).copied().unwrap_or_default()
    }

    /// The last call for another node, while this one had no cluster.
    pub(crate) fn sought(&self) -> Option<Sought> {
        *self.sought.lock()
    }

    /// Who calls, if the caller means this node in this cluster.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` that names both sides.
    pub(crate) fn check(&self, metadata: &MetadataMap) -> Result<u64, Status> {
        let cluster = number(metadata, CLUSTER_KEY, 16)?;
        let from = number(metadata, FROM_KEY, 16)?;
        let to = number(metadata, TO_KEY, 16)?;
        let newest = number(metadata, WIRE_KEY, 10)?;
        let wire = wire_range(number(metadata, WIRE_OLDEST_KEY, 10).unwrap_or(newest), newest);
        let own = self.cluster();
        if PEER.shared_with(wire).is_none() {
            return Err(Status::failed_precondition(format!(
                "node {from:016x} speaks {wire} of the peer protocol, node {:016x} {PEER}: run \
                 releases on both that are next to each other",
                self.node
            )));
        }
        if cluster != own {
            if own == 0 && to != self.node {
                *self.sought.lock() = Some(Sought { cluster, by: from, node: to });
            }
            let own = match own {
                0 => "no cluster".to_owned(),
                own => format!("cluster {own:016x}"),
            };
            return Err(Status::failed_precondition(format!(
                "node {from:016x} belongs to cluster {cluster:016x}, node {:016x} to {own}",
                self.node
            )));
        }
        if to != self.node {
            return Err(Status::failed_precondition(format!(
                "node {from:016x} of cluster {cluster:016x} looks for node {to:016x} here, this \
                 is node {:016x}",
                self.node
            )));
        }
        self.check_nonces(from, metadata)?;
        Ok(from)
    }

    /// Both directories must be those that a restored cluster was founded with.
    fn check_nonces(&self, from: u64, metadata: &MetadataMap) -> Result<(), Status> {
        let given = |key| match metadata.contains_key(key) {
            true => number(metadata, key, 16),
            false => Ok(0),
        };
        let known = self.nonce_of(from);
        if known != 0 && given(NONCE_KEY)? != known {
            return Err(again_restored(from));
        }
        let meant = given(TO_NONCE_KEY)?;
        if meant != 0 && meant != self.nonce {
            return Err(again_restored(self.node));
        }
        Ok(())
    }
}

fn again_restored(node: u64) -> Status {
    Status::failed_precondition(format!(
        "the data directory of node {node:016x} is not the one that its cluster was founded with: \
         it was restored again and lacks what the first one acknowledged; wipe it and run \
         `quorate member replace {node:016x} --with HOST:PEERPORT`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: u64, nonce: u64, roster: &[(u64, u64)]) -> Arc<Identity> {
        Identity::new(&StoredIdentity {
            node,
            cluster: 7,
            nonce,
            roster: roster.iter().copied().collect(),
            ..StoredIdentity::draw("n1")
        })
    }

    fn call(from: u64, to: u64, nonces: &[(&'static str, u64)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert(CLUSTER_KEY, "7".parse().unwrap());
        metadata.insert(FROM_KEY, format!("{from:x}").parse().unwrap());
        metadata.insert(TO_KEY, format!("{to:x}").parse().unwrap());
        metadata.insert(WIRE_KEY, PEER.newest.to_string().parse().unwrap());
        for (key, nonce) in nonces {
            metadata.insert(*key, format!("{nonce:x}").parse().unwrap());
        }
        metadata
    }

    #[test]
    fn a_second_restored_directory_under_a_known_id_is_refused_on_both_sides() {
        let identity = identity(1, 11, &[(1, 11), (2, 22)]);
        let good = [(NONCE_KEY, 22), (TO_NONCE_KEY, 11)];
        assert_eq!(identity.check(&call(2, 1, &good)).unwrap(), 2);
        for bad in [[(NONCE_KEY, 23), (TO_NONCE_KEY, 11)], [(NONCE_KEY, 22), (TO_NONCE_KEY, 12)]] {
            let refused = identity.check(&call(2, 1, &bad)).unwrap_err();
            assert!(refused.message().contains("quorate member replace"), "{refused}");
        }
        assert!(identity.check(&call(2, 1, &[])).is_err(), "a caller without a nonce is another");
        assert_eq!(identity.check(&call(3, 1, &[])).unwrap(), 3, "it joined later");
    }
}
