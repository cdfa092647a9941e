//! A watcher that lacks history reads it in its own task, then joins the hub.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::WatchHub;
use super::history::Page;
use super::watcher::Watcher;

pub(super) fn spawn(hub: &Arc<WatchHub>, watcher: Arc<Watcher>) {
    let hub = Arc::clone(hub);
    crate::tasks::spawn("watch-catch-up", async move {
        tokio::select! {
            () = hub.stop.cancelled() => {}
            // Dropping it loses nothing: the stream ends with the hub.
            () = catch_up(&hub, &watcher) => {}
        }
    });
}

async fn catch_up(hub: &Arc<WatchHub>, watcher: &Arc<Watcher>) {
    // Joined, canceled, or the stream is gone: all end it.
    while watcher.stream.room(watcher).await && !hub.registry.lock().join(watcher) {
        let from = watcher.next_revision.load(Ordering::Relaxed);
        match hub.history.read(watcher, from).await {
            Ok(Page::Events { batch, through }) => {
                if let Some(batch) = batch
                    && watcher.stream.push_events(watcher, &Arc::new(batch), from).is_err()
                {
                    continue;
                }
                watcher.next_revision.store(through + 1, Ordering::Relaxed);
            }
            Ok(Page::Compacted { revision }) => {
                hub.registry.lock().cancel_compacted(watcher, revision);
                return;
            }
            // It has been reported, which stops the node and with it every stream.
            Err(fault) => {
                tracing::debug!(error = %fault, "watch history cannot be read");
                hub.registry.lock().abandon(watcher);
                return;
            }
        }
    }
}
