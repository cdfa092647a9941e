//! How long a data node may take to answer a command.
//!
//! It writes its answer just once, and forgets the channel when that fails: when the node of the cluster
//! that it talked to was killed at that moment, say. So silence may mean that it will never answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use statemachine::channel::ChannelState;
use statemachine::view::{Name, ServerId};

use super::seen::{Seen, SeenChannel};

/// Silence after which a data node is told again: twice the 15 s in which one that loads segments
/// tells of its progress (`dataNode.segment.watchEventTicklerInterval`).
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// More for each segment that the command lists: before it begins to load them, a data node asks for
/// all of them, which takes a twentieth of this.
const PER_SEGMENT: Duration = Duration::from_millis(2);
/// How much longer the silence may be with every time that the command was told again.
const TELL_AGAIN_GROWTH: u32 = 4;
/// Far above any time-out.
const GROWTHS_MAX: u32 = 8;

/// What a command that is not answered calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    TellAgain,
    GiveUp,
}

/// Since when commands are not answered.
#[derive(Debug, Default)]
pub(super) struct Patience {
    commands: BTreeMap<Name, Command>,
    nodes: BTreeMap<ServerId, Node>,
}

#[derive(Clone, Copy, Debug)]
struct Command {
    /// Of its key, which a data node that is at work writes again and again.
    revision: i64,
    since: Instant,
    /// It is to be told again, which changes the revision.
    is_overdue: bool,
    told_again: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The newest of its keys.
    revision: i64,
    since: Instant,
    /// How many it has not answered.
    n_commands: u32,
}

impl Patience {
    /// Takes note of what data nodes have written; once a round, before the verdicts.
    pub(super) fn listen(&mut self, seen: &Seen, now: Instant) {
        self.commands.retain(|channel, _| seen.has(channel));
        let mut nodes: BTreeMap<ServerId, Node> = BTreeMap::new();
        for channel in &seen.channels {
            let Some(key) = channel.key else { continue };
            let first = Node { revision: key.revision, since: now, n_commands: 0 };
            let node = nodes.entry(channel.node).or_insert(first);
            node.revision = node.revision.max(key.revision);
            node.n_commands += u32::from(matches!(
                key.state,
                Some(ChannelState::ToWatch | ChannelState::ToRelease)
            ));
        }
        for (id, node) in &mut nodes {
            let before = self.nodes.get(id).filter(|before| before.revision == node.revision);
            node.since = before.map_or(now, |before| before.since);
        }
        self.nodes = nodes;
    }

    /// On a channel with a command. A data node that is heard of works on its commands side by side,
    /// so each of many may take longer; all have `watch_timeout` at most.
    pub(super) fn verdict(
        &mut self,
        channel: &SeenChannel,
        watch_timeout: Duration,
        now: Instant,
    ) -> Verdict {
        let (revision, n_segments) =
            channel.key.map_or((0, 0), |key| (key.revision, key.n_segments));
        let first = Command { revision, since: now, is_overdue: false, told_again: 0 };
        let command = self.commands.entry(channel.channel.clone()).or_insert(first);
        if command.revision != revision {
            let told_again = command.told_again.saturating_add(u32::from(command.is_overdue));
            *command = Command { told_again, ..first };
        }
        let waits = now.saturating_duration_since(command.since);
        if waits >= watch_timeout {
            return Verdict::GiveUp;
        }
        let growth = TELL_AGAIN_GROWTH.pow(command.told_again.min(GROWTHS_MAX));
        let limit = (TELL_AGAIN + PER_SEGMENT * n_segments).saturating_mul(growth);
        let limit = match self.nodes.get(&channel.node) {
            Some(node) if now.saturating_duration_since(node.since) < limit => {
                limit.saturating_mul(node.n_commands)
            }
            _ => limit,
        };
        if waits < limit {
            return Verdict::Wait;
        }
        command.is_overdue = true;
        Verdict::TellAgain
    }

    /// The channel's command was carried out.
    pub(super) fn answered(&mut self, channel: &Name) {
        self.commands.remove(channel);
    }
}
