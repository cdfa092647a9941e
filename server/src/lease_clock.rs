//! Leases: how long each has left, known to the leader alone, and who may renew.
//!
//! A renewal is acknowledged only after a round of the quorum that began after it arrived, so a
//! leader that was replaced without noticing renews nothing. From when the leader proposes to
//! expire a lease until that is applied or discarded, renewals of it wait.
//!
//! Invariant: a lease never ends before its time to live has passed since its last acknowledged
//! renewal, whatever leaders come and go.

mod clock;
mod keep_alive;
mod leader;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::{Node, Tenure};
use statemachine::LeaseChange;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use clock::Clock;

/// One per node; its clock runs while the node leads.
pub struct Leases {
    node: Node,
    /// The longest that a renewal acknowledged by an earlier leader may be ahead of a new clock.
    takeover_grace: Duration,
    shift: Mutex<Option<Shift>>,
    renewals: mpsc::Sender<keep_alive::Renewal>,
}

/// The clock of one leadership.
struct Shift {
    term: u64,
    clock: Clock,
}

impl Leases {
    /// `takeover_grace` is the longest election timeout.
    pub fn start(node: Node, takeover_grace: Duration, stop: CancellationToken) -> Arc<Leases> {
        let (renewals, inbox) = mpsc::channel(keep_alive::WAITING_MAX);
        keep_alive::spawn(node.clone(), inbox, stop);
        Arc::new(Leases { node, takeover_grace, shift: Mutex::new(None), renewals })
    }

    /// Puts every lease on a new clock.
    pub(crate) fn begin(&self, tenure: &Tenure) {
        let mut shift = self.shift.lock();
        let mut clock = Clock::new();
        self.arm_all(&mut clock, self.takeover_grace);
        *shift = Some(Shift { term: tenure.term, clock });
    }

    /// What this node has applied. Comes in order, and for every change unless `lost` is called.
    pub(crate) fn note(&self, changes: &[LeaseChange]) {
        let mut shift = self.shift.lock();
        let Some(Shift { clock, .. }) = shift.as_mut() else { return };
        let now = Instant::now();
        for change in changes {
            match change {
                // The id may have been another lease's until now.
                LeaseChange::Granted { id, ttl_s } => clock.arm(*id, *ttl_s, Duration::ZERO, now),
                // Due at once: its keys go piece by piece.
                LeaseChange::Ended { id } => clock.arm(*id, 0, Duration::ZERO, now),
                LeaseChange::Revoked { id } => clock.forget(*id),
            }
        }
    }

    /// Changes passed unseen: every lease gets its full time again.
    pub(crate) fn lost(&self) {
        let mut shift = self.shift.lock();
        let Some(Shift { clock, .. }) = shift.as_mut() else { return };
        *clock = Clock::new();
        self.arm_all(clock, Duration::ZERO);
    }

    /// Call under the lock of the shift: a change that is noted later is newer than this look.
    fn arm_all(&self, clock: &mut Clock, grace: Duration) {
        let now = Instant::now();
        self.node.local_view().read(|state| {
            for (id, lease) in state.leases() {
                clock.arm(id, lease.ttl_s, grace, now);
            }
            for id in state.ending_leases() {
                clock.arm(id, 0, Duration::ZERO, now);
            }
        });
    }

    pub(crate) fn end(&self, tenure: &Tenure) {
        self.shift.lock().take_if(|shift| shift.term == tenure.term);
    }

    /// Leases on the clock; `None` on a node that does not lead.
    pub fn n_on_clock(&self) -> Option<usize> {
        self.shift.lock().as_ref().map(|shift| shift.clock.len())
    }
}
