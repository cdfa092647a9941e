//! Facts of the moment, in the leader's memory: row counts of growing segments, ticks, what was
//! handed out. Rebuilt from the next report; what must survive is in the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use statemachine::coordinator::channel::view::Assignment;
use statemachine::view::{SegmentId, ServerId};
use tokio::sync::Notify;

use super::assign::Assigner;

/// Of one tenure.
pub(crate) struct Observed {
    pub(crate) assigner: Assigner,
    /// Take-over is not idleness: what nobody reported counts from here.
    began: Instant,
    facts: Mutex<Facts>,
    /// Wakes the sealing duty.
    pub(crate) ticked: Arc<Notify>,
}

#[derive(Default)]
struct Facts {
    channels: BTreeMap<String, ChannelFacts>,
    segments: BTreeMap<SegmentId, SegmentFacts>,
    flushes: BTreeMap<String, ToldFlush>,
    /// Channels that their data nodes do not know, with the revisions of the keys that say otherwise.
    unserved: BTreeMap<String, i64>,
    /// Channels with a tick, or a seal, that the sealing duty has not seen.
    ticked: BTreeSet<String>,
    /// Segments of imports that the data nodes of their channels do not know.
    disowned: BTreeSet<SegmentId>,
}

/// The newest flush that a channel's data node was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ToldFlush {
    node: ServerId,
    ts: u64,
}

#[derive(Clone, Copy)]
struct ChannelFacts {
    tick_ts: u64,
    node: ServerId,
    epoch: u64,
    at: Instant,
    /// Rows that arrived in this tenure.
    rows: i64,
}

#[derive(Clone, Copy, Default)]
struct SegmentFacts {
    rows: i64,
    written: Option<Instant>,
    flush_sent: Option<Instant>,
}

/// The newest tick of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// All rows with a hybrid timestamp up to it are consumed.
    pub(crate) ts: u64,
    pub(crate) node: ServerId,
    /// The assignment of the channel under which it was consumed.
    pub(crate) epoch: u64,
}

impl Tick {
    /// Whether it tells of what is consumed now. Who watches a channel anew, on the same node, too,
    /// begins at its checkpoint: rows that an earlier tick took for consumed come once more.
    pub(crate) fn is_of(&self, assignment: &Assignment) -> bool {
        self.node == assignment.node && self.epoch == assignment.epoch
    }
}

impl Default for Observed {
    fn default() -> Observed {
        Observed {
            assigner: Assigner::default(),
            began: Instant::now(),
            facts: Mutex::default(),
            ticked: Arc::default(),
        }
    }
}

impl Observed {
    /// A data node has consumed the channel up to a timestamp.
    pub(crate) fn note_tick(&self, channel: &str, tick: Tick) {
        let Tick { ts, node, epoch } = tick;
        let mut facts = self.facts.lock();
        let now = Instant::now();
        let of = facts.channels.get(channel).map(|known| (known.node, known.epoch));
        if of.is_some_and(|of| of != (node, epoch)) {
            // It does not know what was told before.
            facts.flushes.remove(channel);
        }
        match facts.channels.get_mut(channel) {
            Some(known) => {
                // After a move the new owner starts behind the old one, and so does the old one
                // where it watches the channel anew.
                let is_same = of == Some((node, epoch));
                known.tick_ts = if is_same { known.tick_ts.max(ts) } else { ts };
                known.node = node;
                known.epoch = epoch;
                known.at = now;
            }
            None => {
                let fresh = ChannelFacts { tick_ts: ts, node, epoch, at: now, rows: 0 };
                facts.channels.insert(channel.to_owned(), fresh);
            }
        }
        facts.ticked.insert(channel.to_owned());
    }

    /// Rows that a data node has ever seen of a segment.
    pub(crate) fn note_rows(&self, channel: &str, segment: SegmentId, rows: i64) {
        let mut facts = self.facts.lock();
        let known = facts.segments.entry(segment).or_default();
        let more = (rows - known.rows).max(0);
        known.rows = known.rows.max(rows);
        known.written = Some(Instant::now());
        if let Some(channel) = facts.channels.get_mut(channel) {
            channel.rows += more;
        }
    }

