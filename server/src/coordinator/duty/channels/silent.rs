//! Channels of which nothing is heard although a data node says that it watches them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use statemachine::channel::ChannelState;
use statemachine::view::{Name, ServerId};

use super::seen::Seen;

/// A data node tells five times a second how far it has consumed a channel.
const SILENT_AFTER: Duration = Duration::from_secs(20);
/// Data nodes that are asked in one round: all are silent when the message queue is down.
const NODES_AT_ONCE: usize = 20;

/// Since when what is asked of a channel has not been answered by a tick.
#[derive(Debug, Default)]
pub(super) struct Silent {
    asked: BTreeMap<Name, Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Of the key that says that it is watched.
    revision: i64,
    at: Instant,
}

impl Silent {
    /// Watched channels to ask for, by data node: nothing was heard of them since the data node began
    /// to watch, or was asked last. `tick_age` is how long ago a channel was heard of.
    pub(super) fn take(
        &mut self,
        seen: &Seen,
        tick_age: impl Fn(&str) -> Option<Duration>,
        now: Instant,
    ) -> BTreeMap<ServerId, Vec<String>> {
        let mut silent: BTreeMap<ServerId, Vec<String>> = BTreeMap::new();
        let mut asked = BTreeMap::new();
        for channel in &seen.channels {
            let Some(key) = channel.key else { continue };
            if key.state != Some(ChannelState::WatchSuccess) || !seen.alive.contains(&channel.node)
            {
                continue;
            }
            let name = &channel.channel;
            let before = self.asked.get(name).filter(|before| before.revision == key.revision);
            let mut latest = before.copied().unwrap_or(Asked { revision: key.revision, at: now });
            let is_due = now.saturating_duration_since(latest.at) >= SILENT_AFTER;
            let has_room = silent.len() < NODES_AT_ONCE || silent.contains_key(&channel.node);
            if is_due && has_room && tick_age(name).is_none_or(|age| age >= SILENT_AFTER) {
                latest.at = now;
                silent.entry(channel.node).or_default().push(name.to_string());
            }
            asked.insert(name.clone(), latest);
        }
        self.asked = asked;
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::duty::channels::seen::{SeenChannel, SeenKey};

    fn seen(state: ChannelState, revision: i64) -> Seen {
        let node = ServerId(5);
        let key = SeenKey { state: Some(state), revision, n_segments: 0 };
        let channel = SeenChannel {
            channel: Name::from("a"),
            node,
            epoch: 1,
            is_removed: false,
            is_unserved: false,
            key: Some(key),
        };
        Seen { channels: vec![channel], alive: [node].into(), ..Seen::default() }
    }

    #[test]
    fn a_channel_is_asked_for_when_nothing_was_heard_for_long() {
        let mut silent = Silent::default();
        let start = Instant::now();
        let mut asks = |state, revision, at: u64, tick_age: Option<u64>| {
            let tick_age = |_: &str| tick_age.map(Duration::from_secs);
            let now = start + Duration::from_secs(at);
            !silent.take(&seen(state, revision), tick_age, now).is_empty()
        };
        let watched = ChannelState::WatchSuccess;
        assert!(!asks(watched, 1, 0, None), "it has just begun");
        assert!(!asks(watched, 1, 19, None));
        assert!(asks(watched, 1, 20, None));
        assert!(!asks(watched, 1, 21, None), "it was asked just now");
        assert!(!asks(watched, 1, 40, Some(19)), "it was heard of");
        assert!(asks(watched, 1, 41, Some(20)));
        assert!(!asks(watched, 2, 90, None), "it was watched anew");
        assert!(!asks(ChannelState::ToRelease, 3, 200, None), "it is on its way");
    }
}
