//! Who watches what: the part of the hub that lives under its lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use proto::etcd;
use statemachine::Event;

use super::batch::Batch;
use super::index::RangeIndex;
use super::range::KeyRange;
use super::stream::{Full, Outgoing, StreamQueue};
use super::watcher::{Form, Watcher};

/// Watchers of one range, by the form in which they take events.
type Interest = BTreeMap<Form, Members>;
/// By stream and watch id.
type Members = BTreeMap<(u64, i64), Arc<Watcher>>;

pub(super) struct Registry {
    /// Every event up to here was handed to the watchers in sync.
    revision: i64,
    streams: HashMap<u64, Stream>,
    pub(super) index: RangeIndex<Interest>,
    /// Watchers that lack history, by stream and watch id.
    behind: Members,
    bounds: WatchBounds,
    n_watchers: usize,
    /// Bytes of the ranges of all watchers.
    range_bytes: usize,
    /// Watchers in sync that take events with the pairs before them.
    n_with_previous: usize,
    refused: Refused,
}

/// How many watchers there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchBounds {
    pub(super) stream_watchers_max: usize,
    pub(super) member_watchers_max: usize,
    /// Of the keys and range ends that all watchers of the member name.
    pub(super) member_range_bytes_max: usize,
}

/// Watches that were refused since the start, by the bound that they met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) stream: u64,
    pub(crate) member: u64,
    pub(crate) range_bytes: u64,
}

struct Stream {
    queue: Arc<StreamQueue>,
    watchers: BTreeMap<i64, Arc<Watcher>>,
    next_watch_id: i64,
    /// A progress request waits for the watchers that lack history.
    progress_wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    InSync,
    /// Needs history first.
    Behind,
    Refused,
}

