//! What is to be done about channels: a function of what is seen and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use proto::quorate::channel_move::Step as WireStep;
use proto::quorate::{ChannelMove, ReleaseReason};
use statemachine::channel::ChannelState;
use statemachine::view::{Name, ServerId};

use super::balance;
use super::patience::{Patience, Verdict};
use super::seen::{Seen, SeenChannel};
use crate::coordinator::settings::CoordinatorSettings;

/// Wait before a channel that could not be watched is tried again, and the longest one.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What of the configuration matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) watch_timeout: Duration,
    pub(super) balance_silent: Duration,
    pub(super) balance_interval: Duration,
    pub(super) auto_balance: bool,
}

impl Settings {
    pub(super) fn of(settings: &CoordinatorSettings) -> Settings {
        Settings {
            watch_timeout: settings.watch_timeout,
            balance_silent: settings.balance_silent,
            balance_interval: settings.balance_interval,
            auto_balance: settings.auto_balance,
        }
    }
}

/// Since when things are as they are.
#[derive(Debug, Default)]
pub(super) struct Memory {
    patience: Patience,
    /// Channels that could not be watched lately.
    failures: BTreeMap<Name, Failures>,
    pub(super) balance: balance::Memory,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// Of the key that told the newest one.
    revision: i64,
    retry_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Release(ReleaseReason),
    AssignTo(ServerId),
    DeleteKeyOf(ServerId),
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Release(_) => write!(out, "release"),
            Action::AssignTo(ServerId::NOBODY) => write!(out, "assign to nobody"),
            Action::AssignTo(node) => write!(out, "assign to {node}"),
            Action::DeleteKeyOf(ServerId::NOBODY) => write!(out, "delete the key of nobody"),
            Action::DeleteKeyOf(node) => write!(out, "delete the key of {node}"),
        }
    }
}

/// One step, based on what was seen.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) channel: Name,
    epoch: u64,
    key_revision: i64,
    pub(super) action: Action,
    pub(super) why: &'static str,
}

impl Step {
    fn of(seen: &SeenChannel, action: Action, why: &'static str) -> Step {
        Step {
            channel: seen.channel.clone(),
            epoch: seen.epoch,
            key_revision: seen.key.map_or(0, |key| key.revision),
            action,
            why,
        }
    }

    pub(super) fn to_wire(&self) -> ChannelMove {
        ChannelMove {
            channel: self.channel.to_string(),
            epoch: self.epoch,
            key_revision: self.key_revision,
            step: Some(match self.action {
                Action::Release(reason) => WireStep::Release(reason.into()),
                Action::AssignTo(node) => WireStep::AssignTo(node.0),
                Action::DeleteKeyOf(node) => WireStep::DeleteKeyOf(node.0),
            }),
        }
    }
}

/// What is to be done, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) adopt: BTreeSet<Name>,
    pub(super) steps: Vec<Step>,
    /// Nodes that were to be empty and are gone.
    pub(super) drained: BTreeSet<ServerId>,
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for channel in &self.adopt {
            writeln!(out, "adopt {channel}")?;
        }
        for Step { channel, action, why, .. } in &self.steps {
            writeln!(out, "{channel}: {action} ({why})")?;
        }
        for node in &self.drained {
            writeln!(out, "{node} is drained")?;
        }
        Ok(())
    }
}

/// Decides on every channel for itself, and moves some for the sake of balance where all is quiet.
///
/// `rates` are rows per second by channel, where they are known.
pub(super) fn plan(
    seen: &Seen,
    memory: &mut Memory,
    rates: &BTreeMap<Name, u64>,
    settings: &Settings,
    now: Instant,
) -> Plan {
    let drained = seen.draining.difference(&seen.alive).copied().collect();
    let mut plan = Plan { drained, ..Plan::default() };
    for stray in &seen.strays {
        if stray.is_foreign {
            plan.adopt.insert(stray.channel.clone());
        } else {
            plan.steps.push(Step {
                channel: stray.channel.clone(),
                epoch: stray.epoch,
                key_revision: stray.revision,
                action: Action::DeleteKeyOf(stray.node),
                why: "it does not own the channel",
            });
        }
    }
    let mut targets = Targets::of(seen);
    memory.patience.listen(seen, now);
    memory.failures.retain(|channel, _| seen.has(channel));
    let mut is_quiet = true;
    for channel in &seen.channels {
        let decided = decide(seen, channel, memory, &mut targets, settings, now);
        is_quiet &= decided.is_quiet;
        plan.steps.extend(decided.step);
    }
    is_quiet &= plan.adopt.is_empty();
    let moves = balance::moves(seen, &mut memory.balance, rates, settings, is_quiet, now);
    plan.steps.extend(
        moves
            .into_iter()
            .map(|(channel, reason, why)| Step::of(channel, Action::Release(reason), why)),
    );
    plan
}

