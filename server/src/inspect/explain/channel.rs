//! Channels: until a data node consumes them, or they are gone.

use std::time::Duration;

use statemachine::channel::ChannelState;
use statemachine::session::Role;
use statemachine::view::ServerId;

use super::super::InspectError;
use super::super::list::node;
use super::{Line, Scene, is_alive};

/// A data node reports twice a second; this is long enough for a new leader to hear from it.
const SILENT_MS: u64 = 10_000;

/// `silence` is for how long its data node has not reported, where that is known.
pub(super) fn of(
    scene: &Scene<'_>,
    name: &str,
    silence: Option<Duration>,
) -> Result<Vec<Line>, InspectError> {
    let assignments = scene.views.assignments();
    let Some(assignment) = assignments.get(name) else {
        return Err(InspectError::NotFound(format!("there is no channel `{name}`")));
    };
    let mut lines = owner(scene, name);
    if let Some(silence) = silence.filter(|_| assignment.node != ServerId::NOBODY) {
        lines.push(reports(assignment.node, silence, scene.now_ms));
    }
    if assignments.removal(name) == Some(true) {
        lines.push(Line::waits(
            "its collection is dropped: the channel ends when its node lets go",
            0,
            "the channel's data node",
        ));
    }
    for plan in scene.views.plans().running_on(name) {
        lines.push(Line::waits(
            format!("compaction plan {plan} runs on it; no move before it ends"),
            0,
            format!("`quorate explain compaction {plan}`"),
        ));
    }
    if let Some(checkpoint) = assignments.checkpoint(name) {
        let at = crate::coordinator::tso::physical_ms(checkpoint.position.timestamp);
        let late = scene.now_ms.saturating_sub(at) > 15 * 60 * 1000;
        lines.push(Line::judge(
            !late,
            "its checkpoint is less than 15 minutes behind",
            at,
            "the channel's data node writes what it holds",
        ));
    }
    Ok(lines)
}

/// Whether the data node is at work: it may hang while its session lives.
fn reports(owner: ServerId, silence: Duration, now_ms: u64) -> Line {
    let silent_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
    Line::judge(
        silent_ms < SILENT_MS,
        "its data node reports what it consumes",
        now_ms.saturating_sub(silent_ms),
        &format!("data node {}: it hangs, or it does not reach the leader", node(owner)),
    )
}

/// Whether somebody consumes the channel.
pub(super) fn owner(scene: &Scene<'_>, name: &str) -> Vec<Line> {
    let Some(assignment) = scene.views.assignments().get(name) else {
        return vec![Line::waits(
            format!("channel {name} is assigned"),
            0,
            "RootCoord (WatchChannels), or the take-over of another coordinator's channels",
        )];
    };
    let owner = assignment.node;
    if owner == ServerId::NOBODY {
        let n_nodes = scene.views.sessions().nodes(Role::DataNode).count();
        let who = match n_nodes {
            0 => "an operator: start a data node",
            _ => "the leading coordinator",
        };
        return vec![Line::waits(
            format!("channel {name} has a data node ({n_nodes} are there)"),
            0,
            who,
        )];
    }
    let mut lines = vec![Line::judge(
        is_alive(scene.views, owner),
        format!("data node {} of channel {name} has a session", node(owner)),
        0,
        "the leading coordinator gives the channel to another node",
    )];
    let Some(watch) = scene.views.channels().get(owner, name) else {
        lines.push(Line::waits("the data node is told to watch", 0, "the leading coordinator"));
        return lines;
    };
    let since = u64::try_from(watch.start_s).unwrap_or(0) * 1000;
    lines.push(match watch.state {
        ChannelState::WatchSuccess => Line::met("the data node watches the channel"),
        ChannelState::ToWatch => Line::waits(
            format!("the data node watches the channel (progress {})", watch.progress),
            since,
            format!(
                "data node {}; it is told again, and after {} s of silence another one is",
                node(owner),
                scene.settings.watch_timeout.as_secs()
            ),
        ),
        ChannelState::ToRelease => Line::waits(
            "the data node lets go of the channel",
            since,
            format!("data node {}", node(owner)),
        ),
        ChannelState::WatchFailure
        | ChannelState::ReleaseSuccess
        | ChannelState::ReleaseFailure => Line::waits(
            format!("the answer {:?} of the data node is acted on", watch.state),
            since,
            "the leading coordinator",
        ),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_data_node_that_is_silent_is_said_to_be() {
        let now_ms = 1_000_000;
        let line = |seconds| reports(ServerId(7), Duration::from_secs(seconds), now_ms);
        assert!(matches!(line(9).verdict, Verdict::Met));
        let silent = line(60);
        assert!(matches!(silent.verdict, Verdict::Waits));
        assert_eq!(silent.since_ms, now_ms - 60_000);
        assert!(silent.who.contains('7'), "{}", silent.who);
    }
}
