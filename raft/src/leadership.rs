//! Who leads, as this node knows it: the few facts that routing and fences hang on.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::types::LeaderId;

/// Changes only when one of its fields does, however many entries go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    /// The node whose leadership a quorum granted.
    pub(crate) leader: Option<u64>,
    /// This node's own leadership.
    pub(crate) mine: Option<LeaderId>,
}

/// Keeps `sender` up to date until the engine stops or `cancel` fires.
pub(crate) async fn watch_leadership(
    engine: Engine,
    sender: watch::Sender<Leadership>,
    cancel: CancellationToken,
) {
    let mut metrics = engine.server_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_watched();
            let leader_id = metrics.vote.leader_id;
            let leads = metrics.state == ServerState::Leader && metrics.vote.committed;
            Leadership {
                term: leader_id.term,
                leader: metrics.current_leader,
                mine: leads.then_some(leader_id),
            }
        };
        sender.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        tokio::select! {
            // Cancel-safe: a watch keeps its last value.
            changed = metrics.changed() => if changed.is_err() { break },
            () = cancel.cancelled() => break,
        }
    }
    sender.send_replace(Leadership::default());
}