impl Memory {
    /// Whether a channel that could not be watched may be tried again.
    fn may_retry(&mut self, channel: &Name, revision: i64, now: Instant) -> bool {
        let first = Failures { count: 0, revision, retry_at: now };
        let entry = self.failures.entry(channel.clone()).or_insert(first);
        if entry.revision != revision {
            let wait = RETRY_MIN * 2u32.pow(entry.count.min(16));
            entry.count += 1;
            entry.revision = revision;
            entry.retry_at = now + wait.min(RETRY_MAX);
        }
        now >= entry.retry_at
    }
}

/// Data nodes by how many channels they have, for choosing again and again.
struct Targets {
    by_load: BTreeSet<(usize, ServerId)>,
}

impl Targets {
    fn of(seen: &Seen) -> Targets {
        let mut counts: BTreeMap<ServerId, usize> = seen
            .usable
            .iter()
            .filter(|node| !seen.draining.contains(*node))
            .map(|node| (*node, 0))
            .collect();
        for channel in &seen.channels {
            if let Some(count) = counts.get_mut(&channel.node) {
                *count += 1;
            }
        }
        Targets { by_load: counts.into_iter().map(|(node, count)| (count, node)).collect() }
    }

    /// The node with the fewest channels but `origin`, which is taken where nobody else is.
    fn take(&mut self, origin: ServerId) -> ServerId {
        let best = self
            .by_load
            .iter()
            .find(|(_, node)| *node != origin)
            .or_else(|| self.by_load.first())
            .copied();
        let Some((count, node)) = best else { return ServerId::NOBODY };
        self.by_load.remove(&(count, node));
        self.by_load.insert((count + 1, node));
        node
    }
}

struct Decided {
    step: Option<Step>,
    /// Nothing of the channel is under way.
    is_quiet: bool,
}

impl Decided {
    const STAYS: Decided = Decided { step: None, is_quiet: true };
    const WAITS: Decided = Decided { step: None, is_quiet: false };

    fn does(step: Step) -> Decided {
        Decided { step: Some(step), is_quiet: false }
    }
}

fn decide(
    seen: &Seen,
    channel: &SeenChannel,
    memory: &mut Memory,
    targets: &mut Targets,
    settings: &Settings,
    now: Instant,
) -> Decided {
    let mut assign = |origin: ServerId, why: &'static str| {
        if channel.is_removed {
            let why = "the channel is removed";
            return Decided::does(Step::of(channel, Action::AssignTo(ServerId::NOBODY), why));
        }
        let target = targets.take(origin);
        if target == ServerId::NOBODY && channel.node == ServerId::NOBODY {
            return Decided::STAYS;
        }
        Decided::does(Step::of(channel, Action::AssignTo(target), why))
    };
    let release = |reason: ReleaseReason, why: &'static str| {
        Decided::does(Step::of(channel, Action::Release(reason), why))
    };
    if channel.node == ServerId::NOBODY {
        return assign(ServerId::NOBODY, "nobody has it");
    }
    if !seen.alive.contains(&channel.node) {
        return assign(channel.node, "its data node is gone");
    }
    let Some(key) = channel.key else {
        return assign(ServerId::NOBODY, "its key is gone");
    };
    match key.state {
        None => release(ReleaseReason::Failed, "its key says nothing"),
        Some(ChannelState::WatchSuccess) => {
            memory.patience.answered(&channel.channel);
            memory.failures.remove(&channel.channel);
            if channel.is_removed {
                return release(ReleaseReason::Removed, "the channel is removed");
            }
            if channel.is_unserved {
                return release(ReleaseReason::Failed, "its data node does not know it");
            }
            Decided::STAYS
        }
        Some(ChannelState::ToWatch) => {
            match memory.patience.verdict(channel, settings.watch_timeout, now) {
                Verdict::Wait => Decided::WAITS,
                Verdict::TellAgain | Verdict::GiveUp => {
                    release(ReleaseReason::Failed, "its data node does not begin to watch")
                }
            }
        }
        Some(ChannelState::WatchFailure) => {
            if memory.may_retry(&channel.channel, key.revision, now) {
                return release(ReleaseReason::Failed, "its data node could not watch");
            }
            Decided::WAITS
        }
        Some(ChannelState::ToRelease) => {
            match memory.patience.verdict(channel, settings.watch_timeout, now) {
                Verdict::Wait => Decided::WAITS,
                Verdict::TellAgain => {
                    release(ReleaseReason::Failed, "its data node has not answered")
                }
                Verdict::GiveUp => assign(channel.node, "its data node does not let go"),
            }
        }
        Some(ChannelState::ReleaseSuccess) => assign(channel.node, "its data node has let go"),
        Some(ChannelState::ReleaseFailure) => {
            assign(channel.node, "its data node could not let go")
        }
    }
}

#[cfg(test)]
mod tests;
