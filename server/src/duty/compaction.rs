//! Gives up old revisions: keeps the last so many *and* the last so long, whichever is more, as long
//! as there is room.
//!
//! Where the quota is tight, room comes first. From half of the quota on age does not count any
//! more. From three quarters on the number of revisions does not count either, nor does who watches:
//! history goes, oldest first, until half of the quota is free or no history is left.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::quorate::command::Kind;
use proto::{etcd, quorate};
use raft::{Node, Tenure};
use statemachine::{Rejection, State};
use tokio::time::Instant;

use super::DutyOptions;
use super::driver::{Duty, DutyError};
use crate::rpc::peer::Topic;
use crate::tasks;

/// Beyond so many kept revisions their age does not count any more.
const KEPT_REVISIONS_MAX: i64 = 10_000_000;
/// Compaction waits so long for watchers that still read what it would take.
const WATCHERS_WAIT_MAX: Duration = Duration::from_secs(600);
/// History below this part of the quota is not worth giving up: where live keys alone take more than
/// three quarters, it would be given up in every round and free nothing to speak of.
const HISTORY_PART_MIN: u64 = 64;
/// How often the fill level is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Compaction {
    node: Node,
    period: Duration,
    /// The last full round.
    rounded: Option<Instant>,
    ages: Ages,
    /// Since when watchers hold compaction back.
    held_since: Option<Instant>,
}

/// What the state says about its history.
#[derive(Clone, Copy, Debug)]
struct Kept {
    newest: i64,
    compacted: i64,
    retention_revisions: i64,
    retention: Duration,
    fill: Fill,
}

/// How much of the quota is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fill {
    /// 0: none.
    quota_bytes: u64,
    logical_bytes: u64,
    /// The part of it that compaction could free.
    history_bytes: u64,
}

impl Fill {
    /// Age does not count any more.
    fn is_tight(self) -> bool {
        self.quota_bytes != 0 && self.logical_bytes > self.quota_bytes / 2
    }

    /// What has to be freed now, whatever history is kept for.
    fn pressing_bytes(self) -> Option<u64> {
        let is_pressing = self.quota_bytes != 0
            && self.logical_bytes > self.quota_bytes / 4 * 3
            && self.history_bytes > self.quota_bytes / HISTORY_PART_MIN;
        is_pressing.then(|| self.logical_bytes - self.quota_bytes / 2)
    }
}

impl Compaction {
    pub(super) fn new(node: Node, options: &DutyOptions) -> Compaction {
        Compaction {
            node,
            period: options.compaction_period,
            rounded: None,
            ages: Ages::default(),
            held_since: None,
        }
    }

    fn kept(&self) -> Kept {
        self.node.local_view().read(|state| {
            let settings = state.settings();
            Kept {
                newest: state.revision(),
                compacted: state.compacted_revision(),
                retention_revisions: i64::try_from(settings.retention_revisions)
                    .unwrap_or(i64::MAX),
                retention: Duration::from_millis(settings.retention_ms),
                fill: Fill {
                    quota_bytes: settings.quota_bytes,
                    logical_bytes: state.logical_bytes(),
                    history_bytes: state.reclaimable().bytes(),
                },
            }
        })
    }

    /// Gives up so much of history that the fill level is no longer pressing.
    async fn relieve(&self, tenure: &Tenure, fill: Fill, bytes: u64) -> Result<(), DutyError> {
        let (reclaimable, store) = self.node.local_view().pin(State::reclaimable);
        let search = tasks::spawn_blocking(move || reclaimable.revision_that_frees(&store, bytes));
        let revision = search.await.map_err(|_panicked| DutyError::Outcome)??;
        let Fill { quota_bytes, logical_bytes, history_bytes } = fill;
        tracing::warn!(
            revision,
            quota_bytes,
            logical_bytes,
            history_bytes,
            "quota is tight: history is given up before its retention is over"
        );
        self.compact(tenure, revision).await
    }

    async fn compact(&self, tenure: &Tenure, revision: i64) -> Result<(), DutyError> {
        let compact = etcd::CompactionRequest { revision, physical: false };
        let command = quorate::Command { fence: None, kind: Some(Kind::Compact(compact)) };
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        match self.node.propose_fenced(tenure, command, deadline).await?.outcome {
            Ok(_) => {
                tracing::info!(revision, "history compacted");
                Ok(())
            }
            // A client was faster.
            Err(Rejection::Compacted { .. }) => Ok(()),
            Err(rejection) => Err(rejection.into()),
        }
    }

    /// The lowest revision that watchers of any node still read. A node that does not answer
    /// keeps nothing back: it may be gone for good.
    async fn watch_need(&self) -> Option<i64> {
        let members: Vec<u64> =
            self.node.status().borrow().members.iter().map(|member| member.id).collect();
        let body = Bytes::from(quorate::WatchNeedRequest {}.encode_to_vec());
        let mut need: Option<i64> = None;
        for member in members {
            let deadline = Instant::now() + ASK_TIMEOUT;
            let answer =
                self.node.ask(member, Topic::WatchNeed.into(), body.clone(), deadline).await;
            let answer = answer.ok().and_then(|body| quorate::WatchNeedAnswer::decode(body).ok());
            if let Some(revision) = answer.and_then(|answer| answer.revision) {
                need = Some(need.map_or(revision, |need| need.min(revision)));
            }
        }
        need
    }
}

impl Duty for Compaction {
    const NAME: &'static str = "duty-compaction";