    /// Rows of a segment as last reported in this tenure; 0 where nobody did.
    pub(crate) fn rows(&self, segment: SegmentId) -> i64 {
        self.facts.lock().segments.get(&segment).map_or(0, |known| known.rows)
    }

    /// Since when nothing was handed out of or reported of a segment; `window_age` is how long ago its
    /// newest window was committed.
    pub(crate) fn idle(&self, segment: SegmentId, window_age: Duration) -> Duration {
        let written = self.facts.lock().segments.get(&segment).and_then(|known| known.written);
        written.unwrap_or(self.began).elapsed().min(self.began.elapsed()).min(window_age)
    }

    pub(crate) fn tick(&self, channel: &str) -> Option<Tick> {
        let facts = self.facts.lock();
        let known = facts.channels.get(channel)?;
        Some(Tick { ts: known.tick_ts, node: known.node, epoch: known.epoch })
    }

    /// 0 before the first tick of this tenure.
    pub(crate) fn tick_ts(&self, channel: &str) -> u64 {
        self.tick(channel).map_or(0, |tick| tick.ts)
    }

    /// Rows that arrived through a channel in this tenure, and how long ago its last tick was.
    pub(crate) fn channel_load(&self, channel: &str) -> Option<(i64, Duration)> {
        let facts = self.facts.lock();
        facts.channels.get(channel).map(|known| (known.rows, known.at.elapsed()))
    }

    /// For how long no data node has reported of a channel, in this tenure.
    pub(crate) fn silence(&self, channel: &str) -> Duration {
        let load = self.channel_load(channel);
        load.map_or_else(|| self.began.elapsed(), |(_rows, ago)| ago)
    }

    /// Has the sealing duty look at a channel at once: what is sealed may not need another tick.
    pub(crate) fn look_at(&self, channel: &str) {
        self.facts.lock().ticked.insert(channel.to_owned());
        self.ticked.notify_one();
    }

    /// Channels with a tick that was not taken yet.
    pub(crate) fn take_ticked(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.facts.lock().ticked)
    }

    /// Whether a flush may be sent now; the last one must be older than `pause`.
    pub(crate) fn begin_flush(&self, segment: SegmentId, pause: Duration) -> bool {
        let mut facts = self.facts.lock();
        let known = facts.segments.entry(segment).or_default();
        if known.flush_sent.is_some_and(|sent| sent.elapsed() < pause) {
            return false;
        }
        known.flush_sent = Some(Instant::now());
        true
    }

    /// Whether a data node has to be told to flush a channel up to a timestamp: from then on it counts
    /// as told.
    pub(crate) fn begin_channel_flush(&self, channel: &str, node: ServerId, ts: u64) -> bool {
        let mut facts = self.facts.lock();
        let known = facts.flushes.get(channel);
        if known.is_some_and(|known| known.node == node && known.ts >= ts) {
            return false;
        }
        facts.flushes.insert(channel.to_owned(), ToldFlush { node, ts });
        true
    }

    /// It did not take it.
    pub(crate) fn forget_channel_flush(&self, channel: &str, node: ServerId, ts: u64) {
        let mut facts = self.facts.lock();
        if facts.flushes.get(channel) == Some(&ToldFlush { node, ts }) {
            facts.flushes.remove(channel);
        }
    }

    /// A data node does not know a channel that it watches according to a key of this revision.
    /// Returns whether that is new.
    pub(crate) fn note_unserved(&self, channel: &str, revision: i64) -> bool {
        self.facts.lock().unserved.insert(channel.to_owned(), revision) != Some(revision)
    }

    /// Whether that was noted of the key.
    pub(crate) fn is_unserved(&self, channel: &str, revision: i64) -> bool {
        self.facts.lock().unserved.get(channel) == Some(&revision)
    }

    /// The data node of its channel does not know a segment of an import.
    pub(crate) fn note_disowned(&self, segment: SegmentId) {
        self.facts.lock().disowned.insert(segment);
    }

    pub(crate) fn is_disowned(&self, segment: SegmentId) -> bool {
        self.facts.lock().disowned.contains(&segment)
    }

    pub(crate) fn forget(&self, segment: SegmentId) {
        let mut facts = self.facts.lock();
        facts.segments.remove(&segment);
        facts.disowned.remove(&segment);
    }

    /// Keeps what is known of channels and of segments that are there still: a report may arrive after
    /// its channel was dropped, or its segment flushed.
    pub(crate) fn retain(
        &self,
        is_channel: impl Fn(&str) -> bool,
        is_open: impl Fn(SegmentId) -> bool,
    ) {
        self.assigner.retain(&is_channel);
        let mut facts = self.facts.lock();
        facts.channels.retain(|channel, _| is_channel(channel));
        facts.flushes.retain(|channel, _| is_channel(channel));
        facts.unserved.retain(|channel, _| is_channel(channel));
        facts.ticked.retain(|channel| is_channel(channel));
        facts.segments.retain(|segment, _| is_open(*segment));
        facts.disowned.retain(|segment| is_open(*segment));
    }

    pub(crate) fn forget_channel(&self, channel: &str) {
        self.assigner.forget_channel(channel);
        let mut facts = self.facts.lock();
        facts.channels.remove(channel);
        facts.flushes.remove(channel);
        facts.unserved.remove(channel);
        facts.ticked.remove(channel);
    }
}

