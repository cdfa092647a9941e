//! Runs duties while this node leads.

use std::future::Future;
use std::time::Duration;

use raft::{Node, Tenure};
use tokio_util::sync::CancellationToken;

use crate::tasks;

/// One round after the other, as long as the tenure lives.
pub(super) trait Duty: Send + 'static {
    const NAME: &'static str;

    fn period(&self) -> Duration;

    /// Looks at the state and does what it asks for. Errors are of the moment: the next round
    /// looks again.
    fn round(&mut self, tenure: &Tenure) -> impl Future<Output = Result<(), DutyError>> + Send;

    /// The tenure is over.
    fn end(&mut self, _tenure: &Tenure) {}
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DutyError {
    #[error(transparent)]
    Propose(#[from] raft::ProposeError),
    #[error("refused: {0}")]
    Rejected(#[from] statemachine::Rejection),
    #[error(transparent)]
    Ask(#[from] raft::AskError),
    #[error(transparent)]
    Fault(#[from] statemachine::Fault),
    #[error("outcome of another command")]
    Outcome,
}

/// Calls `begin` at the start of every tenure of this node.
pub(super) fn spawn(node: Node, stop: CancellationToken, begin: impl Fn(Tenure) + Send + 'static) {
    let mut tenures = node.tenure();
    tasks::spawn("duty-driver", async move {
        loop {
            let tenure = tenures.borrow_and_update().clone();
            if let Some(tenure) = tenure {
                tracing::info!(term = tenure.term, "duties begin");
                begin(tenure);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // Cancel-safe: a change stays to be seen.
                changed = tenures.changed() => if changed.is_err() { return },
            }
        }
    });
}

pub(super) fn run<D: Duty>(mut duty: D, tenure: &Tenure) {
    let tenure = tenure.clone();
    tasks::spawn(D::NAME, async move {
        let mut period = tokio::time::interval(duty.period());
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = tenure.cancel.cancelled() => break,
                _ = period.tick() => {}
            }
            let round = tokio::select! {
                () = tenure.cancel.cancelled() => break,
                // Dropping it is safe: what it proposed carries the fence of this tenure.
                round = duty.round(&tenure) => round,
            };
            if let Err(error) = round {
                tracing::warn!(duty = D::NAME, %error, "duty waits for its next round");
            }
        }
        duty.end(&tenure);
    });
}
