//! Hybrid timestamps from RootCoord: fresh ones for events, and an estimate for bounds.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use statemachine::view::ServerId;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::clients::{CallError, Clients};
use crate::tasks;

/// An estimate rests on a timestamp no older than this.
const AGE_MAX: Duration = Duration::from_millis(200);
/// Older than this, and the next one is asked for in the background.
const AGE_STALE: Duration = Duration::from_millis(100);
/// Callers that wait for the next timestamp.
const WAITING_MAX: usize = 16 * 1024;
/// A RootCoord that refuses is not asked again and again at once.
const PAUSE: Duration = Duration::from_millis(20);

type Answer = Result<u64, CallError>;

/// That of one tenure.
pub(crate) struct Tso {
    clients: Clients,
    asks: mpsc::Sender<oneshot::Sender<Answer>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    last: Mutex<Option<Sample>>,
    refresh: Notify,
}

/// A timestamp, and when it was asked for: RootCoord took it later than that.
#[derive(Clone, Copy)]
struct Sample {
    ts: u64,
    asked: Instant,
    rootcoord: ServerId,
}

impl Tso {
    pub(super) fn start(clients: Clients, stop: CancellationToken) -> Tso {
        let shared = Arc::new(Shared::default());
        let (asks, inbox) = mpsc::channel(WAITING_MAX);
        let serve = serve(inbox, Arc::clone(&shared), clients.clone(), stop);
        tasks::spawn("coordinator-tso", serve);
        // Ahead of the first request of the tenure.
        shared.refresh.notify_one();
        Tso { clients, asks, shared }
    }

    /// A timestamp that RootCoord gave after this call began. Callers at the same time share one.
    ///
    /// # Errors
    /// RootCoord does not answer.
    pub(crate) async fn fresh(&self) -> Result<u64, Failure> {
        let (answer, answered) = oneshot::channel();
        let ended = |_| Failure::NotLeader;
        self.asks.send(answer).await.map_err(|_ended| Failure::NotLeader)?;
        Ok(answered.await.map_err(ended)??)
    }

    /// About what RootCoord would give now, and not below it while its clock runs like ours: the
    /// last timestamp, plus the time since it was asked for. Asks for a new one where that is older
    /// than 200 ms. For bounds only, never for events.
    ///
    /// # Errors
    /// RootCoord does not answer.
    pub(crate) async fn estimate(&self) -> Result<u64, Failure> {
        let last = *self.shared.last.lock();
        if let Some(sample) = last {
            let age = sample.asked.elapsed();
            // Another RootCoord: the old one's clock says nothing about the new one's.
            if age <= AGE_MAX && self.clients.rootcoord_id() == Some(sample.rootcoord) {
                if age > AGE_STALE {
                    self.shared.refresh.notify_one();
                }
                return Ok(later(sample.ts, u64::try_from(age.as_millis()).unwrap_or(0)));
            }
        }
        self.fresh().await
    }
}

/// Asks RootCoord once for all that wait; those who come meanwhile wait for the next.
async fn serve(
    mut inbox: mpsc::Receiver<oneshot::Sender<Answer>>,
    shared: Arc<Shared>,
    clients: Clients,
    stop: CancellationToken,
) {
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // Cancel-safe: nothing is taken where it does not complete.
            n_received = inbox.recv_many(&mut waiting, WAITING_MAX) => {
                if n_received == 0 {
                    return;
                }
            }
            // Cancel-safe: a permit that was not taken stays.
            () = shared.refresh.notified() => {}
        }
        let asked = Instant::now();
        let ask = async {
            let mut rootcoord = clients.rootcoord()?;
            let ts = rootcoord.alloc_timestamp().await?;
            Ok(Sample { ts, asked, rootcoord: rootcoord.server() })
        };
        let sample: Result<Sample, CallError> = tokio::select! {
            () = stop.cancelled() => return,
            sample = ask => sample,
        };
        if let Ok(sample) = &sample {
            *shared.last.lock() = Some(*sample);
        }
        let n_waiting = waiting.len();
        for answer in waiting.drain(..) {
            // A caller that has gone does not need it.
            let _ = answer.send(sample.clone().map(|sample| sample.ts));
        }
        if let Err(error) = sample {
            tracing::debug!(%error, n_waiting, "no timestamp from RootCoord");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// Milliseconds since the Unix epoch of a hybrid timestamp.
pub(crate) fn physical_ms(ts: u64) -> u64 {
    ts >> 18
}

/// A hybrid timestamp later by some milliseconds.
pub(crate) fn later(ts: u64, ms: u64) -> u64 {
    ts.saturating_add(ms << 18)
}
