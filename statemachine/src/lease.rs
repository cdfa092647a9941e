//! Leases: time to live as granted, and the keys that hang on each.
//!
//! No clock runs here. The leader's clock decides when time is up and proposes the expiry.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::store::{Fault, StateRead};
use crate::table;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    pub ttl_s: i64,
    /// Sorted, as revocation deletes them.
    pub keys: BTreeSet<Bytes>,
}

/// Stands as the time to live of a lease that has ended while some of its keys are left.
pub(crate) const ENDED_TTL_S: i64 = 0;

impl Lease {
    /// Its keys are being deleted; for clients it is gone.
    pub fn is_ended(&self) -> bool {
        self.ttl_s == ENDED_TTL_S
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    Granted {
        id: i64,
        ttl_s: i64,
    },
    /// It is gone for clients, and keys of it are left to be deleted.
    Ended {
        id: i64,
    },
    Revoked {
        id: i64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    by_id: BTreeMap<i64, Lease>,
}

impl Leases {
    /// All leases, without the keys that hang on them.
    pub(crate) fn load(store: &dyn StateRead) -> Result<Leases, Fault> {
        let mut leases = Leases::default();
        table::lease::scan(store, &mut |id, ttl_s| leases.grant(id, ttl_s))?;
        Ok(leases)
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn grant(&mut self, id: i64, ttl_s: i64) {
        self.by_id.entry(id).or_default().ttl_s = ttl_s;
    }

    pub(crate) fn revoke(&mut self, id: i64) {
        self.by_id.remove(&id);
    }

    /// A copy of the key is kept: the given one may share the buffer of a whole log entry.
    pub(crate) fn attach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(Bytes::copy_from_slice(key));
        }
    }

    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}
