//! One watch of one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};

use proto::etcd;
use proto::etcd::watch_create_request::FilterType;

use super::range::KeyRange;
use super::stream::StreamQueue;

/// What decides which events a watcher gets, and in which form. Watchers that agree in all of it
/// share encoded events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Form {
    pub(crate) no_puts: bool,
    pub(crate) no_deletes: bool,
    pub(crate) prev_kv: bool,
}

impl Form {
    pub(crate) fn of(request: &etcd::WatchCreateRequest) -> Form {
        let has = |filter: FilterType| request.filters.contains(&i32::from(filter));
        Form {
            no_puts: has(FilterType::Noput),
            no_deletes: has(FilterType::Nodelete),
            prev_kv: request.prev_kv,
        }
    }

    pub(crate) fn wants(self, kind: statemachine::EventKind) -> bool {
        match kind {
            statemachine::EventKind::Put => !self.no_puts,
            statemachine::EventKind::Delete => !self.no_deletes,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) id: i64,
    pub(crate) stream: Arc<StreamQueue>,
    pub(crate) range: KeyRange,
    pub(crate) form: Form,
    pub(crate) fragment: bool,
    pub(crate) progress_notify: bool,
    /// As the client asked; 0 means from its creation on.
    pub(crate) start_revision: i64,
    /// The first revision whose events were not handed to the stream yet. Changed by the hub while
    /// the watcher is in sync (under the hub's lock), else only by the watcher's own catch-up.
    pub(crate) next_revision: AtomicI64,
    /// Written under the hub's lock.
    pub(crate) in_sync: AtomicBool,
    /// Written under the lock of the stream's queue: no event follows the answer to a cancel.
    pub(crate) canceled: AtomicBool,
    /// An event makes the next progress notification needless.
    pub(crate) sent_since_tick: AtomicBool,
}
