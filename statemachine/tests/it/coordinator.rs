//! The laws for the coordinator's commands: of all areas, on so few things that everything
//! collides, with raw writes of junk and of a data node's answers between them.

mod commands;
mod golden;

use proptest::prelude::*;
use proptest::{prop_assert, prop_assert_eq};
use proto::etcd;
use proto::quorate::command::Kind;
use statemachine::State;
use statemachine::testkit::Machine;

use crate::laws;
use crate::recorder::{self, EntryPlan, FencePlan, RunPlan};
use crate::runner::law;

/// The role is on from the second entry on, and raw writes are let through.
fn plans(n_entries: usize) -> impl Strategy<Value = Vec<EntryPlan>> {
    recorder::plans_of(commands::any_command(), n_entries).prop_map(|rest| {
        let fresh = |commands| RunPlan::Fresh { origin: 1, commands, settles: 0 };
        // Whatever an origin that nobody knows asks first becomes its registration.
        let register = fresh(vec![(commands::role(true, true), FencePlan::None)]);
        let begin = vec![vec![register.clone()], vec![register]];
        begin.into_iter().chain(rest).collect()
    })
}

#[test]
fn the_same_log_gives_the_same_bytes_however_it_is_cut() {
    law("same log, same records", 800, (plans(40), laws::cuts()), |(plans, cuts)| {
        laws::same_bytes(plans, &cuts)
    });
}

#[test]
fn a_state_loaded_at_any_moment_equals_the_running_one_and_goes_on_like_it() {
    let inputs = (plans(40), any::<prop::sample::Index>(), laws::cuts());
    law("records load as they ran", 600, inputs, |(plans, moment, cuts)| {
        laws::load_equals_run(plans, moment, &cuts)
    });
}

#[test]
fn a_duplicate_gets_the_first_outcome_and_changes_nothing() {
    law("records exactly once", 600, (plans(30), laws::cuts()), |(plans, cuts)| {
        laws::exactly_once(plans, &cuts)
    });
}

#[test]
fn a_refused_command_changes_nothing() {
    let kinds = prop::collection::vec(commands::any_command(), 1..80);
    law("refused changes no record", 400, kinds, |mut kinds| {
        kinds.insert(0, commands::role(true, true));
        laws::rejected_changes_nothing(kinds)
    });
}

#[test]
fn every_kind_of_command_is_accepted_and_refused_somewhere() {
    // The other laws say little if the random commands never get anywhere.
    let mut seen = std::collections::BTreeMap::<&'static str, (usize, usize)>::new();
    let counted = std::cell::RefCell::new(&mut seen);
    let kinds = prop::collection::vec(commands::any_command(), 200..300);
    law("commands get somewhere", 150, kinds, |kinds| {
        let mut machine = Machine::new();
        // A whole life first: random plans of compaction hardly ever find their results.
        let life = golden::life().files.into_iter().flat_map(|(_, kinds)| kinds);
        let again = commands::role(true, true);
        for kind in life.chain([again]).chain(kinds) {
            let name = commands::name(&kind);
            let outcome = machine.run(kind);
            let mut counted = counted.borrow_mut();
            let (done, refused) = counted.entry(name).or_default();
            match outcome {
                Ok(statemachine::Response::Coordinator(outcome)) => {
                    let is_setting = matches!(name, "role" | "control" | "garbage");
                    *done += usize::from(
                        is_setting
                            || !outcome.changed.is_empty()
                            || !outcome.changed_names.is_empty(),
                    );
                    *refused += usize::from(!outcome.refused.is_empty());
                }
                Ok(_) => *done += 1,
                Err(_) => *refused += 1,
            }
        }
        Ok(())
    });
    let idle: Vec<_> = seen.iter().filter(|(_, (done, _))| *done == 0).collect();
    assert!(idle.is_empty(), "never did anything: {idle:?} of {seen:?}");
}

#[test]
fn junk_below_owned_prefixes_stops_nothing() {
    let inputs = prop::collection::vec((commands::junk(), commands::any_command()), 1..60);
    law("junk among records", 400, inputs, |pairs| {
        let mut machine = Machine::new();
        machine.run(commands::role(true, true)).unwrap();
        for (junk, command) in pairs {
            let is_open = machine.state.settings().raw_writes;
            let put = machine.run(junk);
            prop_assert!(put.is_ok() || !is_open, "{put:?}");
            // Whatever it says of the junk, the next one is carried out.
            let _either = machine.run(command);
        }
        let loaded = State::load(&machine.store).unwrap();
        prop_assert_eq!(loaded.views(), machine.state.views());
        machine.check();
        Ok(())
    });
}

#[test]
fn with_the_role_on_owned_keys_are_written_by_commands_only() {
    let kinds = prop::collection::vec((commands::junk(), commands::any_command()), 1..40);
    law("owned keys", 300, kinds, |pairs| {
        let mut machine = Machine::new();
        machine.run(commands::role(true, false)).unwrap();
        for (junk, command) in pairs {
            let settings = machine.state.settings().clone();
            let Kind::Put(put) = &junk else { continue };
            let is_ours = !put.key.starts_with(b"by-dev/meta/channelwatch/");
            let refused = machine.run(junk.clone()).is_err();
            let is_shut = settings.coordinator && !settings.raw_writes;
            prop_assert_eq!(refused, is_shut && is_ours, "{:?}", put);
            let everything = etcd::DeleteRangeRequest {
                key: b"by-dev/".to_vec().into(),
                range_end: b"by-dev0".to_vec().into(),
                ..Default::default()
            };
            if is_shut {
                prop_assert!(machine.run(Kind::DeleteRange(everything)).is_err());
            }
            let _either = machine.run(command);
        }
        Ok(())
    });
}
