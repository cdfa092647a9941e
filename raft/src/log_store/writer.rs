//! The thread that writes the log: takes all that waits, makes it one batch, syncs once.
//!
//! Votes and entries go through the same batches in arrival order, so a later one can never be
//! durable before an earlier one.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use openraft::storage::IOFlushed;
use prost::Message;
use tokio::sync::oneshot;

use crate::convert::{log_id_to_proto, vote_to_proto};
use crate::failure::Area;
use crate::types::{TypeConfig, Vote};

use super::Shared;
use super::disk::{Fact, LogBatch, LogChange};
use super::entry_codec;
use super::queue::Job;

/// One synced batch takes at most about this much.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What to tell whom once the batch is durable.
enum Answer {
    Appended(IOFlushed<TypeConfig>),
    Voted(Vote, oneshot::Sender<io::Result<()>>),
}

impl Answer {
    fn send(self, result: io::Result<()>) {
        match self {
            Answer::Appended(done) => done.io_completed(result),
            // The caller may have gone away with the runtime; the vote is durable all the same.
            Answer::Voted(_, done) => drop(done.send(result)),
        }
    }
}

#[derive(Default)]
struct Fold {
    batch: LogBatch,
    answers: Vec<Answer>,
    /// Every change is synced before the next one is written: `wal_tail` counts on it.
    sync: bool,
    last_job: Option<u64>,
    last_index: Option<u64>,
    purged_below: Option<u64>,
    entries: u64,
    bytes: u64,
    stop: bool,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Index of the last entry that was given to the disk.
    last_index: Option<u64>,
    /// Purged, but not yet known to be durably so.
    reclaimable_below: Option<u64>,
    failed: Option<String>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, last_index: Option<u64>) -> Writer {
        Writer { shared, last_index, reclaimable_below: None, failed: None }
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let jobs = self.shared.queue.drain(BATCH_BYTES_MAX);
            let fold = self.fold(jobs);
            let stop = fold.stop;
            self.write(fold);
            if stop {
                return self.failed.map_or(Ok(()), |message| Err(io::Error::other(message)));
            }
        }
    }

    fn fold(&self, jobs: Vec<Job>) -> Fold {
        let mut fold = Fold { last_index: self.last_index, ..Fold::default() };
        for job in jobs {
            match job {
                Job::Append { number, entries, done } => {
                    for entry in entries {
                        let size = entry_codec::payload_bytes(&entry);
                        let mut row = Vec::with_capacity(entry_codec::OVERHEAD_BYTES + size);
                        entry_codec::encode(&entry, &mut row);
                        let index = entry.log_id.index;
                        fold.entries += 1;
                        fold.bytes += row.len() as u64;
                        fold.last_index = Some(index);
                        fold.batch.changes.push(LogChange::Put { index, row });
                    }
                    fold.last_job = Some(number);
                    fold.sync = true;
                    fold.answers.push(Answer::Appended(done));
                }
                Job::SaveVote { vote, done } => {
                    let value = vote_to_proto(&vote).encode_to_vec();
                    fold.batch.changes.push(LogChange::Record { fact: Fact::Vote, value });
                    fold.sync = true;
                    fold.answers.push(Answer::Voted(vote, done));
                }
                Job::Truncate { from, to } => {
                    fold.batch.changes.push(LogChange::Truncate { from, to });
                    fold.sync = true;
                    fold.last_index = from.checked_sub(1);
                }
                Job::Purge { from, upto } => {
                    let to = upto.index + 1;
                    let value = log_id_to_proto(&upto).encode_to_vec();
                    fold.batch.changes.push(LogChange::Record { fact: Fact::Purged, value });
                    fold.batch.changes.push(LogChange::Purge { from, to });
                    fold.last_index = fold.last_index.max(Some(upto.index));
                    fold.purged_below = Some(to);
                    fold.sync = true;
                }
                Job::Stop => {
                    fold.sync = true;
                    fold.stop = true;
                }
            }
        }
        fold
    }

    /// Notes the committed entry along with a sync that happens anyway.
    ///
    /// Never one beyond the entries of this or an earlier batch: openraft applies up to it at
    /// start, and refuses to start where an entry is missing.
    fn add_committed(&self, fold: &mut Fold) {
        let mut committed = self.shared.committed.lock();
        let Some(log_id) = committed.unsaved else {
            return;
        };
        if fold.sync && Some(log_id.index) <= fold.last_index {
            committed.unsaved = None;
            let value = log_id_to_proto(&log_id).encode_to_vec();
            fold.batch.changes.push(LogChange::Record { fact: Fact::Committed, value });
        }
    }

    fn write(&mut self, mut fold: Fold) {
        self.add_committed(&mut fold);
        if let Some(message) = &self.failed {
            let answers = std::mem::take(&mut fold.answers);
            return refuse(answers, message);
        }
        if fold.batch.changes.is_empty() && !fold.sync {
            return;
        }
        let metrics = &self.shared.metrics;
        let batch = std::mem::take(&mut fold.batch);
        let started = Instant::now();
        metrics.log_sync_now.start();
        let result = self.shared.disk.write(batch, fold.sync);
        metrics.log_sync_now.stop();
        if let Err(error) = result {
            return self.fail(fold.answers, &error);
        }
        self.last_index = fold.last_index;
        self.reclaimable_below = fold.purged_below.or(self.reclaimable_below);
        if fold.sync {
            metrics.log_sync.record(started.elapsed());
            metrics.log_batches.add(1);
            metrics.log_entries.add(fold.entries);
            metrics.log_bytes.add(fold.bytes);
        }
        self.publish(&fold);
        for answer in fold.answers {
            answer.send(Ok(()));
        }
        if fold.sync
            && let Some(below) = self.reclaimable_below.take()
            && let Err(error) = self.shared.disk.reclaim(below)
        {
            self.fail(Vec::new(), &error);
        }
    }

    /// Before anyone is told: what is durable must be seen as such by whoever asks next.
    fn publish(&self, fold: &Fold) {
        let shared = &self.shared;
        for answer in &fold.answers {
            if let Answer::Voted(vote, _) = answer {
                *shared.vote.lock() = Some(*vote);
            }
        }
        if fold.sync {
            shared.set_durable(fold.last_index);
        }
        if let Some(job) = fold.last_job {
            let mut log = shared.log.lock();
            log.tail.written(job);
            shared.metrics.log_tail_bytes.set(log.tail.size_bytes() as u64);
        }
        shared.metrics.log_queue_bytes.set(shared.queue.size_bytes() as u64);
    }

    fn fail(&mut self, answers: Vec<Answer>, error: &io::Error) {
        let failure = self.shared.on_failure.report(Area::Log, error.to_string());
        let message = failure.to_string();
        refuse(answers, &message);
        self.failed = Some(message);
    }
}

fn refuse(answers: Vec<Answer>, message: &str) {
    for answer in answers {
        answer.send(Err(io::Error::other(message.to_owned())));
    }
}
