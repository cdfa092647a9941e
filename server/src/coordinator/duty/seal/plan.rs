//! What is due on one channel, decided from the records and what was observed.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use proto::milvus::common::SegmentState;
use proto::quorate::HasRows;
use statemachine::State;
use statemachine::catalog::Lifecycle;
use statemachine::coordinator::keys::LogKind;
use statemachine::coordinator::segment::view::{Growth, Segment};
use statemachine::view::SegmentId;

use crate::coordinator::observed::Tick;
use crate::coordinator::seal::SealReason;
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::tso;
use crate::coordinator::{Lead, data_nodes};

/// Decided once, then carried out without a choice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seal: Vec<(SegmentId, Segment, SealReason)>,
    /// Never got a row, and none can come.
    pub(super) drop_empty: Vec<(SegmentId, Segment)>,
    /// Imports whose time is up.
    pub(super) drop_imports: Vec<(SegmentId, Segment)>,
    pub(super) flush: Vec<(SegmentId, Segment)>,
    /// It is unknown whether they have rows: their data node is asked, one by one.
    pub(super) probe: Vec<(SegmentId, Segment)>,
    /// Whom to tell.
    pub(super) tick: Option<Tick>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.seal.is_empty()
            && self.drop_empty.is_empty()
            && self.drop_imports.is_empty()
            && self.flush.is_empty()
            && self.probe.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, _, reason) in &self.seal {
            write!(out, "seal {id} ({reason}) ")?;
        }
        for (word, segments) in [
            ("drop empty", &self.drop_empty),
            ("drop import", &self.drop_imports),
            ("flush", &self.flush),
            ("probe", &self.probe),
        ] {
            for (id, _) in segments {
                write!(out, "{word} {id} ")?;
            }
        }
        Ok(())
    }
}

/// What a decision about one segment looks at.
pub(super) struct Facts<'a> {
    pub(super) settings: &'a CoordinatorSettings,
    pub(super) growth: Option<Growth>,
    pub(super) tick: Option<Tick>,
    /// Reported or written, whichever is more.
    pub(super) rows: i64,
    /// Since anything happened to it.
    pub(super) idle: Duration,
    /// Statistics logs, which count its syncs.
    pub(super) n_stats_logs: u32,
    /// Its partition or collection is being dropped.
    pub(super) is_partition_dropped: bool,
    /// There are too few data nodes: each has more to hold.
    pub(super) is_early: bool,
    /// It was to be sealed, and whether it will be is not known.
    pub(super) is_seal_undecided: bool,
}

/// What is due for one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Seal(SealReason),
    DropEmpty,
    DropImport,
    Flush,
    Probe,
}

pub(super) fn of_channel(lead: &Lead, channel: &str) -> Plan {
    let tick = lead.observed.tick(channel);
    let (open, is_early, assignment): (Vec<_>, bool, _) = lead.local().read(|state| {
        let segments = state.views().segments();
        let open = segments
            .open_of_channel(channel)
            .map(|(id, segment)| {
                let logs = segments.logs(id);
                (
                    id,
                    segment.clone(),
                    segments.growth(id).copied(),
                    logs.map_or(0, |logs| logs.total(LogKind::Stats).files),
                    is_partition_dropped(state, segment),
                    state.at_ms(),
                )
            })
            .collect();
        let is_early = data_nodes::are_too_few(state.views(), lead.settings());
        (open, is_early, state.views().assignments().get(channel).cloned())
    });
    let tick = tick.filter(|tick| assignment.is_some_and(|assignment| tick.is_of(&assignment)));
    let mut plan = Plan { tick, ..Plan::default() };
    let mut growing = Vec::new();
    for (id, segment, growth, n_stats_logs, is_partition_dropped, at_ms) in open {
        let window_age_ms = growth.map_or(0, |growth| at_ms.saturating_sub(growth.window_at_ms));
        let facts = Facts {
            settings: lead.settings(),
            growth,
            tick,
            rows: lead.observed.rows(id).max(segment.rows),
            idle: lead.observed.idle(id, Duration::from_millis(window_age_ms)),
            n_stats_logs,
            is_partition_dropped,
            is_early,
            is_seal_undecided: lead.observed.assigner.is_undecided(id, &segment),
        };
        let rows = facts.rows;
        match due(&segment, &facts) {
            None if segment.state == SegmentState::Growing => {
                growing.push((rows, id, segment));
            }
            None => {}
            Some(Due::Seal(reason)) => plan.seal.push((id, segment, reason)),
            Some(Due::DropEmpty) => plan.drop_empty.push((id, segment)),
            Some(Due::DropImport) => plan.drop_imports.push((id, segment)),
            Some(Due::Flush) => plan.flush.push((id, segment)),
            Some(Due::Probe) => plan.probe.push((id, segment)),
        }
    }
    let pressed = under_pressure(growing, lead.settings(), is_early).into_iter();
    plan.seal.extend(pressed.map(|(_, id, segment)| (id, segment, SealReason::ChannelPressure)));
    plan
}

