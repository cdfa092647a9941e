//! What only the leader can say of a lease.

use std::time::Duration;

use proto::etcd;
use raft::Consistency;
use tokio::time::Instant;

use super::Leases;
use super::clock::Renewed;

/// This node does not lead, or does not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not leader")]
pub(crate) struct NotHere;

/// Says of a lease that nobody can tell yet.
pub(crate) const UNDECIDED: i64 = -1;

impl Leases {
    /// Renews leases; answers, in order, the granted time to live, 0 where the lease is gone, or
    /// [`UNDECIDED`] while it is being expired.
    pub(crate) async fn renew(&self, ids: &[i64], deadline: Instant) -> Result<Vec<i64>, NotHere> {
        let view = self.confirmed(deadline).await?;
        let now = Instant::now();
        let mut shift = self.shift.lock();
        let clock =
            &mut shift.as_mut().filter(|shift| shift.term == view.term).ok_or(NotHere)?.clock;
        let renew = |id: &i64| {
            let granted = view.state.read(|state| state.lease(*id).map(|lease| lease.ttl_s));
            match granted {
                None => {
                    clock.forget(*id);
                    0
                }
                Some(ttl_s) => match clock.renew(*id, ttl_s, now) {
                    Renewed::Yes => ttl_s,
                    Renewed::Expiring => UNDECIDED,
                },
            }
        };
        Ok(ids.iter().map(renew).collect())
    }

    /// Time left, time granted and, if asked for, keys of a lease; a time of -1 where there is
    /// none.
    pub(crate) async fn time_to_live(
        &self,
        request: &etcd::LeaseTimeToLiveRequest,
        deadline: Instant,
    ) -> Result<etcd::LeaseTimeToLiveResponse, NotHere> {
        let view = self.confirmed(deadline).await?;
        let (id, now) = (request.id, Instant::now());
        let mut response = etcd::LeaseTimeToLiveResponse { id, ttl: -1, ..Default::default() };
        let granted = view.state.read(|state| {
            if request.keys {
                let keys = state.lease(id).map(|lease| lease.keys.iter().cloned().collect());
                response.keys = keys.unwrap_or_default();
            }
            state.lease(id).map(|lease| lease.ttl_s)
        });
        let Some(granted_ttl) = granted else { return Ok(response) };
        let shift = self.shift.lock();
        let shift = shift.as_ref().filter(|shift| shift.term == view.term).ok_or(NotHere)?;
        response.granted_ttl = granted_ttl;
        response.ttl = match shift.clock.remaining(id, now) {
            Some(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            // Granted a moment ago.
            None => granted_ttl,
        };
        Ok(response)
    }

    /// A view that was taken while this node led for certain.
    ///
    /// The barrier asks the quorum after this call began, and the same leadership stands before
    /// and after it.
    async fn confirmed(&self, deadline: Instant) -> Result<Confirmed, NotHere> {
        let term = self.term().ok_or(NotHere)?;
        let state = self
            .node
            .view(Consistency::Linearizable, deadline)
            .await
            .map_err(|_no_quorum| NotHere)?;
        Ok(Confirmed { term, state })
    }

    fn term(&self) -> Option<u64> {
        self.shift.lock().as_ref().map(|shift| shift.term)
    }

    /// Up to `n_max` leases to expire; they cannot be renewed from here on.
    pub(crate) fn take_expired(&self, term: u64, n_max: usize) -> Vec<i64> {
        let mut shift = self.shift.lock();
        match shift.as_mut().filter(|shift| shift.term == term) {
            Some(shift) => shift.clock.take_expired(Instant::now(), n_max),
            None => Vec::new(),
        }
    }

    /// These leases were expired. One that has keys left is due again at once.
    pub(crate) fn forget(&self, term: u64, ids: &[i64]) {
        let mut shift = self.shift.lock();
        let Some(shift) = shift.as_mut().filter(|shift| shift.term == term) else { return };
        let now = Instant::now();
        self.node.local_view().read(|state| {
            for id in ids {
                if state.is_lease_ending(*id) {
                    shift.clock.arm(*id, 0, Duration::ZERO, now);
                } else {
                    shift.clock.forget(*id);
                }
            }
        });
    }
}

struct Confirmed {
    term: u64,
    state: raft::View,
}
