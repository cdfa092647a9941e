//! Channels: until a data node consumes them, or they are gone.

use statemachine::channel::ChannelState;
use statemachine::session::Role;
use statemachine::view::ServerId;

use super::super::InspectError;
use super::super::list::node;
use super::{Line, Scene, is_alive};

pub(super) fn of(scene: &Scene<'_>, name: &str) -> Result<Vec<Line>, InspectError> {
    let assignments = scene.views.assignments();
    if assignments.get(name).is_none() {
        return Err(InspectError::NotFound(format!("there is no channel `{name}`")));
    }
    let mut lines = owner(scene, name);
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
