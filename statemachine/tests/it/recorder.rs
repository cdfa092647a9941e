//! Turns random plans into logs: several origins, duplicates, stale starts, fences.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::quorate;
use proto::quorate::command::Kind;
use statemachine::testkit::{Machine, MemoryStore};
use statemachine::{Applied, LogEntry, Outcome, Readers, RequestId, State};

use crate::commands::{self, Clock, Step};

/// What one run of an entry will be.
#[derive(Clone, Debug)]
pub(crate) enum RunPlan {
    Fresh {
        origin: u64,
        commands: Vec<(Kind, FencePlan)>,
        /// How many of the origin's answered commands it settles with this run.
        settles: u64,
    },
    /// Proposes an earlier run again, whole or in part. Counted back from the newest.
    Again { back: usize, skip: usize, take: usize },
    /// The origin's process starts anew.
    Restart { origin: u64, nonce: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum FencePlan {
    None,
    Right,
    Wrong,
}

pub(crate) type EntryPlan = Vec<RunPlan>;

fn fence() -> impl Strategy<Value = FencePlan> {
    prop_oneof![8 => Just(FencePlan::None), 1 => Just(FencePlan::Right), 1 => Just(FencePlan::Wrong)]
}

fn run(command: impl Strategy<Value = Kind>) -> impl Strategy<Value = RunPlan> {
    let commands = prop::collection::vec((command, fence()), 1..5);
    prop_oneof![
        12 => (1u64..4, commands, prop_oneof![3 => Just(0), 1 => 0u64..9])
            .prop_map(|(origin, commands, settles)| RunPlan::Fresh { origin, commands, settles }),
        4 => (0usize..6, 0usize..3, 1usize..5)
            .prop_map(|(back, skip, take)| RunPlan::Again { back, skip, take }),
        1 => (1u64..4, 0u64..3).prop_map(|(origin, nonce)| RunPlan::Restart { origin, nonce }),
    ]
}

pub(crate) fn plans(n_entries: usize) -> impl Strategy<Value = Vec<EntryPlan>> {
    plans_of(commands::any_command(), n_entries)
}

/// Plans of certain commands.
pub(crate) fn plans_of(
    command: impl Strategy<Value = Kind>,
    n_entries: usize,
) -> impl Strategy<Value = Vec<EntryPlan>> {
    prop::collection::vec(prop::collection::vec(run(command), 1..4), 1..n_entries)
}

#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    epoch: u64,
    next_seq: u64,
    settled_below: u64,
}

/// A log and what a machine that applied it entry by entry answered.
pub(crate) struct Recorded {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) applied: Vec<Applied>,
    /// Outcome of each request when it was applied first.
    pub(crate) first_outcomes: BTreeMap<RequestId, Outcome>,
    pub(crate) machine: Machine,
}

/// Plays plans on a fresh machine.
pub(crate) fn record(plans: Vec<EntryPlan>) -> Recorded {
    let mut recorder = Recorder {
        machine: Machine::new(),
        origins: BTreeMap::new(),
        runs: Vec::new(),
        entries: Vec::new(),
        applied: Vec::new(),
        first_outcomes: BTreeMap::new(),
    };
    for plan in plans {
        recorder.entry(plan);
    }
    let Recorder { machine, entries, applied, first_outcomes, .. } = recorder;
    Recorded { entries, applied, first_outcomes, machine }
}

struct Recorder {
    machine: Machine,
    origins: BTreeMap<u64, Origin>,
    /// Fresh runs so far.
    runs: Vec<quorate::Run>,
    entries: Vec<LogEntry>,
    applied: Vec<Applied>,
    first_outcomes: BTreeMap<RequestId, Outcome>,
}

impl Recorder {
    fn entry(&mut self, plan: EntryPlan) {
        // A leader's clock that may jump, back too.
        self.machine.at_ms = 1_000 + (self.machine.index * 7_919) % 1_000;
        let runs = plan.into_iter().filter_map(|run| self.run(run)).collect();
        let entry = self.machine.entry_of_runs(runs);
        let applied = self.machine.apply(std::slice::from_ref(&entry)).unwrap();
        for (id, outcome) in &applied.outcomes {
            if let Ok(statemachine::Response::OriginRegistered { epoch }) = outcome {
                let origin = self.origins.entry(id.origin).or_default();
                if origin.epoch != *epoch {
                    *origin = Origin { epoch: *epoch, next_seq: 1, settled_below: 0 };
                }
                continue;
            }
            self.first_outcomes.entry(*id).or_insert_with(|| outcome.clone());
        }
        self.entries.push(entry);
        self.applied.push(applied);
    }

    fn run(&mut self, plan: RunPlan) -> Option<quorate::Run> {
        match plan {
            RunPlan::Fresh { origin, commands, settles } => {
                let known = *self.origins.entry(origin).or_default();
                if known.epoch == 0 {
                    return Some(restart(origin, 1));
                }
                let run = quorate::Run {
                    origin,
                    epoch: known.epoch,
                    first_seq: known.next_seq,
                    settled_below: known.settled_below,
                    commands: self.commands(commands),
                };
                let next_seq = known.next_seq + run.commands.len() as u64;
                let settled_below = (known.settled_below + settles).min(known.next_seq);
                self.origins.insert(origin, Origin { next_seq, settled_below, ..known });
                self.runs.push(run.clone());
                Some(run)
            }
            RunPlan::Again { back, skip, take } => {
                let mut run = self.runs.iter().rev().nth(back)?.clone();
                let skip = skip.min(run.commands.len() - 1);
                run.first_seq += skip as u64;
                run.commands = run.commands.into_iter().skip(skip).take(take).collect();
                Some(run)
            }
            RunPlan::Restart { origin, nonce } => Some(restart(origin, nonce)),
        }
    }

    fn commands(&self, plans: Vec<(Kind, FencePlan)>) -> Vec<quorate::Command> {
        let state = &self.machine.state;
        let clock = Clock { revision: state.revision(), compacted: state.compacted_revision() };
        let command = |(kind, fence)| {
            let Step::Command(kind) = clock.bind_step(Step::Command(kind)) else {
                panic!("a command stays a command")
            };
            let node = self.machine.node;
            let fence = match fence {
                FencePlan::None => None,
                FencePlan::Right => Some(quorate::Fence { term: self.machine.term, node }),
                FencePlan::Wrong => Some(quorate::Fence { term: self.machine.term + 1, node }),
            };
            quorate::Command { fence, kind: Some(kind) }
        };
        plans.into_iter().map(command).collect()
    }
}

fn restart(origin: u64, nonce: u64) -> quorate::Run {
    let register = quorate::RegisterOrigin { node: origin, nonce };
    let kind = Some(Kind::RegisterOrigin(register));
    quorate::Run {
        origin,
        epoch: 0,
        first_seq: 0,
        settled_below: 0,
        commands: vec![quorate::Command { fence: None, kind }],
    }
}

/// A node that replays a log.
pub(crate) struct Replica {
    pub(crate) state: State,
    pub(crate) store: MemoryStore,
}

impl Replica {
    /// Has what every machine of the test kit has after its first entry.
    pub(crate) fn new() -> Replica {
        let Machine { state, store, .. } = Machine::new();
        Replica { state, store }
    }

    pub(crate) fn apply(&mut self, entries: &[LogEntry]) -> Applied {
        let prepared = self.state.prepare(&self.store, entries, Readers::All).unwrap();
        self.store.apply(prepared.changes());
        let mut applied = self.state.commit(prepared);
        applied.fetch_deferred(&self.store).unwrap();
        applied
    }
}
