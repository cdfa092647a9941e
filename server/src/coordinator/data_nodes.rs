//! Data nodes that can be given something to do.

use std::collections::BTreeSet;

use statemachine::Views;
use statemachine::session::{Role, Session};
use statemachine::view::ServerId;

use super::settings::CoordinatorSettings;

/// Older data nodes speak another protocol.
const VERSION_MIN: [u32; 3] = [2, 2, 3];
/// Older ones lose rows where a channel moves while they consume it.
const BALANCED_MIN: [u32; 3] = [2, 3, 0];

/// Alive and not about to stop, by id.
pub(crate) fn usable(views: &Views) -> BTreeSet<ServerId> {
    let nodes = views.sessions().nodes(Role::DataNode);
    nodes.filter(|(_, session)| is_usable(session)).map(|(id, _)| id).collect()
}

/// Those of them that are to get something new: not those that are being drained, unless all are.
pub(crate) fn taking(views: &Views) -> BTreeSet<ServerId> {
    not_drained(usable(views), views.assignments().draining())
}

fn not_drained(usable: BTreeSet<ServerId>, draining: &BTreeSet<ServerId>) -> BTreeSet<ServerId> {
    if usable.is_subset(draining) {
        return usable;
    }
    usable.difference(draining).copied().collect()
}

/// Whether there are fewer than the operator wants: then what can wait does.
pub(crate) fn are_too_few(views: &Views, settings: &CoordinatorSettings) -> bool {
    usable(views).len() < settings.data_nodes_min
}

fn is_usable(session: &Session) -> bool {
    !session.stopping && is_at_least(&session.version, VERSION_MIN)
}

/// One of them is too old for channels to be moved for the sake of balance.
pub(crate) fn has_older_than_2_3(views: &Views) -> bool {
    let mut nodes = views.sessions().nodes(Role::DataNode);
    nodes.any(|(_, session)| !is_at_least(&session.version, BALANCED_MIN))
}

/// Alive, whatever they can do.
pub(crate) fn alive(views: &Views) -> BTreeSet<ServerId> {
    views.sessions().nodes(Role::DataNode).map(|(id, _)| id).collect()
}

fn is_at_least(version: &str, least: [u32; 3]) -> bool {
    let digits = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = digits.trim_start_matches('v').split('.').map(str::parse::<u32>);
    let mut next = || parts.next().and_then(Result::ok);
    match (next(), next(), next()) {
        (Some(major), Some(minor), Some(patch)) => [major, minor, patch] >= least,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use statemachine::view::ServerId;

    use super::{VERSION_MIN, is_at_least, not_drained};

    #[test]
    fn a_node_that_is_drained_gets_nothing_new_while_there_is_another() {
        let nodes = |ids: &[i64]| ids.iter().map(|id| ServerId(*id)).collect::<BTreeSet<_>>();
        assert_eq!(not_drained(nodes(&[1, 2, 3]), &nodes(&[2, 9])), nodes(&[1, 3]));
        assert_eq!(not_drained(nodes(&[1, 2]), &nodes(&[1, 2])), nodes(&[1, 2]));
        assert_eq!(not_drained(nodes(&[]), &nodes(&[2])), nodes(&[]));
    }

    #[test]
    fn versions_count_as_numbers() {
        let told: Vec<bool> =
            ["2.2.2", "2.2.3", "2.10.0", "2.3.5-dev", "v2.3.5", "", "2.3", "1.9.9", "latest"]
                .into_iter()
                .map(|version| is_at_least(version, VERSION_MIN))
                .collect();
        assert_eq!(told, [false, true, true, true, true, false, false, false, false]);
    }
}