impl Registry {
    pub(super) fn new(revision: i64, bounds: WatchBounds) -> Registry {
        Registry {
            revision,
            streams: HashMap::new(),
            index: RangeIndex::default(),
            behind: Members::new(),
            bounds,
            n_watchers: 0,
            range_bytes: 0,
            n_with_previous: 0,
            refused: Refused::default(),
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn set_revision(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    pub(super) fn n_watchers(&self) -> usize {
        self.n_watchers
    }

    pub(super) fn n_streams(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn n_behind(&self) -> usize {
        self.behind.len()
    }

    pub(super) fn n_unread(&self) -> usize {
        self.streams.values().filter(|stream| stream.queue.is_unread()).count()
    }

    pub(super) fn refused(&self) -> Refused {
        self.refused
    }

    pub(super) fn open(&mut self, queue: Arc<StreamQueue>) {
        let stream =
            Stream { queue, watchers: BTreeMap::new(), next_watch_id: 0, progress_wanted: false };
        self.streams.insert(stream.queue.id, stream);
    }

    pub(super) fn close(&mut self, stream: u64) {
        let Some(stream) = self.streams.remove(&stream) else { return };
        for watcher in stream.watchers.values() {
            watcher.canceled.store(true, Ordering::Relaxed);
            self.forget(watcher);
        }
    }

    pub(super) fn drain(&mut self) -> Vec<Arc<StreamQueue>> {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        let queues = self.streams.values().map(|stream| Arc::clone(&stream.queue)).collect();
        streams.into_iter().for_each(|stream| self.close(stream));
        queues
    }

    /// `applied` is the revision of this node's state, at least the hub's own.
    pub(super) fn create(
        &mut self,
        stream_id: u64,
        request: &etcd::WatchCreateRequest,
        applied: i64,
    ) -> Joined {
        let current = self.revision.max(applied);
        let over_bound = self.over_bound(stream_id, request);
        let Some(stream) = self.streams.get_mut(&stream_id) else { return Joined::Refused };
        let refuse = |reason: &str| {
            stream.queue.push_control(Outgoing::Control(etcd::WatchResponse {
                header: Some(header(current)),
                watch_id: -1,
                created: true,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..Default::default()
            }));
            Joined::Refused
        };
        let Ok(range) = KeyRange::of_watch(&request.key, &request.range_end) else {
            return refuse("mvcc: watcher range is empty");
        };
        if request.start_revision < 0 {
            return refuse("etcdserver: mvcc: required revision has been compacted");
        }
        if request.watch_id != 0 && stream.watchers.contains_key(&request.watch_id) {
            return refuse("mvcc: duplicate watch ID provided on the WatchStream");
        }
        if let Some(reason) = over_bound {
            return refuse(&reason);
        }
        let id = stream.watch_id(request.watch_id);
        let next_revision = match request.start_revision {
            0 => current + 1,
            start => start,
        };
        let watcher = Arc::new(Watcher {
            id,
            stream: Arc::clone(&stream.queue),
            range,
            form: Form::of(request),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            start_revision: request.start_revision,
            next_revision: AtomicI64::new(next_revision),
            in_sync: AtomicBool::new(false),
            canceled: AtomicBool::new(false),
            sent_since_tick: AtomicBool::new(false),
        });
        stream.watchers.insert(id, Arc::clone(&watcher));
        self.n_watchers += 1;
        self.range_bytes += watcher.range.size_bytes();
        stream.queue.push_control(Outgoing::Control(etcd::WatchResponse {
            header: Some(header(current)),
            watch_id: id,
            created: true,
            ..Default::default()
        }));
        if watcher.next_revision.load(Ordering::Relaxed) > self.revision {
            self.join(&watcher);
            return Joined::InSync;
        }
        self.behind.insert((stream_id, id), watcher);
        Joined::Behind
    }

    /// The bound that one more watcher would pass, for the client.
    fn over_bound(&mut self, stream_id: u64, request: &etcd::WatchCreateRequest) -> Option<String> {
        let bounds = self.bounds;
        let of_stream = self.streams.get(&stream_id).map_or(0, |stream| stream.watchers.len());
        let range_bytes = self.range_bytes + request.key.len() + request.range_end.len();
        if of_stream >= bounds.stream_watchers_max {
            self.refused.stream += 1;
            let limit = bounds.stream_watchers_max;
            return Some(format!(
                "etcdserver: too many watchers on this stream: the limit is {limit}; watch a range \
                 instead of single keys, or open another stream"
            ));
        }
        if self.n_watchers >= bounds.member_watchers_max {
            self.refused.member += 1;
            let limit = bounds.member_watchers_max;
            return Some(format!(
                "etcdserver: too many watchers on this member: the limit is {limit}; watch a range \
                 instead of single keys, or use another member"
            ));
        }
        if range_bytes > bounds.member_range_bytes_max {
            self.refused.range_bytes += 1;
            let limit = bounds.member_range_bytes_max;
            return Some(format!(
                "etcdserver: the keys of all watchers on this member have more than {limit} bytes: \
                 watch shorter keys, or use another member"
            ));
        }
        None
    }

    /// Puts a watcher that lacks nothing into the index.
    fn join(&mut self, watcher: &Arc<Watcher>) {
        watcher.in_sync.store(true, Ordering::Relaxed);
        self.n_with_previous += usize::from(watcher.form.prev_kv);
        self.index
            .entry(&watcher.range, Interest::default)
            .entry(watcher.form)
            .or_default()
            .insert((watcher.stream.id, watcher.id), Arc::clone(watcher));
    }

    /// Lets watchers that lack nothing any more join, and chooses those that history is read for
    /// next: by their next revision from `cursor` on, or from the lowest where there is none beyond.
    /// Watchers whose stream has no room wait. Empty where there is none to read for.
    pub(super) fn next_group(&mut self, cursor: i64, watchers_max: usize) -> Vec<Arc<Watcher>> {
        let next = |watcher: &Arc<Watcher>| watcher.next_revision.load(Ordering::Relaxed);
        let revision = self.revision;
        let mut caught_up = Vec::new();
        self.behind.retain(|_, watcher| {
            let lacks_some = next(watcher) <= revision;
            if !lacks_some {
                caught_up.push(Arc::clone(watcher));
            }
            lacks_some
        });
        for watcher in &caught_up {
            self.join(watcher);
        }
        for watcher in &caught_up {
            self.answer_progress(watcher.stream.id);
        }
        let mut has_room = (0, false);
        let mut ready: Vec<(i64, &Arc<Watcher>)> = Vec::new();
        for ((stream, _), watcher) in &self.behind {
            if has_room.0 != *stream {
                has_room = (*stream, watcher.stream.is_half_free());
            }
            if has_room.1 {
                ready.push((next(watcher), watcher));
            }
        }
        if ready.iter().any(|(next, _)| *next >= cursor) {
            ready.retain(|(next, _)| *next >= cursor);
        }
        ready.sort_by_key(|(next, _)| *next);
        ready.into_iter().take(watchers_max).map(|(_, watcher)| Arc::clone(watcher)).collect()
    }

    /// Events whose previous values somebody in sync wants.
    pub(super) fn replaced_wanted(&mut self, events: &[Event]) -> Vec<Event> {
        if self.n_with_previous == 0 {
            return Vec::new();
        }
        let is_wanted = |event: &&Event| {
            let mut slots = Vec::new();
            self.index.matching(event.key(), |slot| slots.push(slot));
            slots
                .into_iter()
                .filter_map(|slot| self.index.value(slot))
                .any(|interest| interest.keys().any(|form| form.prev_kv && form.wants(event.kind)))
        };
        let replacing = events.iter().filter(|event| event.replaced.is_some());
        replacing.filter(is_wanted).cloned().collect()
    }

    /// Takes a watcher that is gone out of everything but its stream.
    fn forget(&mut self, watcher: &Watcher) {
        self.n_watchers -= 1;
        self.range_bytes -= watcher.range.size_bytes();
        self.behind.remove(&(watcher.stream.id, watcher.id));
        self.leave(watcher);
    }

    /// Takes a watcher out of the index, if it is there.
    fn leave(&mut self, watcher: &Watcher) {
        if !watcher.in_sync.swap(false, Ordering::Relaxed) {
            return;
        }
        self.n_with_previous -= usize::from(watcher.form.prev_kv);
        let Some(interest) = self.index.get_mut(&watcher.range) else { return };
        if let Some(members) = interest.get_mut(&watcher.form) {
            members.remove(&(watcher.stream.id, watcher.id));
            if members.is_empty() {
                interest.remove(&watcher.form);
            }
        }
        if interest.is_empty() {
            self.index.remove(&watcher.range);
        }
    }

    pub(super) fn cancel(&mut self, stream_id: u64, watch_id: i64, applied: i64) {
        let response = etcd::WatchResponse {
            header: Some(header(self.revision.max(applied))),
            watch_id,
            canceled: true,
            ..Default::default()
        };
        self.end(stream_id, watch_id, response);
    }

    /// History that the watcher needs is gone.
    pub(super) fn cancel_compacted(&mut self, watcher: &Watcher, compacted_revision: i64) {
        if watcher.canceled.load(Ordering::Relaxed) {
            return;
        }
        let response = etcd::WatchResponse {
            header: Some(header(0)),
            watch_id: watcher.id,
            canceled: true,
            compact_revision: compacted_revision,
            ..Default::default()
        };
        self.end(watcher.stream.id, watcher.id, response);
    }

    /// Ends the stream of a watcher that cannot be served any more; its client comes back.
    pub(super) fn abandon(&mut self, watcher: &Watcher) {
        self.close(watcher.stream.id);
        watcher.stream.close(Some(tonic::Status::unavailable("etcdserver: server stopped")));
    }

    fn end(&mut self, stream_id: u64, watch_id: i64, response: etcd::WatchResponse) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let Some(watcher) = stream.watchers.remove(&watch_id) else { return };
        watcher.stream.push_cancel(&watcher, response);
        self.forget(&watcher);
        self.answer_progress(stream_id);
    }

    /// Answers a progress request at once, or when the last watcher of the stream has caught up.
    pub(super) fn progress(&mut self, stream_id: u64) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        stream.progress_wanted = true;
        self.answer_progress(stream_id);
    }

    /// etcd gives no answer while a watcher lacks history. A client that has read all events cannot
    /// know that this node has not noticed yet, so here the answer comes late instead. A watcher
    /// that starts in the future lacks nothing: there is no answer then, as in etcd.
    fn answer_progress(&mut self, stream_id: u64) {
        let revision = self.revision;
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let is_behind = |watcher: &Arc<Watcher>| !watcher.in_sync.load(Ordering::Relaxed);
        if !stream.progress_wanted || stream.watchers.values().any(is_behind) {
            return;
        }
        stream.progress_wanted = false;
        if stream.watchers.values().all(|watcher| watcher.start_revision <= revision) {
            stream.queue.push_control(Outgoing::Progress { watch_id: -1, revision });
        }
    }

    pub(super) fn tick(&self, stream_id: u64) {
        let Some(stream) = self.streams.get(&stream_id) else { return };
        for watcher in stream.watchers.values().filter(|watcher| watcher.progress_notify) {
            let sent = watcher.sent_since_tick.swap(false, Ordering::Relaxed);
            if !sent && self.is_current(watcher) {
                stream.queue.push_progress(watcher.id, self.revision);
            }
        }
    }

    /// Whether "no events up to now" is true of the watcher: it is in sync, and now is not before
    /// its start.
    fn is_current(&self, watcher: &Watcher) -> bool {
        watcher.in_sync.load(Ordering::Relaxed) && watcher.start_revision <= self.revision
    }

    /// Hands one batch to the members of a form; returns those whose stream is full.
    pub(super) fn deliver(members: &Members, batch: &Arc<Batch>, next: i64) -> Vec<Arc<Watcher>> {
        let mut full = Vec::new();
        for watcher in members.values() {
            let from = watcher.next_revision.load(Ordering::Relaxed);
            if batch.last_revision() < from {
                continue;
            }
            match watcher.stream.push_events(watcher, batch, from) {
                Ok(()) => watcher.next_revision.store(next, Ordering::Relaxed),
                Err(Full) => full.push(Arc::clone(watcher)),
            }
        }
        full
    }

    /// Makes a watcher catch up from what it got last, at the earliest from `revision`.
    pub(super) fn fall_behind(&mut self, watcher: &Arc<Watcher>, revision: i64) {
        watcher.next_revision.fetch_max(revision, Ordering::Relaxed);
        self.leave(watcher);
        self.behind.insert((watcher.stream.id, watcher.id), Arc::clone(watcher));
    }

    /// Makes all watchers in sync catch up from `revision` on; whether there were any.
    pub(super) fn all_behind(&mut self, revision: i64) -> bool {
        let all: Vec<Arc<Watcher>> = self
            .index
            .values_mut()
            .flat_map(|interest| interest.values())
            .flat_map(|members| members.values().map(Arc::clone))
            .collect();
        for watcher in &all {
            self.fall_behind(watcher, revision);
        }
        !all.is_empty()
    }

    pub(super) fn low_water(&self) -> Option<i64> {
        self.behind
            .values()
            // One less: the value before the next event may be asked for with it.
            .map(|watcher| watcher.next_revision.load(Ordering::Relaxed) - 1)
            .min()
    }
}

impl Stream {
    /// The id that the client chose, or the next free one.
    fn watch_id(&mut self, requested: i64) -> i64 {
        if requested != 0 {
            return requested;
        }
        while self.watchers.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        self.next_watch_id - 1
    }
}

fn header(revision: i64) -> etcd::ResponseHeader {
    etcd::ResponseHeader { revision, ..Default::default() }
}
