use std::fmt::Write;

use expect_test::expect;
use proto::quorate;
use proto::quorate::coordinator_command::Area;
use proto::quorate::garbage_command::Kind;

use crate::response::{Rejection, Response};
use crate::testkit::Machine;

fn on() -> Machine {
    let mut machine = Machine::new();
    let role = quorate::SetRole { on: true, raw_writes: false };
    let kind = quorate::channel_command::Kind::SetRole(role);
    run(&mut machine, Area::Channel(quorate::ChannelCommand { kind: Some(kind) }))
        .expect("the role is switched on");
    machine
}

fn run(machine: &mut Machine, area: Area) -> Result<Response, Rejection> {
    let command = quorate::CoordinatorCommand { area: Some(area) };
    let outcome = machine.run(quorate::command::Kind::Coordinator(command));
    machine.check();
    outcome
}

fn garbage(machine: &mut Machine, kind: Kind) -> String {
    let area = Area::Garbage(quorate::GarbageCommand { kind: Some(kind) });
    let mut told = match run(machine, area) {
        Ok(_done) => "done".to_owned(),
        Err(rejection) => rejection.to_string(),
    };
    let pause = machine.state.views().garbage();
    let left_ms = pause.until_ms.saturating_sub(machine.state.at_ms());
    write!(told, ", {left_ms} ms left").expect("a string grows");
    told
}

fn pause(duration_ms: u64) -> Kind {
    Kind::Pause(quorate::PauseGarbage { duration_ms })
}

#[test]
fn a_pause_never_shortens_an_earlier_one_and_ends_when_it_is_told() {
    let mut machine = on();
    let mut told = String::new();
    let resume = Kind::Resume(quorate::ResumeGarbage {});
    for kind in [pause(0), pause(5000), pause(1000), pause(9000), resume, resume] {
        writeln!(told, "{}", garbage(&mut machine, kind)).expect("a string grows");
    }
    expect![[r#"
        duration cannot be 0: a pause takes time, 0 ms left
        done, 5000 ms left
        done, 5000 ms left
        done, 9000 ms left
        done, 0 ms left
        done, 0 ms left
    "#]]
    .assert_eq(&told);
}

#[test]
fn what_a_restore_holds_back_is_resumed_by_an_operator() {
    let mut machine = on();
    let changes = crate::transplant::into_new_cluster(&machine.store, 0).unwrap();
    machine.store.apply(&changes);
    machine.state = crate::State::load(&machine.store).unwrap();
    machine.register(1);
    assert!(machine.state.settings().garbage_held);
    garbage(&mut machine, pause(1));
    assert!(machine.state.settings().garbage_held, "a pause that ends does not end this");
    garbage(&mut machine, Kind::Resume(quorate::ResumeGarbage {}));
    assert!(!machine.state.settings().garbage_held);
}
