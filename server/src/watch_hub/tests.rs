//! Watchers and their streams, without a node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::noop_waker_ref;
use proto::etcd;
use statemachine::{Event, EventKind};

use super::feed::distribute;
use super::history::PreviousPairs;
use super::registry::{Joined, Registry, WatchBounds};
use super::stream::{Outgoing, StreamBounds, StreamQueue};
use super::watcher::Watcher;

const BOUNDS: StreamBounds =
    StreamBounds { bytes_max: 1 << 20, responses_max: 100, answers_max: 100 };
const WATCH_BOUNDS: WatchBounds = WatchBounds {
    stream_watchers_max: 1_000,
    member_watchers_max: 1_000,
    member_range_bytes_max: 1 << 20,
};

struct Bench {
    registry: Registry,
    stream: Arc<StreamQueue>,
}

impl Bench {
    /// A hub that has handed out everything up to `revision`.
    fn at(revision: i64) -> Bench {
        Bench::bounded(revision, BOUNDS)
    }

    fn bounded(revision: i64, bounds: StreamBounds) -> Bench {
        let mut registry = Registry::new(revision, WATCH_BOUNDS);
        let stream = Arc::new(StreamQueue::new(1, bounds, Arc::default()));
        registry.open(Arc::clone(&stream));
        Bench { registry, stream }
    }

    fn watch(&mut self, request: etcd::WatchCreateRequest) -> Joined {
        let applied = self.registry.revision();
        self.registry.create(1, &request, applied)
    }

    /// Passes the events of one put of each key, all in one revision.
    fn put(&mut self, revision: i64, keys: &[&str]) -> Vec<Arc<Watcher>> {
        let events: Vec<Event> = (0_u32..)
            .zip(keys)
            .map(|(sub, key)| Event {
                revision,
                sub,
                kind: EventKind::Put,
                kv: etcd::KeyValue {
                    key: Bytes::copy_from_slice(key.as_bytes()),
                    mod_revision: revision,
                    ..Default::default()
                },
                replaced: None,
            })
            .collect();
        let previous = PreviousPairs::default();
        let behind = distribute(&mut self.registry, &events, revision, &previous);
        self.registry.set_revision(revision);
        behind
    }

    /// Everything that waits, in words.
    fn sent(&self) -> Vec<String> {
        let mut sent = Vec::new();
        let mut context = Context::from_waker(noop_waker_ref());
        while let Poll::Ready(Some(next)) = self.stream.poll_next(&mut context) {
            sent.push(match next {
                Ok(Outgoing::Control(response)) => control(&response),
                Ok(Outgoing::Progress { watch_id, revision }) => {
                    format!("progress {watch_id} at {revision}")
                }
                Ok(Outgoing::Events { watcher, batch, from }) => {
                    let last = batch.last_revision();
                    format!("events {} from {from} to {last} at {}", watcher.id, batch.through())
                }
                Err(status) => format!("end {:?} {}", status.code(), status.message()),
            });
        }
        sent
    }
}

fn control(response: &etcd::WatchResponse) -> String {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let id = response.watch_id;
    match (response.created, response.canceled) {
        (true, false) => format!("created {id} at {revision}"),
        (false, true) if response.compact_revision != 0 => {
            format!("canceled {id} compacted {}", response.compact_revision)
        }
        (false, true) => format!("canceled {id} at {revision}"),
        (true, true) => format!("refused {id}: {}", response.cancel_reason),
        (false, false) => "nothing".to_owned(),
    }
}

fn on(key: &str, end: &str) -> etcd::WatchCreateRequest {
    etcd::WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        ..Default::default()
    }
}

#[test]
fn a_watch_is_created_then_gets_what_is_of_interest() {
    let mut bench = Bench::at(10);
    assert!(matches!(bench.watch(on("a", "c")), Joined::InSync));
    assert!(matches!(bench.watch(on("x", "")), Joined::InSync));
    bench.put(11, &["a", "b"]);
    bench.put(12, &["c"]);
    bench.put(13, &["x"]);
    assert_eq!(
        bench.sent(),
        [
            "created 0 at 10",
            "created 1 at 10",
            "events 0 from 11 to 11 at 11",
            "events 1 from 11 to 13 at 13",
        ]
    );
}

