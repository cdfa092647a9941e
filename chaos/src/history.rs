//! What clients saw: every operation with its two moments, and every answer of every watch.
//!
//! Each written value carries a serial that is used once. So a value that is read names the write
//! that it came from, and a write that happened twice is seen.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use proto::etcd;

use crate::numbers::micros;

/// Names one write for ever.
pub type Serial = u64;

/// Keys below this are plain registers: one key an operation, no lease.
pub const REGISTERS: &str = "reg/";

/// `return_us` of an operation whose end nobody saw.
pub const NEVER_US: u64 = u64::MAX;

/// A key-value pair as a client saw it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    pub key: String,
    pub serial: Serial,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

impl Seen {
    /// Reads the serial out of the value; 0, which nobody writes, where the value is none of ours.
    #[must_use]
    pub fn parse(pair: &etcd::KeyValue) -> Seen {
        Seen {
            key: String::from_utf8_lossy(&pair.key).into_owned(),
            serial: parse_value(&pair.value).unwrap_or(0),
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            version: pair.version,
            lease: pair.lease,
        }
    }
}

/// The value that carries `serial`, padded to at least `n_bytes`.
#[must_use]
pub fn value_of(serial: Serial, n_bytes: usize) -> String {
    let mut value = format!("{serial}:");
    while value.len() < n_bytes {
        value.push('.');
    }
    value
}

fn parse_value(value: &[u8]) -> Option<Serial> {
    let end = value.iter().position(|byte| *byte == b':')?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

/// What an operation asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Asked {
    Put {
        key: String,
        serial: Serial,
        lease: i64,
    },
    /// Several puts in one transaction.
    PutMany {
        puts: Vec<(String, Serial)>,
    },
    /// Put where the value's serial is the expected one (`None`: where there is no such key).
    Swap {
        key: String,
        expected: Option<Serial>,
        serial: Serial,
    },
    Delete {
        key: String,
    },
    /// One key, or all that begin with `key`.
    Read {
        key: String,
        prefix: bool,
        serializable: bool,
    },
    /// Revoke deletes what is attached.
    Revoke {
        lease: i64,
    },
}

/// What came back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Written {
        revision: i64,
    },
    /// `found`: what the failed branch read.
    Swapped {
        revision: i64,
        succeeded: bool,
        found: Option<Seen>,
    },
    Deleted {
        revision: i64,
        n_deleted: i64,
    },
    Read {
        revision: i64,
        found: Vec<Seen>,
    },
}

impl Answer {
    /// The revision in the header.
    #[must_use]
    pub fn revision(&self) -> i64 {
        match self {
            Answer::Written { revision }
            | Answer::Swapped { revision, .. }
            | Answer::Deleted { revision, .. }
            | Answer::Read { revision, .. } => *revision,
        }
    }
}

/// One operation. Without an answer its fate is unknown: it may have happened, then or later.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operation {
    pub node: usize,
    pub call_us: u64,
    /// [`NEVER_US`] where no answer came.
    pub return_us: u64,
    pub asked: Asked,
    pub answer: Option<Answer>,
}

/// A change that a watch showed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    pub revision: i64,
    pub key: String,
    /// `None`: deleted.
    pub put: Option<Seen>,
    pub previous: Option<Seen>,
}

impl Change {
    /// Reads an event. A delete that carries more than its key and revision is kept as a put, so
    /// that the checkers refuse it.
    #[must_use]
    pub fn parse(event: &etcd::Event) -> Change {
        let pair = event.kv.clone().unwrap_or_default();
        let is_bare = pair.value.is_empty() && pair.version == 0 && pair.create_revision == 0;
        let is_delete = event.r#type == etcd::event::EventType::Delete as i32 && is_bare;
        let seen = Seen::parse(&pair);
        Change {
            revision: pair.mod_revision,
            key: seen.key.clone(),
            put: (!is_delete).then_some(seen),
            previous: event.prev_kv.as_ref().map(Seen::parse),
        }
    }
}

