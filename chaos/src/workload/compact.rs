//! Compacts the history behind the followers, so that compaction happens beside everything else.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proto::etcd;
use rand::rngs::StdRng;

use super::{PATIENCE, Setting, any_node};
use crate::client::within;

/// Between two compactions.
const EVERY: Duration = Duration::from_secs(2);
/// What every follower had shown so long ago, and so many revisions less, is compacted: the watches
/// that begin in the near past begin behind that.
const AGE: Duration = Duration::from_secs(8);
const BEHIND: i64 = 600;

/// One client until the run drains.
pub async fn run(mut setting: Setting, mut random: StdRng) {
    let mut shown: VecDeque<(Instant, i64)> = VecDeque::new();
    while setting.phase.is_running() {
        setting.phase.pause(EVERY).await;
        let now = Instant::now();
        shown.push_back((now, setting.recorder.shown_by_all(setting.nodes.len())));
        while shown.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= AGE) {
            shown.pop_front();
        }
        let Some((_, revision)) = shown.front().filter(|(at, _)| now.duration_since(*at) >= AGE)
        else {
            continue;
        };
        let revision = revision - BEHIND;
        if revision <= setting.recorder.compacted() {
            continue;
        }
        // Noted before it is asked: an answer that is lost may still have been carried out.
        setting.recorder.compacts(revision);
        let node = &setting.nodes[any_node(&setting, &mut random)];
        let request = etcd::CompactionRequest { revision, physical: false };
        let _ = within(PATIENCE, node.kv().compact(request)).await;
    }
}