    fn period(&self) -> Duration {
        self.period.min(LOOK_PERIOD)
    }

    async fn round(&mut self, tenure: &Tenure) -> Result<(), DutyError> {
        let now = Instant::now();
        let kept = self.kept();
        if let Some(bytes) = kept.fill.pressing_bytes() {
            return self.relieve(tenure, kept.fill, bytes).await;
        }
        if self.rounded.is_some_and(|rounded| rounded + self.period > now) {
            return Ok(());
        }
        self.rounded = Some(now);
        self.ages.note(now, kept.newest, kept.retention);
        let wanted = target(kept, self.ages.newest_older_than(now, kept.retention));
        if wanted <= kept.compacted {
            return Ok(());
        }
        let need = self.watch_need().await;
        let revision = yield_to_watchers(wanted, need, &mut self.held_since, now);
        if revision <= kept.compacted {
            return Ok(());
        }
        self.compact(tenure, revision).await
    }
}

/// The revision below which nothing need be kept.
fn target(kept: Kept, by_age: Option<i64>) -> i64 {
    let by_count = kept.newest.saturating_sub(kept.retention_revisions);
    let by_count_alone = kept.fill.is_tight() || kept.newest - kept.compacted > KEPT_REVISIONS_MAX;
    if by_count_alone { by_count } else { by_count.min(by_age.unwrap_or(0)) }
}

/// Holds back for watchers, but not for ever: then they are canceled as compacted.
fn yield_to_watchers(
    wanted: i64,
    need: Option<i64>,
    held_since: &mut Option<Instant>,
    now: Instant,
) -> i64 {
    match need {
        Some(need) if need < wanted => {
            let since = *held_since.get_or_insert(now);
            if now - since < WATCHERS_WAIT_MAX { need } else { wanted }
        }
        Some(_) | None => {
            *held_since = None;
            wanted
        }
    }
}

/// Which revision was the newest at which time; forgotten with the tenure, so a new leader waits
/// for the whole retention before it trusts an age.
#[derive(Debug, Default)]
struct Ages {
    samples: VecDeque<(Instant, i64)>,
}

impl Ages {
    fn note(&mut self, now: Instant, revision: i64, retention: Duration) {
        self.samples.push_back((now, revision));
        // The newest sample that is old enough says it all.
        while self.samples.get(1).is_some_and(|(at, _)| *at + retention <= now) {
            self.samples.pop_front();
        }
    }

    fn newest_older_than(&self, now: Instant, age: Duration) -> Option<i64> {
        let (at, revision) = *self.samples.front()?;
        (at + age <= now).then_some(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(newest: i64) -> Kept {
        Kept {
            newest,
            compacted: 0,
            retention_revisions: 100,
            retention: Duration::from_secs(600),
            fill: filled(0, 0),
        }
    }

    /// Percent of a quota of 6,400 bytes.
    fn filled(logical: u64, history: u64) -> Fill {
        Fill { quota_bytes: 6_400, logical_bytes: logical * 64, history_bytes: history * 64 }
    }

    #[test]
    fn the_longer_of_both_retentions_counts() {
        assert_eq!(target(kept(1_000), Some(950)), 900, "100 revisions are kept");
        assert_eq!(target(kept(1_000), Some(300)), 300, "ten minutes are kept");
        assert_eq!(target(kept(1_000), None), 0, "no age is known yet");
        assert!(target(kept(50), Some(50)) <= 0);
    }

    #[test]
    fn age_does_not_count_where_space_runs_out() {
        let tight = Kept { fill: filled(51, 0), ..kept(1_000) };
        assert_eq!(target(tight, None), 900);
        assert_eq!(target(kept(10_000_200), Some(5)), 10_000_100);
    }

    #[test]
    fn history_goes_before_the_quota_is_full() {
        assert_eq!(filled(75, 70).pressing_bytes(), None);
        assert_eq!(
            filled(76, 70).pressing_bytes(),
            Some(26 * 64),
            "half of the quota is free then"
        );
        assert_eq!(filled(99, 2).pressing_bytes(), Some(49 * 64), "as much as there is");
        assert_eq!(filled(99, 1).pressing_bytes(), None, "live keys take it: nothing would help");
        let unbounded = Fill { quota_bytes: 0, ..filled(99, 90) };
        assert_eq!((unbounded.pressing_bytes(), unbounded.is_tight()), (None, false));
    }

    #[test]
    fn ages_come_from_samples_of_this_tenure() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let retention = 10 * minute;
        let mut ages = Ages::default();
        for m in 0..20_u32 {
            ages.note(start + m * minute, i64::from(m) * 10, retention);
        }
        let now = start + 19 * minute;
        assert_eq!(ages.newest_older_than(now, retention), Some(90));
        let mut young = Ages::default();
        young.note(start, 7, retention);
        assert_eq!(young.newest_older_than(start + minute, retention), None);
    }

    #[test]
    fn watchers_hold_compaction_back_for_a_while() {
        let start = Instant::now();
        let mut held = None;
        assert_eq!(yield_to_watchers(900, Some(500), &mut held, start), 500);
        let soon = start + Duration::from_secs(599);
        assert_eq!(yield_to_watchers(950, Some(500), &mut held, soon), 500);
        let late = start + Duration::from_secs(600);
        assert_eq!(yield_to_watchers(960, Some(500), &mut held, late), 960);
        assert_eq!(yield_to_watchers(960, None, &mut held, late), 960);
        assert_eq!(held, None);
    }
}
