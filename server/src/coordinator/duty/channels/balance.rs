//! Moves for the sake of balance: by number of channels, and by rows where one node gets most of
//! them. Each one costs its channel a pause, so there are few at a time and none without need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proto::quorate::ReleaseReason;
use statemachine::channel::ChannelState;
use statemachine::view::{Name, ServerId};

use super::plan::Settings;
use super::seen::{Seen, SeenChannel};

/// Moves of one round at most, over all nodes.
const MOVES_MAX: usize = 64;
/// A node gets too many rows from this part of the average on, in hundredths.
const BUSY_PERCENT: u64 = 150;
/// Fewer rows per second than these are no load.
const BUSY_ROWS_MIN: u64 = 1000;

/// A move: the channel, and why.
pub(super) type Release<'s> = (&'s SeenChannel, ReleaseReason, &'static str);

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Data nodes of the round before; `None` before the first.
    known: Option<BTreeSet<ServerId>>,
    /// Nodes that came while we led and are still to get their part.
    joined: BTreeSet<ServerId>,
    /// Since when nothing has moved.
    quiet_since: Option<Instant>,
    balanced_at: Option<Instant>,
    /// A balance has begun and goes on until nobody has too many.
    is_levelling: bool,
}

impl Memory {
    fn notice(&mut self, seen: &Seen, is_quiet: bool, now: Instant) {
        let fresh = |known: &BTreeSet<ServerId>| {
            seen.usable.difference(known).copied().collect::<Vec<ServerId>>()
        };
        let new = self.known.as_ref().map(fresh).unwrap_or_default();
        self.joined.extend(new);
        self.joined.retain(|node| seen.usable.contains(node));
        if self.known.as_ref() != Some(&seen.usable) || !is_quiet {
            self.quiet_since = None;
        }
        self.known = Some(seen.usable.clone());
        if is_quiet {
            self.quiet_since.get_or_insert(now);
        }
    }

    fn is_due(&self, settings: &Settings, now: Instant) -> bool {
        let is_silent = self
            .quiet_since
            .is_some_and(|since| now.saturating_duration_since(since) >= settings.balance_silent);
        let is_time = self
            .balanced_at
            .is_none_or(|last| now.saturating_duration_since(last) >= settings.balance_interval);
        is_silent && is_time
    }
}

/// What a node has, as far as it may be moved.
#[derive(Default)]
struct Load<'s> {
    count: usize,
    rows: u64,
    /// Consumed, and without a compaction or an import; those with the fewest rows last.
    movable: Vec<&'s SeenChannel>,
    /// Something of it is under way.
    is_busy: bool,
}

/// Channels that their nodes are to let go.
pub(super) fn moves<'s>(
    seen: &'s Seen,
    memory: &mut Memory,
    rates: &BTreeMap<Name, u64>,
    settings: &Settings,
    is_quiet: bool,
    now: Instant,
) -> Vec<Release<'s>> {
    memory.notice(seen, is_quiet, now);
    let mut loads = loads(seen, rates);
    let mut moves = drains(seen, &mut loads);
    if !settings.auto_balance || seen.has_old {
        return moves;
    }
    for node in &seen.draining {
        loads.remove(node);
    }
    let total: usize = loads.values().map(|load| load.count).sum();
    if loads.len() < 2 || total == 0 {
        return moves;
    }
    let average = total / loads.len();
    if !memory.joined.is_empty() {
        let found = feed(&mut memory.joined, &mut loads, average);
        moves.extend(
            found
                .into_iter()
                .map(|channel| (channel, ReleaseReason::Balance, "a new data node takes a part")),
        );
    } else if is_quiet && (memory.is_levelling || memory.is_due(settings, now)) {
        memory.balanced_at = Some(now);
        let found = level(&mut loads, average);
        memory.is_levelling = !found.is_empty();
        if found.is_empty() {
            moves.extend(cool(&loads, rates));
        }
        moves.extend(found);
    }
    moves.truncate(MOVES_MAX);
    moves
}