/// One answer of a watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchBatch {
    pub at_us: u64,
    pub header_revision: i64,
    /// The highest revision up to which a compaction had been asked for when it came.
    pub compaction_asked: i64,
    pub changes: Vec<Change>,
}

/// One watch from its creation to its end; a resumed watch is a new one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchRun {
    pub watcher: String,
    pub node: usize,
    /// Everything where empty.
    pub prefix: String,
    pub start_revision: i64,
    pub with_previous: bool,
    pub batches: Vec<WatchBatch>,
}

impl WatchRun {
    /// True where a watch that shows a part may end as compacted: a compaction of at most
    /// `asked` overtook it. One that follows everything is never overtaken: it is waited for.
    #[must_use]
    pub fn is_compacted(&self, compact_revision: i64, asked: i64) -> bool {
        let shown = self.batches.last().map_or(self.start_revision - 1, |it| it.header_revision);
        let follows = self.watcher.starts_with("follower");
        !follows && shown < compact_revision && compact_revision <= asked
    }
}

/// A lease whose owner noted when it last asked for its life and was heard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaseRun {
    pub lease: i64,
    pub ttl_s: i64,
    /// When the last request that prolonged it was *sent*: it lives from then, or later.
    pub renewed_us: u64,
    /// Set where the owner asked to revoke it, whether or not that was answered.
    pub revoke_asked: bool,
    /// When a keep-alive was told that the lease is gone.
    pub denied_us: Option<u64>,
}

/// Everything that the run recorded.
#[derive(Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    pub watches: Vec<WatchRun>,
    pub leases: Vec<LeaseRun>,
    /// What a workload saw that no right server shows.
    pub complaints: Vec<String>,
}

/// Where many clients record at once.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    serials: AtomicU64,
    /// Counts answers, for the progress line.
    pub n_answered: AtomicU64,
    /// The highest revision that any answer showed.
    revision: AtomicU64,
    /// The highest revision up to which a compaction was asked for.
    compacted: AtomicI64,
    /// What the follower of each node has shown.
    shown: Mutex<BTreeMap<usize, i64>>,
    history: Mutex<History>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            start: Instant::now(),
            serials: AtomicU64::new(1),
            n_answered: AtomicU64::new(0),
            revision: AtomicU64::new(1),
            compacted: AtomicI64::new(0),
            shown: Mutex::default(),
            history: Mutex::default(),
        }
    }
}

