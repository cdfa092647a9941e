//! Which dropped segments may go, as a pure function of the views.

use std::fmt;

use proto::milvus::common::IndexState;
use proto::quorate::SegmentRef;
use statemachine::channel::ChannelState;
use statemachine::coordinator::segment::view::Segment;
use statemachine::view::{PlanId, SegmentId, Views};

use crate::coordinator::indexing;

/// What is decided outside of the views.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Unix milliseconds.
    pub(super) now_ms: u64,
    /// How long a segment that was dropped by itself stays.
    pub(super) drop_tolerance_ms: u64,
}

/// Why a segment may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its collection or partition was dropped, or it never got a row; that long ago where
    /// somebody said when.
    Dropped { ago_ms: Option<u64> },
    /// Its rows are in the result of a compaction, which has an index or is gone by now.
    Compacted { result: Option<SegmentId> },
}

/// What a segment waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Tolerance {
        left_ms: u64,
    },
    ResultWithoutIndex {
        result: SegmentId,
    },
    /// The channel's checkpoint has not passed its rows: a data node may read them again.
    Checkpoint {
        checkpoint: u64,
        rows_until: u64,
    },
    /// A data node is being told to consume the channel, and its list may name the segment.
    ToWatch,
    /// A compaction that took it in is not over for the data node.
    Plan {
        plan: PlanId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) of: SegmentRef,
    pub(super) why: Why,
}

/// Of some dropped segments, by ascending id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) removals: Vec<Removal>,
    pub(super) waits: Vec<(SegmentId, Wait)>,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<SegmentId>,
}

/// Looks at the next `n` dropped segments above `after`: few enough to hold nobody up.
pub(super) fn plan(views: &Views, policy: Policy, after: SegmentId, n: usize) -> Plan {
    let mut plan = Plan::default();
    let mut n_seen = 0;
    for (id, segment) in views.segments().dropped_after(after).take(n) {
        n_seen += 1;
        plan.next = Some(id);
        match judge(views, policy, id, segment) {
            Ok(why) => plan.removals.push(Removal { of: segment.reference(id), why }),
            Err(wait) => plan.waits.push((id, wait)),
        }
    }
    if n_seen < n {
        plan.next = None;
    }
    plan
}

/// Whether a dropped segment may go.
pub(super) fn judge(
    views: &Views,
    policy: Policy,
    id: SegmentId,
    segment: &Segment,
) -> Result<Why, Wait> {
    let why = rows_are_elsewhere_or_nowhere(views, policy, id, segment)?;
    let channel = &*segment.channel;
    if views.assignments().removal(channel) == Some(false) {
        let checkpoint =
            views.assignments().checkpoint(channel).map_or(0, |at| at.position.timestamp);
        let rows_until = segment.dml_ts.unwrap_or(0);
        if rows_until > checkpoint {
            return Err(Wait::Checkpoint { checkpoint, rows_until });
        }
    }
    let is_told = |node| {
        let channel = views.channels().get(node, channel);
        channel.is_some_and(|channel| channel.state == ChannelState::ToWatch)
    };
    if views.channels().owners_of(channel).any(is_told) {
        return Err(Wait::ToWatch);
    }
    match views.plans().of_input(id) {
        Some(plan) => Err(Wait::Plan { plan }),
        None => Ok(why),
    }
}

fn rows_are_elsewhere_or_nowhere(
    views: &Views,
    policy: Policy,
    id: SegmentId,
    segment: &Segment,
) -> Result<Why, Wait> {
    let result = views.segments().child_of(id);
    if let Some(result) = result
        && indexing::vector_index_state(views, result) != Some(IndexState::Finished)
    {
        return Err(Wait::ResultWithoutIndex { result });
    }
    if result.is_some() || segment.is_compacted {
        return Ok(Why::Compacted { result });
    }
    let dropped_at_ms = segment.dropped_at_ns / 1_000_000;
    if dropped_at_ms == 0 {
        return Ok(Why::Dropped { ago_ms: None });
    }
    let ago_ms = policy.now_ms.saturating_sub(dropped_at_ms);
    match policy.drop_tolerance_ms.checked_sub(ago_ms) {
        None | Some(0) => Ok(Why::Dropped { ago_ms: Some(ago_ms) }),
        Some(left_ms) => Err(Wait::Tolerance { left_ms }),
    }
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Dropped { ago_ms: None } => write!(out, "dropped with its channel"),
            Why::Dropped { ago_ms: Some(ago_ms) } => {
                write!(out, "dropped {} s ago", ago_ms / 1000)
            }
            Why::Compacted { result: Some(result) } => {
                write!(out, "compacted into {result}, which has its index")
            }
            Why::Compacted { result: None } => write!(out, "compacted into a segment that is gone"),
        }
    }
}

impl Wait {
    /// For counting.
    pub(super) fn name(self) -> &'static str {
        match self {
            Wait::Tolerance { .. } => "drop tolerance",
            Wait::ResultWithoutIndex { .. } => "index of the compaction's result",
            Wait::Checkpoint { .. } => "channel checkpoint",
            Wait::ToWatch => "channel being watched",
            Wait::Plan { .. } => "compaction under way",
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Tolerance { left_ms } => write!(out, "another {} s", left_ms.div_ceil(1000)),
            Wait::ResultWithoutIndex { result } => write!(out, "an index of its result {result}"),
            Wait::Checkpoint { checkpoint, rows_until } => {
                write!(out, "its channel's checkpoint {checkpoint} to pass {rows_until}")
            }
            Wait::ToWatch => write!(out, "its channel to be watched"),
            Wait::Plan { plan } => write!(out, "the end of compaction {plan}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Removal { of, why } in &self.removals {
            writeln!(out, "remove {}: {why}", of.segment)?;
        }
        for (id, wait) in &self.waits {
            writeln!(out, "{id} waits for {wait}")?;
        }
        match self.next {
            Some(next) => writeln!(out, "more above {next}"),
            None => Ok(()),
        }
    }
}
