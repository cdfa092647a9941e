//! Past events and past values, read from the store.

use std::sync::Arc;

use proto::etcd;
use raft::{Node, Pinned};
use statemachine::history::{self, HistoryBudget};
use statemachine::{Event, Fault};
use tokio::sync::Semaphore;

use super::batch::{Batch, BatchBuilder};
use super::feed::wire;
use super::watcher::Watcher;

/// What one read of history takes at most; a revision is never split.
const PAGE: HistoryBudget = HistoryBudget { events_max: 1_000, bytes_max: 1024 * 1024 };

pub(super) struct History {
    node: Node,
    reads: Arc<Semaphore>,
}

pub(super) enum Page {
    /// What interests the watcher among everything up to revision `through`.
    Events {
        batch: Option<Batch>,
        through: i64,
    },
    Compacted {
        revision: i64,
    },
}

impl History {
    pub(super) fn new(node: Node, reads_max: usize) -> History {
        History { node, reads: Arc::new(Semaphore::new(reads_max.max(1))) }
    }

    pub(super) async fn read(&self, watcher: &Arc<Watcher>, from: i64) -> Result<Page, Fault> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.expect("it is never closed");
        let node = self.node.clone();
        let watcher = Arc::clone(watcher);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            page(&node, &watcher, from).inspect_err(|fault| node.state_failed(fault))
        });
        read.await.unwrap_or_else(|error| Err(Fault::Invariant(format!("history reader: {error}"))))
    }
}

fn page(node: &Node, watcher: &Watcher, from: i64) -> Result<Page, Fault> {
    let ((current, compacted), store) =
        node.local_view().pin(|state| (state.revision(), state.compacted_revision()));
    if from < compacted {
        return Ok(Page::Compacted { revision: compacted });
    }
    let wants = &mut |key: &[u8]| watcher.range.contains(key);
    let page = history::events(&store, from, current, PAGE, wants)?;
    let through = page.next_revision - 1;
    let mut builder = BatchBuilder::default();
    for event in page.events.iter().filter(|event| watcher.form.wants(event.kind)) {
        let prev_kv = if watcher.form.prev_kv && !event.is_create() {
            history::previous(&store, event.key(), event.revision)?
        } else {
            None
        };
        builder.push(event.revision, &wire(event, prev_kv));
    }
    Ok(Page::Events { batch: builder.finish(Some(through)), through })
}

/// Looks up values for events that are passing, on one image taken when the first is needed.
pub(super) struct PreviousValues<'a> {
    node: &'a Node,
    store: Option<Pinned>,
}

impl<'a> PreviousValues<'a> {
    pub(super) fn new(node: &'a Node) -> PreviousValues<'a> {
        PreviousValues { node, store: None }
    }

    pub(super) fn of(&mut self, event: &Event) -> Option<etcd::KeyValue> {
        let node = self.node;
        let replaced = event.replaced?;
        let store = self.store.get_or_insert_with(|| node.local_view().pin(|_| ()).1);
        history::fetch(store, replaced).unwrap_or_else(|fault| {
            node.state_failed(&fault);
            None
        })
    }
}
