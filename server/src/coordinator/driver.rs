//! Takes over when this node begins to lead, and lets go when it is deposed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use raft::Tenure;
use statemachine::view::Area;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ids::Ids;
use super::observed::Observed;
use super::tso::Tso;
use super::wakes::Wakes;
use super::{Coordinator, Failure, Lead, duty, presence};
use crate::tasks;

/// Pause after something went wrong in a take-over.
const PAUSE: Duration = Duration::from_millis(50);

/// Work of the coordinator that looks, decides and acts, again and again. A round sees the state as
/// it is: nothing is handed to it, so a new leader needs nothing from the old one.
pub(crate) trait Duty: Send + 'static {
    const NAME: &'static str;
    /// A change of these wakes it.
    const AREAS: &'static [Area];

    /// It looks at least this often.
    fn period(&self) -> Duration;

    /// What else wakes it: facts that are in no record.
    fn also_woken_by(_lead: &Lead) -> Option<Arc<Notify>> {
        None
    }

    /// Errors are of the moment: the next round looks again.
    fn round(&mut self, lead: &Arc<Lead>) -> impl Future<Output = Result<(), Failure>> + Send;
}

pub(super) fn spawn(coordinator: Arc<Coordinator>, stop: CancellationToken) {
    let mut tenures = coordinator.node.tenure();
    tasks::spawn("coordinator", async move {
        loop {
            let tenure = tenures.borrow_and_update().clone();
            if let Some(tenure) = tenure {
                tokio::select! {
                    () = reign(&coordinator, &tenure) => {}
                    () = tenure.cancel.cancelled() => {}
                    () = stop.cancelled() => {}
                }
                coordinator.let_go();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // Cancel-safe: a change stays to be seen.
                changed = tenures.changed() => if changed.is_err() { return },
            }
        }
    });
}

/// Serves one tenure, as long as it lives and the role is on.
async fn reign(coordinator: &Arc<Coordinator>, tenure: &Tenure) {
    loop {
        let span = Span::within(tenure);
        let lead = prepare(coordinator, &span.tenure);
        if let Err(error) = presence::wait_for_role(&lead).await {
            tracing::warn!(%error, "the coordinator's role waits");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        coordinator.lead.send_replace(Some(Arc::clone(&lead)));
        coordinator.counts.took_over();
        tracing::info!(server = lead.server.0, term = tenure.term, "this node is the coordinator");
        duty::start(&lead);
        // Last: whoever finds the session must be served.
        presence::hold_sessions(&lead).await;
        tracing::warn!("the coordinator's role was switched off");
        coordinator.let_go();
    }
}

/// Starts what a tenure needs in the background; nothing here waits for anybody.
fn prepare(coordinator: &Arc<Coordinator>, tenure: &Tenure) -> Arc<Lead> {
    let server = presence::server_id(tenure);
    let wakes = Arc::new(Wakes::default());
    let follow = Arc::clone(&wakes).follow(coordinator.node.clone(), tenure.cancel.clone());
    tasks::spawn("coordinator-wakes", follow);
    coordinator.clients.call_as(server);
    Arc::new(Lead {
        coordinator: Arc::clone(coordinator),
        tenure: tenure.clone(),
        server,
        ids: Ids::start(coordinator.clients.clone(), tenure.cancel.clone()),
        tso: Tso::start(coordinator.clients.clone(), tenure.cancel.clone()),
        observed: Observed::default(),
        wakes,
        unnamed: Mutex::default(),
        closing: AtomicBool::new(false),
    })
}

/// The part of a tenure in which the role is on; what began in it ends when this is dropped.
struct Span {
    tenure: Tenure,
}

impl Span {
    fn within(tenure: &Tenure) -> Span {
        Span { tenure: Tenure { cancel: tenure.cancel.child_token(), ..tenure.clone() } }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.tenure.cancel.cancel();
    }
}

/// Runs a duty for as long as the tenure lives.
pub(crate) fn run<D: Duty>(mut duty: D, lead: &Arc<Lead>) {
    let lead = Arc::clone(lead);
    let woken = lead.wakes.on(D::AREAS);
    // Nobody notifies the stand-in.
    let also_woken = D::also_woken_by(&lead).unwrap_or_default();
    let cancel = lead.tenure.cancel.clone();
    tasks::spawn(D::NAME, async move {
        loop {
            let round = tokio::select! {
                () = cancel.cancelled() => return,
                // Dropping it is safe: what it proposed carries the fence of this tenure.
                round = duty.round(&lead) => round,
            };
            if let Err(error) = round {
                tracing::warn!(duty = D::NAME, %error, "duty waits for its next round");
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = woken.notified() => {}
                () = also_woken.notified() => {}
                () = tokio::time::sleep(duty.period()) => {}
            }
        }
    });
}