fn loads<'s>(seen: &'s Seen, rates: &BTreeMap<Name, u64>) -> BTreeMap<ServerId, Load<'s>> {
    let mut loads: BTreeMap<ServerId, Load<'s>> =
        seen.usable.iter().map(|node| (*node, Load::default())).collect();
    for channel in &seen.channels {
        let Some(load) = loads.get_mut(&channel.node) else { continue };
        load.count += 1;
        load.rows += rates.get(&channel.channel).copied().unwrap_or(0);
        let is_consumed =
            channel.key.is_some_and(|key| key.state == Some(ChannelState::WatchSuccess));
        if !is_consumed {
            load.is_busy = true;
        } else if !channel.is_removed && !seen.occupied.contains(&channel.channel) {
            load.movable.push(channel);
        }
    }
    for load in loads.values_mut() {
        let rate = |channel: &&SeenChannel| rates.get(&channel.channel).copied().unwrap_or(0);
        load.movable.sort_by_key(|channel| std::cmp::Reverse(rate(channel)));
    }
    loads
}

/// One channel at a time of each node that is to become empty, if there is another node.
fn drains<'s>(seen: &'s Seen, loads: &mut BTreeMap<ServerId, Load<'s>>) -> Vec<Release<'s>> {
    if seen.usable.difference(&seen.draining).next().is_none() {
        return Vec::new();
    }
    let mut moves = Vec::new();
    for node in &seen.draining {
        let Some(load) = loads.get_mut(node).filter(|load| !load.is_busy) else { continue };
        if let Some(channel) = load.movable.pop() {
            load.is_busy = true;
            moves.push((channel, ReleaseReason::Drain, "its data node is to be empty"));
        }
    }
    moves
}

/// Nodes that came get channels until they have their part; each node gives or takes one at a time.
fn feed<'s>(
    joined: &mut BTreeSet<ServerId>,
    loads: &mut BTreeMap<ServerId, Load<'s>>,
    average: usize,
) -> Vec<&'s SeenChannel> {
    let mut wanted = 0;
    joined.retain(|node| {
        let Some(load) = loads.get(node) else { return false };
        // What is on its way to it counts as its own already.
        wanted += usize::from(load.count < average && !load.is_busy);
        load.count < average
    });
    let is_under_way = loads.values().any(|load| load.is_busy);
    if is_under_way {
        return Vec::new();
    }
    richest(loads, average, wanted)
}

/// The usual balance: nobody has more than one channel above the average.
fn level<'s>(loads: &mut BTreeMap<ServerId, Load<'s>>, average: usize) -> Vec<Release<'s>> {
    let over = loads.values().filter(|load| load.count > average + 1).count();
    let found = richest(loads, average + 1, over);
    found
        .into_iter()
        .map(|channel| (channel, ReleaseReason::Balance, "its data node has too many"))
        .collect()
}

/// One channel each of the nodes with the most, down to `floor`; at most `wanted`.
fn richest<'s>(
    loads: &mut BTreeMap<ServerId, Load<'s>>,
    floor: usize,
    wanted: usize,
) -> Vec<&'s SeenChannel> {
    let mut rich: Vec<(usize, ServerId)> = loads
        .iter()
        .filter(|(_, load)| load.count > floor && !load.is_busy)
        .map(|(node, load)| (load.count, *node))
        .collect();
    rich.sort_by_key(|(count, node)| (std::cmp::Reverse(*count), *node));
    let mut found = Vec::new();
    for (_, node) in rich {
        if found.len() >= wanted {
            break;
        }
        let Some(load) = loads.get_mut(&node) else { continue };
        if let Some(channel) = load.movable.pop() {
            load.is_busy = true;
            found.push(channel);
        }
    }
    found
}

/// By rows: the busiest node gives away the channel that, moved to the idlest, evens them out most.
/// One that is busy by a single channel keeps it: somebody has to have it.
fn cool<'s>(
    loads: &BTreeMap<ServerId, Load<'s>>,
    rates: &BTreeMap<Name, u64>,
) -> Option<Release<'s>> {
    let total: u64 = loads.values().map(|load| load.rows).sum();
    let average = total / u64::try_from(loads.len()).ok()?;
    let busiest = loads.values().max_by_key(|load| load.rows)?;
    let idlest = loads.values().min_by_key(|load| load.rows)?;
    if busiest.rows < BUSY_ROWS_MIN || busiest.rows * 100 < average * BUSY_PERCENT {
        return None;
    }
    let rate = |channel: &SeenChannel| rates.get(&channel.channel).copied().unwrap_or(0);
    // Moved, the larger of the two must be smaller than before.
    let after = |moved: u64| (busiest.rows - moved).max(idlest.rows + moved);
    let best = busiest
        .movable
        .iter()
        .filter(|channel| rate(channel) > 0 && after(rate(channel)) < busiest.rows)
        .min_by_key(|channel| after(rate(channel)))?;
    Some((best, ReleaseReason::Balance, "its data node gets too many rows"))
}
