//! The span in which this node leads and may act as the leader.

use openraft::async_runtime::watch::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::leadership::Leadership;
use crate::types::LeaderId;

/// Proof that this node has applied an entry of its own leadership: its state holds all that
/// earlier leaders committed. Cancelled as soon as this node hears of any other vote.
#[derive(Clone, Debug)]
pub struct Tenure {
    pub term: u64,
    pub node: u64,
    pub cancel: CancellationToken,
}

impl Tenure {
    pub(crate) fn leader_id(&self) -> LeaderId {
        LeaderId { term: self.term, node_id: self.node }
    }
}

pub(crate) async fn watch_tenure(
    engine: Engine,
    mut leadership: watch::Receiver<Leadership>,
    sender: watch::Sender<Option<Tenure>>,
    cancel: CancellationToken,
) {
    loop {
        let mine = leadership.borrow_and_update().mine;
        if let Some(leader_id) = mine {
            tokio::select! {
                // Cancel-safe: both only watch.
                applied = own_entry_applied(&engine, leader_id) => {
                    if applied.is_err() {
                        break;
                    }
                    serve_tenure(leader_id, &mut leadership, &sender, &cancel).await;
                }
                changed = leadership.changed() => if changed.is_err() { break },
                () = cancel.cancelled() => break,
            }
        } else {
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { break },
                () = cancel.cancelled() => break,
            }
        }
        if cancel.is_cancelled() {
            break;
        }
    }
}

async fn own_entry_applied(engine: &Engine, leader_id: LeaderId) -> Result<(), RecvError> {
    let own = move |leader: &LeaderId| leader.term == leader_id.term && *leader == leader_id;
    engine
        .watch_apply_progress()
        .wait_until(move |applied| {
            applied.as_ref().is_some_and(|log_id| own(log_id.committed_leader_id()))
        })
        .await?;
    Ok(())
}

/// Holds the tenure until the leadership changes.
async fn serve_tenure(
    leader_id: LeaderId,
    leadership: &mut watch::Receiver<Leadership>,
    sender: &watch::Sender<Option<Tenure>>,
    cancel: &CancellationToken,
) {
    let tenure =
        Tenure { term: leader_id.term, node: leader_id.node_id, cancel: CancellationToken::new() };
    tracing::info!(term = tenure.term, "tenure began");
    sender.send_replace(Some(tenure.clone()));
    tokio::select! {
        _ = leadership.wait_for(|now| now.mine != Some(leader_id)) => {}
        () = cancel.cancelled() => {}
    }
    tenure.cancel.cancel();
    sender.send_replace(None);
    tracing::info!(term = tenure.term, "tenure ended");
}
