//! Wakes duties when what they look at changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use raft::{AppliedEvent, Node, RecvError};
use statemachine::view::Area;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Who is woken by a change of which view.
#[derive(Default)]
pub(crate) struct Wakes {
    sleepers: Mutex<BTreeMap<Area, Vec<Arc<Notify>>>>,
    settings: Mutex<Vec<Arc<Notify>>>,
}

impl Wakes {
    /// One permit at most waits in it: whoever is woken looks at everything.
    pub(crate) fn on(&self, areas: &[Area]) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        let mut sleepers = self.sleepers.lock();
        for area in areas {
            sleepers.entry(*area).or_default().push(Arc::clone(&notify));
        }
        notify
    }

    /// Woken by a change of the replicated settings.
    pub(crate) fn on_settings(&self) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.settings.lock().push(Arc::clone(&notify));
        notify
    }

    fn wake_for_settings(&self) {
        self.settings.lock().iter().for_each(|notify| notify.notify_one());
    }

    fn wake(&self, areas: impl IntoIterator<Item = Area>) {
        let sleepers = self.sleepers.lock();
        for area in areas {
            for notify in sleepers.get(&area).into_iter().flatten() {
                notify.notify_one();
            }
        }
    }

    /// Follows what this node applies, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, node: Node, stop: CancellationToken) {
        let mut applied = node.applied();
        loop {
            let event = tokio::select! {
                // Cancel-safe: an event that was not returned comes again.
                event = applied.recv() => event,
                () = stop.cancelled() => return,
            };
            match event.as_deref() {
                Ok(AppliedEvent::Applied(applied)) => {
                    if applied.touched.settings {
                        self.wake_for_settings();
                    }
                    self.wake(applied.touched.areas.iter().copied());
                }
                Ok(AppliedEvent::Reset { .. }) | Err(RecvError::Lagged { .. }) => {
                    self.wake_for_settings();
                    self.wake(Area::ALL);
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}