/// The largest growing segments of a channel, until the others are small enough together.
fn under_pressure(
    mut growing: Vec<(i64, SegmentId, Segment)>,
    settings: &CoordinatorSettings,
    is_early: bool,
) -> Vec<(i64, SegmentId, Segment)> {
    // Rows stand for bytes, as the schema gives them.
    let size_mb = |rows: i64, segment: &Segment| {
        ratio(rows, segment.rows_max) * ratio(settings.segment_max_size_mb, 1)
    };
    let mut sum_mb: f64 = growing.iter().map(|(rows, _, segment)| size_mb(*rows, segment)).sum();
    let max_mb = ratio(settings.channel_growing_max_mb, 1) * part(is_early);
    growing.sort_by_key(|(rows, id, _)| (std::cmp::Reverse(*rows), *id));
    let mut growing = growing.into_iter();
    let mut pressed = Vec::new();
    while sum_mb > max_mb
        && let Some(largest) = growing.next()
    {
        sum_mb -= size_mb(largest.0, &largest.2);
        pressed.push(largest);
    }
    pressed
}

/// How much of a limit counts.
fn part(is_early: bool) -> f64 {
    if is_early { 0.5 } else { 1.0 }
}

fn is_partition_dropped(state: &State, segment: &Segment) -> bool {
    let catalog = state.views().catalog();
    let is_leaving = |state: Lifecycle| match state {
        Lifecycle::Dropping | Lifecycle::Dropped => true,
        Lifecycle::Creating | Lifecycle::Created => false,
    };
    catalog
        .partitions(segment.collection)
        .iter()
        .find(|(id, _)| *id == segment.partition)
        .is_some_and(|(_, partition)| is_leaving(partition.state))
}

/// The decision for one segment.
pub(super) fn due(segment: &Segment, facts: &Facts<'_>) -> Option<Due> {
    match segment.state {
        SegmentState::Growing => seal_reason(segment, facts).map(Due::Seal),
        SegmentState::Sealed => due_of_sealed(segment, facts),
        SegmentState::Importing => {
            let expire_ts = facts.growth.map_or(segment.last_expire_ts, |g| g.window_expire_ts);
            let tick = facts.tick?;
            (expire_ts < tick.ts).then_some(Due::DropImport)
        }
        SegmentState::None
        | SegmentState::NotExist
        | SegmentState::Flushed
        | SegmentState::Flushing
        | SegmentState::Dropped => None,
    }
}

fn due_of_sealed(segment: &Segment, facts: &Facts<'_>) -> Option<Due> {
    let tick = facts.tick?;
    // An import's rows came as files: no row is on its way.
    if segment.is_importing {
        return Some(Due::Flush);
    }
    if segment.last_expire_ts > tick.ts {
        return None;
    }
    let has_rows = facts.growth.map_or(HasRows::Unknown, |growth| growth.has_rows);
    Some(match has_rows {
        _ if facts.rows > 0 => Due::Flush,
        HasRows::Yes => Due::Flush,
        HasRows::Unknown => Due::Probe,
        HasRows::No => Due::DropEmpty,
    })
}

/// The first policy that holds, in Milvus's order.
fn seal_reason(segment: &Segment, facts: &Facts<'_>) -> Option<SealReason> {
    let settings = facts.settings;
    if facts.is_seal_undecided {
        return Some(SealReason::Again);
    }
    if facts.is_partition_dropped && facts.rows == 0 {
        return Some(SealReason::PartitionDropped);
    }
    if facts.n_stats_logs >= settings.max_binlog_files {
        return Some(SealReason::LogFiles);
    }
    let expire_ts = facts.growth.map_or(segment.last_expire_ts, |growth| growth.window_expire_ts);
    if let Some(tick) = facts.tick
        && expire_ts > 0
    {
        let life_ms = tso::physical_ms(tick.ts).saturating_sub(tso::physical_ms(expire_ts));
        let life_max = settings.segment_max_life.mul_f64(part(facts.is_early));
        if u128::from(life_ms) >= life_max.as_millis() {
            return Some(SealReason::Lifetime);
        }
    }
    let full_part = settings.seal_proportion * part(facts.is_early);
    if facts.rows > 0 && reaches(facts.rows, segment.rows_max, full_part) {
        return Some(SealReason::Rows);
    }
    let idle_part = ratio(settings.min_size_from_idle_mb, settings.segment_max_size_mb);
    if facts.idle > settings.segment_max_idle.mul_f64(part(facts.is_early))
        && facts.rows > 0
        && reaches(facts.rows, segment.rows_max, idle_part)
    {
        return Some(SealReason::Idle);
    }
    None
}

#[allow(clippy::cast_precision_loss, reason = "rows and megabytes are far below 2^52")]
fn reaches(rows: i64, rows_max: i64, part: f64) -> bool {
    rows as f64 >= part * rows_max as f64
}

#[allow(clippy::cast_precision_loss, reason = "rows and megabytes are far below 2^52")]
fn ratio(one: i64, other: i64) -> f64 {
    one as f64 / other.max(1) as f64
}
