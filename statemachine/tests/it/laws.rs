//! What holds for every log.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use prost::Message;
use proto::quorate::command::Kind;
use statemachine::testkit::{Machine, MemoryStore};
use statemachine::{
    Outcome, Readers, Rejection, Response, State, Table, compaction, digest, limits,
};

use crate::recorder::{self, EntryPlan, FencePlan, Recorded, Replica, RunPlan};
use crate::runner::{Verdict, law};
use crate::{commands, summary};

/// Sizes that a log is cut into; the last one repeats.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..7, 1..9)
}

fn chunks<'a, T>(mut entries: &'a [T], cuts: &'a [usize]) -> impl Iterator<Item = &'a [T]> {
    let mut sizes = cuts.iter().copied().chain(std::iter::repeat(*cuts.last().unwrap()));
    std::iter::from_fn(move || {
        let size = sizes.next()?.min(entries.len());
        let (chunk, rest) = entries.split_at(size);
        entries = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[test]
fn the_same_log_gives_the_same_bytes_however_it_is_cut() {
    law("same log, same bytes", 800, (recorder::plans(40), cuts()), |(plans, cuts)| {
        same_bytes(plans, &cuts)
    });
}

pub(crate) fn same_bytes(plans: Vec<EntryPlan>, cuts: &[usize]) -> Verdict {
    let Recorded { entries, applied, machine, .. } = recorder::record(plans);
    let mut replica = Replica::new();
    let (mut outcomes, mut events, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in chunks(&entries, cuts) {
        let applied = replica.apply(chunk);
        outcomes.extend(applied.outcomes);
        events.extend(applied.events);
        checks.extend(applied.checks);
    }
    let recorded: Vec<_> = applied.iter().flat_map(|one| one.outcomes.clone()).collect();
    if let Some((one, other)) = outcomes.iter().zip(&recorded).find(|(one, other)| one != other) {
        return Err(TestCaseError::fail(format!("cut: {one:?}\nuncut: {other:?}")));
    }
    prop_assert_eq!(outcomes.len(), recorded.len());
    prop_assert_eq!(&replica.store, &machine.store);
    prop_assert_eq!(
        summary::of_state(&replica.state, &replica.store),
        summary::of_state(&machine.state, &machine.store)
    );
    let recorded: Vec<_> = applied.iter().flat_map(|one| one.events.clone()).collect();
    prop_assert_eq!(events, recorded);
    let recorded: Vec<_> = applied.iter().flat_map(|one| one.checks.clone()).collect();
    prop_assert_eq!(checks, recorded);
    Ok(())
}

#[test]
fn a_state_loaded_at_any_moment_equals_the_running_one_and_goes_on_like_it() {
    let inputs = (recorder::plans(40), any::<prop::sample::Index>(), cuts());
    law("load equals run", 800, inputs, |(plans, moment, cuts)| {
        load_equals_run(plans, moment, &cuts)
    });
}

pub(crate) fn load_equals_run(
    plans: Vec<EntryPlan>,
    moment: prop::sample::Index,
    cuts: &[usize],
) -> Verdict {
    let Recorded { entries, applied, machine, .. } = recorder::record(plans);
    let moment = moment.index(entries.len());
    let mut running = Replica::new();
    entries[..moment].iter().for_each(|entry| {
        running.apply(std::slice::from_ref(entry));
    });
    let state = State::load(&running.store).unwrap();
    prop_assert_eq!(state.views(), running.state.views());
    prop_assert_eq!(
        summary::of_state(&state, &running.store),
        summary::of_state(&running.state, &running.store)
    );

    let mut loaded = Replica { state, store: running.store };
    let mut outcomes = Vec::new();
    for chunk in chunks(&entries[moment..], cuts) {
        outcomes.extend(loaded.apply(chunk).outcomes);
    }
    let rest = &applied[moment..];
    let recorded: Vec<_> = rest.iter().flat_map(|one| one.outcomes.clone()).collect();
    prop_assert_eq!(outcomes, recorded);
    prop_assert_eq!(&loaded.store, &machine.store);
    prop_assert_eq!(
        summary::of_state(&loaded.state, &loaded.store),
        summary::of_state(&machine.state, &machine.store)
    );
    Ok(())
}

#[test]
fn preparing_changes_nothing() {
    law("prepare is pure", 200, recorder::plans(20), |plans| {
        let Recorded { entries, .. } = recorder::record(plans);
        let mut replica = Replica::new();
        for entry in &entries {
            let before = summary::of_state(&replica.state, &replica.store);
            let one = std::slice::from_ref(entry);
            let changes = |replica: &Replica, readers| {
                let prepared = replica.state.prepare(&replica.store, one, readers).unwrap();
                format!("{:?}", prepared.changes().iter().collect::<Vec<_>>())
            };
            prop_assert_eq!(changes(&replica, Readers::All), changes(&replica, Readers::Of(0)));
            prop_assert_eq!(summary::of_state(&replica.state, &replica.store), before);
            replica.apply(one);
        }
        Ok(())
    });
}

/// The rows that commands act on; what is known of requests and of the log is left out.
fn effects(store: &MemoryStore) -> String {
    [Table::Event, Table::Version, Table::Lease]
        .map(|table| format!("{:?}\n", store.rows(table).collect::<Vec<_>>()))
        .concat()
}

#[test]
fn a_rejected_command_changes_nothing() {
    let kinds = prop::collection::vec(commands::any_command(), 1..60);
    law("rejected changes nothing", 600, kinds, rejected_changes_nothing);
}

pub(crate) fn rejected_changes_nothing(kinds: Vec<Kind>) -> Verdict {
    let mut machine = Machine::new();
    for kind in kinds {
        let kind = bound(&machine, kind);
        let before = summary::of_content(&machine.state, &machine.store);
        let effects_before = effects(&machine.store);
        if machine.run(kind).is_err() {
            prop_assert_eq!(summary::of_content(&machine.state, &machine.store), before);
            prop_assert_eq!(effects(&machine.store), effects_before);
        }
    }
    Ok(())
}

fn bound(machine: &Machine, kind: Kind) -> Kind {
    let (revision, compacted) = (machine.state.revision(), machine.state.compacted_revision());
    let step = commands::Step::Command(kind);
    match (commands::Clock { revision, compacted }).bind_step(step) {
        commands::Step::Command(kind) => kind,
        commands::Step::Range(_) | commands::Step::CompactRows { .. } => panic!("not a command"),
    }
}

#[test]
fn neighbours_of_rejected_commands_do_not_notice_them() {
    let entries =
        prop::collection::vec(prop::collection::vec(commands::any_command(), 1..8), 1..20);
    law("rejected ones do not touch neighbours", 400, entries, |entries| {
        let (mut with, mut without) = (Machine::new(), Machine::new());
        for kinds in entries {
            let kinds: Vec<Kind> = kinds.into_iter().map(|kind| bound(&with, kind)).collect();
            let outcomes = with.run_all(kinds.clone());
            let accepted: Vec<Outcome> = outcomes.iter().filter(|o| o.is_ok()).cloned().collect();
            let kept =
                kinds.into_iter().zip(&outcomes).filter(|(_, o)| o.is_ok()).map(|(kind, _)| kind);
            prop_assert_eq!(without.run_all(kept.collect()), accepted);
        }
        prop_assert_eq!(effects(&with.store), effects(&without.store));
        prop_assert_eq!(
            summary::of_content(&with.state, &with.store),
            summary::of_content(&without.state, &without.store)
        );
        Ok(())
    });
}

/// Whether an origin may get this when it proposes a command again.
fn is_repeated(outcome: &Outcome, first: &Outcome) -> bool {
    let size = statemachine::outcome_to_wire(first.clone()).encoded_len();
    let is_lost = *outcome == Err(Rejection::OutcomeTooLarge);
    match first {
        // Its size is an estimate, and a range of the past is read after the commit.
        Ok(Response::Txn(_)) => is_lost || (outcome == first && size <= limits::OUTCOME_BYTES_MAX),
        _ if size > limits::OUTCOME_BYTES_MAX => is_lost,
        _ => outcome == first,
    }
}

#[test]
fn a_duplicate_gets_the_first_outcome_and_changes_nothing() {
    law("exactly once", 800, (recorder::plans(40), cuts()), |(plans, cuts)| {
        exactly_once(plans, &cuts)
    });
}

pub(crate) fn exactly_once(plans: Vec<EntryPlan>, cuts: &[usize]) -> Verdict {
    let without_repeats: Vec<EntryPlan> = plans
        .iter()
        .map(|runs| {
            let is_first = |run: &&RunPlan| !matches!(run, RunPlan::Again { .. });
            runs.iter().filter(is_first).cloned().collect()
        })
        .collect();
    let Recorded { entries, first_outcomes, applied, machine } = recorder::record(plans);
    let once = recorder::record(without_repeats);
    prop_assert_eq!(effects(&machine.store), effects(&once.machine.store));
    prop_assert_eq!(
        summary::of_content(&machine.state, &machine.store),
        summary::of_content(&once.machine.state, &once.machine.store)
    );
    for (id, outcome) in applied.iter().flat_map(|applied| &applied.outcomes) {
        let Some(first) = first_outcomes.get(id) else { continue };
        // Settled, or of an earlier start: the origin will not ask any more.
        let is_stale = *outcome == Err(Rejection::StaleRequest);
        prop_assert!(is_stale || outcome == first || is_repeated(outcome, first));
    }
    // The same holds within one chunk.
    let mut replica = Replica::new();
    let outcomes: Vec<_> =
        chunks(&entries, cuts).flat_map(|chunk| replica.apply(chunk).outcomes).collect();
    let recorded: Vec<_> = applied.into_iter().flat_map(|applied| applied.outcomes).collect();
    prop_assert_eq!(outcomes, recorded);
    Ok(())
}

#[test]
fn an_unsettled_command_proposed_again_at_once_is_answered() {
    let entries =
        prop::collection::vec(prop::collection::vec(commands::any_command(), 1..5), 1..12);
    law("a repeat is answered", 300, entries, |entries| {
        let mut machine = Machine::new();
        for kinds in entries {
            let kinds = kinds.into_iter().map(|kind| bound(&machine, kind)).collect();
            let entry = machine.entry(kinds);
            let first = machine.apply(std::slice::from_ref(&entry)).unwrap();
            let before = summary::of_content(&machine.state, &machine.store);
            let mut again = entry;
            again.meta.index = machine.index;
            machine.index += 1;
            let second = machine.apply(&[again]).unwrap();
            prop_assert!(second.events.is_empty());
            prop_assert_eq!(first.outcomes.len(), second.outcomes.len());
            for ((id, first), (again, second)) in first.outcomes.iter().zip(&second.outcomes) {
                prop_assert_eq!(id, again);
                prop_assert!(is_repeated(second, first), "{second:?} after {first:?}");
            }
            prop_assert_eq!(summary::of_content(&machine.state, &machine.store), before);
        }
        Ok(())
    });
}

#[test]
fn the_content_digest_equals_a_recomputation() {
    law("content digest", 400, recorder::plans(40), |plans| {
        let Recorded { entries, .. } = recorder::record(plans);
        let mut replica = Replica::new();
        for entry in &entries {
            replica.apply(std::slice::from_ref(entry));
            let recomputed = digest::recompute(&replica.store).unwrap();
            prop_assert_eq!(recomputed, replica.state.digests().content);
        }
        Ok(())
    });
}

#[test]
fn equal_content_has_equal_digests_whatever_the_way_there() {
    // Node ids, request ids, terms and times are no part of the content.
    let kinds = prop::collection::vec(commands::any_command(), 1..40);
    law("digest of content alone", 300, kinds, |kinds| {
        let mut one = Machine::new();
        let mut other = Machine::new();
        (other.node, other.term, other.origin, other.at_ms) = (7, 9, 3, 77);
        other.register(5);
        for kind in kinds {
            let kind = bound(&one, kind);
            prop_assert_eq!(one.run(kind.clone()).is_ok(), other.run(kind).is_ok());
        }
        prop_assert_eq!(one.state.digests().content, other.state.digests().content);
        prop_assert!(one.state.digests().chain != other.state.digests().chain);
        Ok(())
    });
}

#[test]
fn physical_compaction_at_any_moment_is_invisible() {
    let steps = prop::collection::vec(prop::option::weighted(0.4, 1usize..6), 40);
    law("physical compaction", 600, (recorder::plans(40), steps), |(plans, steps)| {
        let Recorded { entries, applied, machine, .. } = recorder::record(plans);
        let mut replica = Replica::new();
        for ((entry, recorded), step) in entries.iter().zip(&applied).zip(&steps) {
            prop_assert_eq!(
                &replica.apply(std::slice::from_ref(entry)).outcomes,
                &recorded.outcomes
            );
            if let Some(changes_max) = step {
                compact_a_little(&mut replica, *changes_max);
            }
        }
        prop_assert_eq!(
            summary::of_answers(&replica.state, &replica.store),
            summary::of_answers(&machine.state, &machine.store)
        );
        prop_assert_eq!(
            summary::of_state(&replica.state, &replica.store),
            summary::of_state(&machine.state, &machine.store)
        );
        let loaded = State::load(&replica.store).unwrap();
        prop_assert_eq!(
            summary::of_state(&loaded, &replica.store),
            summary::of_state(&machine.state, &machine.store)
        );
        let recomputed = digest::recompute(&replica.store).unwrap();
        prop_assert_eq!(recomputed, machine.state.digests().content);
        Ok(())
    });
}

/// One bounded step, as the background worker of a node takes it.
fn compact_a_little(replica: &mut Replica, changes_max: usize) {
    let compacted = replica.state.compacted_revision();
    let cursor = compaction::Cursor::load(&replica.store).unwrap();
    if !cursor.is_finished(compacted) {
        let step = compaction::step(&replica.store, compacted, cursor, changes_max).unwrap();
        replica.store.apply(&step.changes);
    }
}

#[test]
fn finished_physical_compaction_leaves_only_what_can_be_seen() {
    let kinds = prop::collection::vec(commands::etcd_command(), 1..80);
    law("compaction frees", 300, kinds, |kinds| {
        let mut machine = Machine::new();
        for kind in kinds {
            let kind = bound(&machine, kind);
            let _either = machine.run(kind);
        }
        machine.compact_rows(3);
        let compacted = machine.state.compacted_revision();
        let kept = machine.store.rows(Table::Event).count();
        // A put that its own transaction deleted again is an event, and no version.
        let newer = summary::events(&machine.store, compacted, machine.state.revision());
        let changed: BTreeSet<_> =
            newer.iter().map(|event| (event.revision, event.key().clone())).collect();
        let n_undone = newer.len() - changed.len();
        prop_assert_eq!(kept, machine.store.rows(Table::Version).count() + n_undone);
        if compacted > 0 {
            let visible = summary::fetch(
                &machine.state,
                &machine.store,
                &summary::whole_range(compacted.max(1)),
            );
            let older = visible.kvs.iter().filter(|kv| kv.mod_revision < compacted).count();
            prop_assert_eq!(kept, older + newer.len());
        }
        Ok(())
    });
}

#[test]
fn foreign_bytes_below_any_prefix_stop_nothing() {
    let key = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..20),
        "by-dev/meta/(session|channelwatch|root-coord/(database|fields)|snapshots)/.{0,12}"
            .prop_map(String::into_bytes),
    ];
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let puts = prop::collection::vec((key, value), 1..40);
    law("foreign bytes", 300, puts, |puts| {
        let mut machine = Machine::new();
        for (key, value) in puts {
            let put = proto::etcd::PutRequest {
                key: key.into(),
                value: value.into(),
                ..Default::default()
            };
            prop_assert!(machine.run(Kind::Put(put)).is_ok());
        }
        let loaded = State::load(&machine.store).unwrap();
        prop_assert_eq!(loaded.views(), machine.state.views());
        Ok(())
    });
}

#[test]
fn only_the_entry_s_own_leadership_opens_a_fence() {
    law("fences", 300, recorder::plans(20), |plans| {
        let wrong: usize = fences(&plans, |fence| matches!(fence, FencePlan::Wrong));
        let Recorded { applied, .. } = recorder::record(plans);
        let refused = applied
            .iter()
            .flat_map(|applied| &applied.outcomes)
            .filter(|(_, outcome)| matches!(outcome, Err(Rejection::StaleFence { .. })))
            .count();
        // Repeats get the refusal again; runs of unregistered origins never came.
        prop_assert!(wrong > 0 || refused == 0);
        Ok(())
    });
}

fn fences(plans: &[recorder::EntryPlan], is: impl Fn(&FencePlan) -> bool) -> usize {
    let runs = plans.iter().flatten();
    runs.map(|run| match run {
        RunPlan::Fresh { commands, .. } => commands.iter().filter(|(_, fence)| is(fence)).count(),
        RunPlan::Again { .. } | RunPlan::Restart { .. } => 0,
    })
    .sum()
}

#[test]
fn encoded_batches_concatenate() {
    // A leader builds an entry out of encoded runs without decoding them.
    law("batches concatenate", 100, recorder::plans(4), |plans| {
        let Recorded { entries, .. } = recorder::record(plans);
        let batches: Vec<_> = entries
            .iter()
            .map(|entry| proto::quorate::Batch::decode(entry.batch.clone()).unwrap())
            .collect();
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.batch.to_vec()).collect();
        let joined = proto::quorate::Batch::decode(&bytes[..]).unwrap();
        let runs: Vec<_> = batches.into_iter().flat_map(|batch| batch.runs).collect();
        prop_assert_eq!(joined.runs, runs);
        Ok(())
    });
}
