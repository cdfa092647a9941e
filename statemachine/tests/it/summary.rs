//! Everything that a state shows, in a form that two states can be compared by.

use bytes::Bytes;
use proto::etcd;
use statemachine::history::{self, HistoryBudget};
use statemachine::testkit::MemoryStore;
use statemachine::{Event, State, digest};

/// Reads the whole keyspace at a revision, 0 for the newest.
pub(crate) fn whole_range(revision: i64) -> etcd::RangeRequest {
    let everything = Bytes::from_static(b"\0");
    etcd::RangeRequest {
        key: everything.clone(),
        range_end: everything,
        revision,
        ..Default::default()
    }
}

pub(crate) fn fetch(
    state: &State,
    store: &MemoryStore,
    request: &etcd::RangeRequest,
) -> etcd::RangeResponse {
    state.plan_range(request).unwrap().fetch(store).unwrap()
}

/// What replicas must agree on and what a client could find out.
pub(crate) fn of_content(state: &State, store: &MemoryStore) -> String {
    let leases: Vec<_> = state.leases().collect();
    let alarms: Vec<_> = state.alarms().collect();
    let live = fetch(state, store, &whole_range(0));
    let metas: Vec<_> = live.kvs.iter().map(|kv| state.key_meta(&kv.key)).collect();
    format!(
        "revision {} compacted {} content {:x} level {} logical {} live {} keys {}\n\
         settings {:?}\nleases {leases:?}\nalarms {alarms:?}\nlive {live:?}\nindex {metas:?}\n{}",
        state.revision(),
        state.compacted_revision(),
        state.digests().content,
        state.level(),
        state.logical_bytes(),
        state.live_bytes(),
        state.n_keys(),
        state.settings(),
        state.views(),
    )
}

/// All of it, what is known of the log included.
pub(crate) fn of_state(state: &State, store: &MemoryStore) -> String {
    let origins: Vec<_> = state.origins().collect();
    format!(
        "index {} at {} ms chain {:x} origins {origins:?} unsettled {}\n{}",
        state.last_index(),
        state.at_ms(),
        state.digests().chain,
        state.n_unsettled_outcomes(),
        of_content(state, store),
    )
}

/// Every answer at or above the compacted revision: reads, history, previous pairs, hashes.
pub(crate) fn of_answers(state: &State, store: &MemoryStore) -> String {
    let compacted = state.compacted_revision();
    let mut answers = String::new();
    for revision in compacted.max(1)..=state.revision() {
        let read = fetch(state, store, &whole_range(revision));
        let hash = digest::hash_kv(store, compacted, revision).unwrap();
        answers += &format!("{revision}: {read:?} hash {hash:?}\n");
    }
    for event in events(store, compacted, state.revision()) {
        let previous = history::previous(store, event.key(), event.revision, compacted).unwrap();
        answers += &format!("{event:?} after {previous:?}\n");
    }
    answers
}

/// Changes of a span of revisions, read back in small portions.
pub(crate) fn events(store: &MemoryStore, from: i64, to: i64) -> Vec<Event> {
    let budget = HistoryBudget { events_max: 3, bytes_max: 1 << 20 };
    let (mut events, mut next) = (Vec::new(), from);
    while next <= to {
        let part = history::events(store, next, to, budget, &mut |_key| true).unwrap();
        assert!(part.next_revision > next, "history must get on");
        events.extend(part.events);
        next = part.next_revision;
    }
    events
}
