//! What to do about the builds that have not ended, decided from the views alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use proto::milvus::common::IndexState;
use proto::quorate::BuildRef;
use statemachine::coordinator::index::view::Build;
use statemachine::session::Role;
use statemachine::view::{BuildId, ServerId, Views};

use crate::coordinator::allowed::Allowed;
use crate::coordinator::indexing;

/// A build, as an attempt at it left it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Attempt {
    pub(super) build: BuildRef,
    /// 0: nobody has tried yet.
    pub(super) version: i64,
    pub(super) node: ServerId,
    pub(super) needs_disk: bool,
}

impl Attempt {
    pub(super) fn id(&self) -> BuildId {
        BuildId(self.build.build)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at version {}", self.build.build, self.version)?;
        if self.version > 0 {
            write!(out, " on {}", self.node)?;
        }
        Ok(())
    }
}

/// Index nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    ready: BTreeSet<ServerId>,
    /// They finish what they have.
    stopping: BTreeSet<ServerId>,
    /// At addresses where none may be, with those.
    refused: BTreeMap<ServerId, String>,
    /// One that is ready builds indexes on disk.
    has_disk: bool,
}

impl Nodes {
    /// Those with a session at an allowed address, or the only one that the operator named.
    pub(super) fn of(views: &Views, bound: Option<ServerId>, allowed: &Allowed) -> Nodes {
        let mut nodes = Nodes::default();
        if let Some(bound) = bound {
            nodes.ready.insert(bound);
            // It tells itself what it can do.
            nodes.has_disk = true;
            return nodes;
        }
        for (node, session) in views.sessions().nodes(Role::IndexNode) {
            if !allowed.permits(&session.address) {
                nodes.refused.insert(node, session.address.to_string());
            } else if session.stopping {
                nodes.stopping.insert(node);
            } else {
                nodes.ready.insert(node);
                nodes.has_disk |= session.enable_disk;
            }
        }
        nodes
    }

    pub(super) fn is_there(&self, node: ServerId) -> bool {
        self.ready.contains(&node) || self.stopping.contains(&node)
    }

    /// Nodes that are not used because of where they are.
    pub(super) fn refused(&self) -> &BTreeMap<ServerId, String> {
        &self.refused
    }

    /// May get something new.
    pub(super) fn ready(&self) -> impl Iterator<Item = ServerId> {
        self.ready.iter().copied()
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Nothing has to be built.
    pub(super) finish: Vec<Attempt>,
    /// Their segment or their index is gone.
    pub(super) abandon: Vec<Attempt>,
    /// Their node is gone.
    pub(super) lost: Vec<Attempt>,
    /// To be asked for, by node.
    pub(super) query: BTreeMap<ServerId, Vec<Attempt>>,
    /// To be given to a node.
    pub(super) start: Vec<Attempt>,
}

impl Plan {
    /// Over the `n` oldest builds that have not ended, without those of which nothing can be done now:
    /// were they counted, they could keep all others waiting.
    pub(super) fn make(
        views: &Views,
        nodes: &Nodes,
        min_rows: i64,
        n: usize,
        is_resting: impl Fn(BuildId) -> bool,
    ) -> Plan {
        let mut plan = Plan::default();
        let mut n_planned = 0;
        for (id, build) in views.indexes().unfinished() {
            if n_planned == n {
                break;
            }
            n_planned += usize::from(plan.add(views, nodes, min_rows, (id, build), &is_resting));
        }
        plan
    }

    /// Returns false where nothing can be done now.
    fn add(
        &mut self,
        views: &Views,
        nodes: &Nodes,
        min_rows: i64,
        (id, build): (BuildId, &Build),
        is_resting: impl Fn(BuildId) -> bool,
    ) -> bool {
        let definition = views.indexes().definition(build.collection, build.index);
        let definition = definition.filter(|found| !found.is_deleted);
        let attempt = Attempt {
            build: build.reference(id),
            version: build.version,
            node: build.node,
            needs_disk: definition.is_some_and(|one| indexing::index_type(one) == "DISKANN"),
        };
        let is_running = build.state == IndexState::InProgress;
        let segment = views.segments().get(build.segment);
        match definition {
            None => self.abandon.push(attempt),
            // What runs for a segment that was compacted away may still come in useful.
            Some(_) if segment.is_none_or(|segment| !segment.is_healthy() && !is_running) => {
                self.abandon.push(attempt);
            }
            Some(_) if is_running && nodes.is_there(build.node) => {
                self.query.entry(build.node).or_default().push(attempt);
            }
            Some(_) if is_running => self.lost.push(attempt),
            Some(one) if indexing::needs_no_files(one, build.rows, min_rows) => {
                self.finish.push(attempt);
            }
            Some(_) if is_resting(id) || (attempt.needs_disk && !nodes.has_disk) => return false,
            Some(_) => self.start.push(attempt),
        }
        true
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query.values().flatten().copied().collect();
        for (what, attempts) in [
            ("finish", &self.finish),
            ("abandon", &self.abandon),
            ("lost", &self.lost),
            ("query", &query),
            ("start", &self.start),
        ] {
            for attempt in attempts {
                writeln!(out, "{what} {attempt}")?;
            }
        }
        Ok(())
    }
}

/// What a node can take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    pub(super) node: ServerId,
    pub(super) n_free: usize,
    pub(super) has_disk: bool,
}

/// Gives builds to nodes, the oldest first, each to the node with most room. A build that found its
/// node wanting goes to another one if it can.
pub(super) fn place(
    waiting: &[Attempt],
    mut free: Vec<Slots>,
    n_max: usize,
) -> Vec<(Attempt, ServerId)> {
    let mut placed = Vec::new();
    for attempt in waiting {
        if placed.len() == n_max || free.iter().all(|slots| slots.n_free == 0) {
            break;
        }
        let fits = |slots: &&mut Slots| slots.n_free > 0 && (slots.has_disk || !attempt.needs_disk);
        let failed_before = |node| attempt.version > 0 && attempt.node == node;
        let best = free.iter_mut().filter(fits).min_by_key(|slots| {
            (failed_before(slots.node), std::cmp::Reverse(slots.n_free), slots.node)
        });
        if let Some(slots) = best {
            slots.n_free -= 1;
            placed.push((*attempt, slots.node));
        }
    }
    placed
}

#[cfg(test)]
mod tests;
