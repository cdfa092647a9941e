//! What a node does about its own room, and a leader about that of the voters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::{RoomLevel, RoomView};
use crate::hand_over;
use crate::node::Inner;

const PERIOD: Duration = Duration::from_millis(100);
/// After a hand-over that did not succeed, before the next one.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(2);
/// A node without room campaigns all the same when nobody has led for so many election timeouts:
/// nodes with room would have been elected long before.
const LEADERLESS_TIMEOUTS: u32 = 10;

/// What the leader knows of the room of a voter.
#[derive(Clone, Copy, Debug)]
struct Voter {
    id: u64,
    /// Whether it answered lately.
    answers: bool,
    /// `None` if it never reported any, which counts as room.
    level: Option<RoomLevel>,
    /// The last entry that it has stored.
    matched: u64,
}

impl Voter {
    fn has_room(&self) -> bool {
        self.answers && self.level.is_none_or(|level| level == RoomLevel::Plenty)
    }
}

/// Whether room is what keeps entries from being committed: fewer than a majority have any, while
/// a majority answers.
fn is_tight(voters: &[Voter]) -> bool {
    let majority = voters.len() / 2 + 1;
    let with_room = voters.iter().filter(|voter| voter.has_room()).count();
    let without = voters.iter().filter(|voter| voter.answers && !voter.has_room()).count();
    without > 0 && with_room < majority
}

/// The voter with room that has most of the log.
fn successor(voters: &[Voter], own: u64) -> Option<u64> {
    let others = voters.iter().filter(|voter| voter.id != own && voter.has_room());
    others.max_by_key(|voter| voter.matched).map(|voter| voter.id)
}

/// Runs until the node stops.
pub(crate) async fn watch(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leaderless_since: Option<Instant> = None;
    let mut campaigns = true;
    let mut hand_over_at = Instant::now();
    loop {
        tick.tick().await;
        let level = node.storage.room.level();
        let leadership = *node.leadership.borrow();
        if leadership.leader.is_some() {
            leaderless_since = None;
        }
        let since = *leaderless_since.get_or_insert_with(Instant::now);
        let is_leaderless = leadership.leader.is_none()
            && since.elapsed() > node.timers.election_max * LEADERLESS_TIMEOUTS;
        let may_campaign = level == RoomLevel::Plenty || is_leaderless;
        if may_campaign != campaigns {
            campaigns = may_campaign;
            node.engine.runtime_config().elect(campaigns);
        }
        if leadership.mine.is_none() {
            node.storage.room.set_tight(false);
            continue;
        }
        let voters = voters(&node);
        node.storage.room.set_tight(is_tight(&voters));
        if level == RoomLevel::Plenty || Instant::now() < hand_over_at {
            continue;
        }
        let Some(target) = successor(&voters, node.identity.node) else {
            continue;
        };
        tracing::warn!(node = target, "own disk is full, handing the lead over");
        let deadline = Instant::now() + node.timers.election_max * 2;
        if let Err(error) = hand_over::transfer(&node, Some(target), deadline).await {
            tracing::warn!(error = %error, "leadership not handed over");
        }
        hand_over_at = Instant::now() + HAND_OVER_PAUSE;
    }
}

fn voters(node: &Inner) -> Vec<Voter> {
    let own = node.identity.node;
    let reported = node.peers.rooms();
    let status = node.status.borrow();
    let voter = |id: u64| {
        let progress = status.peers.get(&id);
        Voter {
            id,
            answers: id == own || hand_over::is_healthy(node, id),
            level: match id == own {
                true => Some(node.storage.room.level()),
                false => reported.get(&id).map(|room| room.level),
            },
            matched: progress.map_or(0, |progress| progress.matched),
        }
    };
    status.voters().map(|member| voter(member.id)).collect()
}

/// The room of this node, and on a leader that of the others as they last reported it.
pub(crate) fn rooms(node: &Inner) -> BTreeMap<u64, RoomView> {
    // What an earlier leadership heard may be long out of date.
    let leads = node.leadership.borrow().mine.is_some();
    let mut rooms = if leads { node.peers.rooms() } else { BTreeMap::new() };
    rooms.insert(node.identity.node, node.storage.room.view());
    rooms
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Option<RoomLevel> = Some(RoomLevel::Plenty);
    const LOW: Option<RoomLevel> = Some(RoomLevel::Low);

    fn voters(levels: &[(bool, Option<RoomLevel>)]) -> Vec<Voter> {
        let voter = |(at, (answers, level)): (usize, &(bool, Option<RoomLevel>))| Voter {
            id: at as u64 + 1,
            answers: *answers,
            level: *level,
            matched: at as u64,
        };
        levels.iter().enumerate().map(voter).collect()
    }

    #[test]
    fn a_cluster_is_tight_when_room_is_what_a_majority_lacks() {
        let up = true;
        let down = false;
        assert!(!is_tight(&voters(&[(up, PLENTY), (up, PLENTY), (up, LOW)])));
        assert!(is_tight(&voters(&[(up, PLENTY), (up, LOW), (up, LOW)])));
        assert!(is_tight(&voters(&[(up, LOW)])));
        assert!(!is_tight(&voters(&[(up, PLENTY), (up, None), (up, LOW)])), "unknown is room");
        // One that does not answer cannot make up for one without room.
        assert!(is_tight(&voters(&[(up, PLENTY), (down, PLENTY), (up, LOW)])));
        // A lost majority is no matter of room.
        assert!(!is_tight(&voters(&[(up, PLENTY), (down, LOW), (down, LOW)])));
    }

    #[test]
    fn the_successor_has_room_and_most_of_the_log() {
        let up = true;
        assert_eq!(successor(&voters(&[(up, LOW), (up, PLENTY), (up, PLENTY)]), 1), Some(3));
        assert_eq!(successor(&voters(&[(up, LOW), (up, PLENTY), (up, LOW)]), 1), Some(2));
        assert_eq!(successor(&voters(&[(up, LOW), (up, LOW), (false, PLENTY)]), 1), None);
    }
}