#[cfg(test)]
mod tests {
    use statemachine::view::CollectionId;

    use super::*;

    #[test]
    fn who_watches_a_channel_anew_is_behind_again() {
        let observed = Observed::default();
        let tick = |ts, node, epoch| Tick { ts, node: ServerId(node), epoch };
        let note = |ts, node, epoch| {
            observed.note_tick("dml_0_1v0", tick(ts, node, epoch));
            observed.tick_ts("dml_0_1v0")
        };
        assert_eq!(note(100, 5, 1), 100);
        assert_eq!(note(90, 5, 1), 100, "reports overtake each other");
        assert_eq!(note(80, 5, 2), 80, "the same node from the checkpoint on");
        assert_eq!(note(70, 6, 3), 70);

        let assignment = Assignment {
            collection: CollectionId(1),
            node: ServerId(5),
            epoch: 2,
            beginning: None,
            revision: 1,
        };
        assert!(tick(80, 5, 2).is_of(&assignment));
        assert!(!tick(100, 5, 1).is_of(&assignment), "of before it was watched anew");
        assert!(!tick(70, 6, 2).is_of(&assignment));
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let observed = Observed::default();
        let tick = Tick { ts: 1, node: ServerId(5), epoch: 1 };
        for channel in ["dml_0_1v0", "dml_0_2v0"] {
            observed.note_tick(channel, tick);
            observed.note_unserved(channel, 1);
            observed.begin_channel_flush(channel, ServerId(5), 1);
        }
        for segment in [10, 11] {
            observed.note_rows("dml_0_1v0", SegmentId(segment), 5);
            observed.note_disowned(SegmentId(segment));
        }
        observed.retain(|channel| channel == "dml_0_1v0", |segment| segment == SegmentId(10));
        assert_eq!(observed.tick("dml_0_1v0"), Some(tick));
        assert_eq!(observed.tick("dml_0_2v0"), None);
        assert!(!observed.is_unserved("dml_0_2v0", 1));
        assert!(observed.begin_channel_flush("dml_0_2v0", ServerId(5), 1));
        assert_eq!(observed.take_ticked(), BTreeSet::from(["dml_0_1v0".to_owned()]));
        assert_eq!((observed.rows(SegmentId(10)), observed.rows(SegmentId(11))), (5, 0));
        assert!(observed.is_disowned(SegmentId(10)) && !observed.is_disowned(SegmentId(11)));
    }

    #[test]
    fn a_data_node_is_told_of_a_flush_once_unless_it_did_not_take_it() {
        let observed = Observed::default();
        let begin = |node, ts| observed.begin_channel_flush("dml_0_1v0", ServerId(node), ts);
        assert!(begin(5, 10));
        assert!(!begin(5, 10) && !begin(5, 9), "it knows of a later one");
        assert!(begin(5, 11));
        assert!(begin(6, 11), "another node does not");
        observed.forget_channel_flush("dml_0_1v0", ServerId(6), 10);
        assert!(!begin(6, 11), "that was another flush");
        observed.forget_channel_flush("dml_0_1v0", ServerId(6), 11);
        assert!(begin(6, 11));
    }
}