impl Recorder {
    /// Microseconds since the run began, on the monotonic clock.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        micros(self.start.elapsed())
    }

    /// A serial that nobody got before.
    pub fn serial(&self) -> Serial {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// The highest revision seen in an answer.
    #[must_use]
    pub fn revision(&self) -> i64 {
        i64::try_from(self.revision.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
    }

    /// The highest revision up to which a compaction was asked for.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Relaxed)
    }

    /// A compaction up to `revision` is about to be asked for.
    pub fn compacts(&self, revision: i64) {
        self.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// The follower of a node has shown everything up to `revision`.
    pub fn follower_showed(&self, node: usize, revision: i64) {
        self.shown.lock().expect("no thread panics with the lock").insert(node, revision);
    }

    /// What the followers of all nodes have shown.
    #[must_use]
    pub fn shown_by_all(&self, n_nodes: usize) -> i64 {
        let shown = self.shown.lock().expect("no thread panics with the lock");
        if shown.len() < n_nodes { 0 } else { shown.values().copied().min().unwrap_or(0) }
    }

    pub fn operation(&self, operation: Operation) {
        if let Some(answer) = &operation.answer {
            self.n_answered.fetch_add(1, Ordering::Relaxed);
            let revision = u64::try_from(answer.revision()).unwrap_or(0);
            self.revision.fetch_max(revision, Ordering::Relaxed);
        }
        self.with(|history| history.operations.push(operation));
    }

    pub fn watch(&self, run: WatchRun) {
        self.with(|history| history.watches.push(run));
    }

    pub fn lease(&self, run: LeaseRun) {
        self.with(|history| history.leases.push(run));
    }

    pub fn complain(&self, text: String) {
        self.with(|history| history.complaints.push(text));
    }

    /// Takes out what was recorded so far.
    #[must_use]
    pub fn take(&self) -> History {
        self.with(std::mem::take)
    }

    fn with<T>(&self, body: impl FnOnce(&mut History) -> T) -> T {
        let mut history = self.history.lock().expect("no recorder panics while it holds the lock");
        body(&mut history)
    }
}

/// Every change of the run in order of revision, as all watches together showed it.
#[derive(Debug, Default)]
pub struct Timeline {
    pub by_revision: BTreeMap<i64, BTreeMap<String, Change>>,
    by_key: BTreeMap<String, Vec<(i64, Option<Seen>)>>,
}

impl Timeline {
    /// Merges what all watches showed. Two watches that disagree are reported by `conflict`.
    pub fn build(watches: &[WatchRun], mut conflict: impl FnMut(String)) -> Timeline {
        let mut timeline = Timeline::default();
        for watch in watches {
            for change in watch.batches.iter().flat_map(|batch| &batch.changes) {
                let changes = timeline.by_revision.entry(change.revision).or_default();
                match changes.get(&change.key) {
                    None => {
                        let change = Change { previous: None, ..change.clone() };
                        changes.insert(change.key.clone(), change);
                    }
                    Some(known) if known.put == change.put => {}
                    Some(known) => conflict(format!(
                        "watches disagree on {} at revision {}: {:?} and, by {}, {:?}",
                        change.key, change.revision, known.put, watch.watcher, change.put
                    )),
                }
            }
        }
        for (revision, changes) in &timeline.by_revision {
            for (key, change) in changes {
                let versions = timeline.by_key.entry(key.clone()).or_default();
                versions.push((*revision, change.put.clone()));
            }
        }
        timeline
    }

    /// The last revision.
    #[must_use]
    pub fn last_revision(&self) -> i64 {
        self.by_revision.last_key_value().map_or(1, |(revision, _)| *revision)
    }

    /// What `key` held at `revision`.
    #[must_use]
    pub fn at(&self, key: &str, revision: i64) -> Option<&Seen> {
        let versions = self.by_key.get(key)?;
        let after = versions.partition_point(|(written, _)| *written <= revision);
        versions[..after].last()?.1.as_ref()
    }

    /// All that began with `prefix` at `revision`, in order of keys.
    #[must_use]
    pub fn all_at(&self, prefix: &str, revision: i64) -> Vec<&Seen> {
        self.by_key
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, _)| self.at(key, revision))
            .collect()
    }

    /// Changes of keys that begin with `prefix`, from `first` to `last` revision, in order.
    pub fn changes<'a>(
        &'a self,
        prefix: &'a str,
        first: i64,
        last: i64,
    ) -> impl Iterator<Item = &'a Change> {
        let range = if first <= last { first..last.saturating_add(1) } else { 0..0 };
        self.by_revision
            .range(range)
            .flat_map(|(_, changes)| changes.values())
            .filter(move |change| change.key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::{WatchBatch, WatchRun};

    #[test]
    fn only_a_watch_of_a_part_is_overtaken_by_a_compaction_that_was_asked_for() {
        let run = |watcher: &str, shown: Option<i64>| WatchRun {
            watcher: watcher.to_owned(),
            node: 0,
            prefix: String::new(),
            start_revision: 10,
            with_previous: false,
            batches: shown
                .map(|header_revision| WatchBatch {
                    at_us: 0,
                    header_revision,
                    compaction_asked: 0,
                    changes: vec![],
                })
                .into_iter()
                .collect(),
        };
        assert!(run("hopper 1", None).is_compacted(10, 20));
        assert!(run("hopper 1", Some(15)).is_compacted(16, 20));
        assert!(!run("hopper 1", Some(15)).is_compacted(15, 20), "it had shown that already");
        assert!(!run("hopper 1", None).is_compacted(21, 20), "no client asked for that");
        assert!(!run("follower of node 1", None).is_compacted(10, 20));
    }
}
