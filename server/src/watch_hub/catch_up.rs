//! One task reads history for all watchers that lack some, a part at a time.
//!
//! A part is read once and handed to every watcher that stands in it, so that many watchers that
//! start in the past cost little more than one. The reading goes up through the revisions and
//! begins again from the lowest: a watcher that comes with an old revision does not hold up those
//! that are further on. A watcher whose stream is full is left out until its client has read.

use std::sync::Arc;

use super::WatchHub;
use super::history::Part;
use super::watcher::Watcher;

/// Watchers that one part is read for; the others wait for the next.
pub(super) const GROUP_WATCHERS_MAX: usize = 1024;

pub(super) fn spawn(hub: &Arc<WatchHub>) {
    let hub = Arc::clone(hub);
    crate::tasks::spawn("watch-catch-up", async move {
        let mut cursor = 0;
        loop {
            let group = hub.registry.lock().next_group(cursor, GROUP_WATCHERS_MAX);
            tokio::select! {
                () = hub.stop.cancelled() => break,
                // Dropping it loses nothing: the streams end with the hub.
                next = step(&hub, group, cursor) => cursor = next,
            }
        }
    });
}

/// Reads one part for a group; with an empty group, waits until there may be a watcher. Returns
/// where to go on.
async fn step(hub: &Arc<WatchHub>, group: Vec<Arc<Watcher>>, cursor: i64) -> i64 {
    if group.is_empty() {
        hub.behind.notified().await;
        return cursor;
    }
    match hub.history.read(&group).await {
        Ok(Part { compacted, compacted_revision, through }) => {
            let mut registry = hub.registry.lock();
            for watcher in &compacted {
                registry.cancel_compacted(watcher, compacted_revision);
            }
            through + 1
        }
        // It has been reported, which stops the node and with it every stream.
        Err(fault) => {
            tracing::debug!(error = %fault, "watch history cannot be read");
            let mut registry = hub.registry.lock();
            for watcher in &group {
                registry.abandon(watcher);
            }
            cursor
        }
    }
}