#[test]
fn ids_are_the_clients_choice_or_the_next_free_ones() {
    let mut bench = Bench::at(1);
    let with_id = |id| etcd::WatchCreateRequest { watch_id: id, ..on("k", "") };
    bench.watch(with_id(1));
    bench.watch(on("k", ""));
    bench.watch(on("k", ""));
    bench.watch(with_id(2));
    bench.registry.cancel(1, 0, 1);
    bench.watch(on("k", ""));
    bench.registry.cancel(1, 77, 1);
    assert_eq!(
        bench.sent(),
        [
            "created 1 at 1",
            "created 0 at 1",
            "created 2 at 1",
            "refused -1: mvcc: duplicate watch ID provided on the WatchStream",
            "canceled 0 at 1",
            "created 3 at 1",
        ],
        "an unknown id is not answered"
    );
}

#[test]
fn impossible_watches_are_refused() {
    let mut bench = Bench::at(1);
    bench.watch(on("b", "a"));
    bench.watch(etcd::WatchCreateRequest { start_revision: -1, ..on("k", "") });
    assert_eq!(
        bench.sent(),
        [
            "refused -1: mvcc: watcher range is empty",
            "refused -1: etcdserver: mvcc: required revision has been compacted",
        ]
    );
}

#[test]
fn a_watch_of_the_future_is_silent_until_it_comes() {
    let mut bench = Bench::at(10);
    let future =
        etcd::WatchCreateRequest { start_revision: 13, progress_notify: true, ..on("k", "") };
    assert!(matches!(bench.watch(future), Joined::InSync));
    bench.put(11, &["k"]);
    bench.registry.progress(1);
    bench.registry.tick(1);
    bench.put(12, &["k"]);
    bench.put(13, &["k"]);
    bench.registry.progress(1);
    assert_eq!(
        bench.sent(),
        ["created 0 at 10", "events 0 from 13 to 13 at 13", "progress -1 at 13"]
    );
}

#[test]
fn progress_is_for_streams_whose_watchers_are_all_in_sync() {
    let mut bench = Bench::at(10);
    bench.watch(on("k", ""));
    bench.registry.progress(1);
    let past = etcd::WatchCreateRequest { start_revision: 4, ..on("k", "") };
    assert_eq!(bench.watch(past), Joined::Behind);
    bench.registry.progress(1);
    assert_eq!(bench.sent(), ["created 0 at 10", "progress -1 at 10", "created 1 at 10"]);
    assert_eq!(bench.registry.low_water(), Some(3));
    let group = bench.registry.next_group(0, 10);
    group[0].next_revision.store(11, Ordering::Relaxed);
    assert!(bench.registry.next_group(0, 10).is_empty(), "it has caught up");
    assert_eq!(bench.sent(), ["progress -1 at 10"], "the request was kept until then");
}

#[test]
fn a_progress_request_is_answered_when_the_watcher_that_lacks_history_is_canceled() {
    let mut bench = Bench::at(10);
    bench.watch(on("k", ""));
    bench.watch(etcd::WatchCreateRequest { start_revision: 4, ..on("k", "") });
    bench.registry.progress(1);
    bench.registry.cancel(1, 1, 10);
    assert_eq!(
        bench.sent(),
        ["created 0 at 10", "created 1 at 10", "canceled 1 at 10", "progress -1 at 10"]
    );
}

#[test]
fn a_notification_is_left_out_where_an_event_said_as_much() {
    let mut bench = Bench::at(10);
    bench.watch(etcd::WatchCreateRequest { progress_notify: true, ..on("k", "") });
    bench.put(11, &["k"]);
    bench.registry.tick(1);
    bench.put(12, &["other"]);
    bench.registry.tick(1);
    assert_eq!(
        bench.sent(),
        ["created 0 at 10", "events 0 from 11 to 11 at 11", "progress 0 at 12"]
    );
}

#[test]
fn a_full_stream_holds_up_nobody_else_and_loses_nothing() {
    let mut bench = Bench::bounded(10, StreamBounds { responses_max: 2, ..BOUNDS });
    let other = Arc::new(StreamQueue::new(2, BOUNDS, Arc::default()));
    bench.registry.open(Arc::clone(&other));
    bench.watch(on("k", ""));
    bench.registry.create(2, &on("k", ""), 10);
    assert!(bench.put(11, &["k"]).is_empty());
    let behind = bench.put(12, &["k"]);
    assert_eq!(behind.len(), 1, "only the slow stream is full");
    bench.registry.fall_behind(&behind[0], 12);
    bench.put(13, &["k"]);
    assert_eq!(bench.sent(), ["created 0 at 10", "events 0 from 11 to 11 at 11"]);
    let group = bench.registry.next_group(0, 10);
    assert_eq!(group.len(), 1, "it lacks 12 and 13");
    assert_eq!(bench.registry.low_water(), Some(11));
}

#[test]
fn after_a_gap_everyone_in_sync_reads_history_from_where_it_stood() {
    let mut bench = Bench::at(10);
    bench.watch(on("k", ""));
    bench.watch(etcd::WatchCreateRequest { start_revision: 40, ..on("k", "") });
    bench.put(11, &["k"]);
    assert!(bench.registry.all_behind(12));
    bench.registry.set_revision(30);
    assert_eq!(bench.registry.n_behind(), 2);
    let lacking: Vec<i64> = bench.registry.next_group(0, 10).iter().map(|it| it.id).collect();
    assert_eq!(lacking, [0], "the watch of the future lacks nothing");
    assert_eq!(bench.registry.n_behind(), 1);
    bench.put(40, &["k"]);
    assert_eq!(
        bench.sent(),
        [
            "created 0 at 10",
            "created 1 at 10",
            "events 0 from 11 to 11 at 11",
            "events 1 from 40 to 40 at 40",
        ]
    );
}

#[test]
fn nothing_follows_the_answer_to_a_cancel() {
    let mut bench = Bench::at(10);
    let past = etcd::WatchCreateRequest { start_revision: 2, ..on("k", "") };
    assert_eq!(bench.watch(past), Joined::Behind);
    let watcher = Arc::clone(&bench.registry.next_group(0, 10)[0]);
    bench.registry.cancel_compacted(&watcher, 7);
    bench.registry.cancel_compacted(&watcher, 7);
    assert!(bench.registry.next_group(0, 10).is_empty(), "nothing is read for it any more");
    bench.put(11, &["k"]);
    assert_eq!(bench.sent(), ["created 0 at 10", "canceled 0 compacted 7"]);
    assert_eq!(bench.registry.n_watchers(), 0);
}

#[test]
fn a_watch_beyond_a_bound_is_refused_with_the_limit() {
    let mut bench = Bench::at(1);
    let bounds =
        WatchBounds { stream_watchers_max: 2, member_watchers_max: 3, member_range_bytes_max: 10 };
    bench.registry = Registry::new(1, bounds);
    bench.registry.open(Arc::clone(&bench.stream));
    let other = Arc::new(StreamQueue::new(2, BOUNDS, Arc::default()));
    bench.registry.open(Arc::clone(&other));
    for _ in 0..3 {
        bench.watch(on("k", ""));
    }
    bench.registry.create(2, &on("012345678", ""), 1);
    bench.registry.create(2, &on("k", ""), 1);
    bench.registry.create(2, &on("k", ""), 1);
    let refused = bench.registry.refused();
    assert_eq!((refused.stream, refused.member, refused.range_bytes), (1, 1, 1));
    assert_eq!(
        bench.sent(),
        [
            "created 0 at 1",
            "created 1 at 1",
            "refused -1: etcdserver: too many watchers on this stream: the limit is 2; watch a \
             range instead of single keys, or open another stream",
        ]
    );
    bench.registry.cancel(1, 0, 1);
    bench.watch(on("k", ""));
    assert_eq!(bench.sent(), ["canceled 0 at 1", "created 2 at 1"], "one that went makes room");
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_not_read_either() {
    let mut bench = Bench::bounded(1, StreamBounds { answers_max: 3, ..BOUNDS });
    bench.watch(etcd::WatchCreateRequest { progress_notify: true, ..on("k", "") });
    bench.registry.progress(1);
    bench.stream.takes_requests().await;
    bench.registry.progress(1);
    let mut waits = Box::pin(bench.stream.takes_requests());
    assert!(futures::poll!(&mut waits).is_pending(), "three answers wait");
    for _ in 0..1_000 {
        bench.registry.tick(1);
    }
    assert_eq!(bench.sent().len(), 3, "notifications find no room");
    waits.await;
}
