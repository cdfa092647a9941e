//! Each field of a command has a level, obeyed before the log and in it, whatever a binary knows.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind as FieldKind};
use prost_reflect::{MessageDescriptor, Value};
use proto::quorate::command::Kind;
use proto::{etcd, quorate};
use statemachine::admission::admit_run;
use statemachine::admission::fields::{FIELDS, Fields};
use statemachine::testkit::Machine;
use statemachine::versions::{COORDINATOR, KEYSPACE, KNOWN_LEVEL};
use statemachine::{Alarm, AlarmKind, Applied, Rejection, Response};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(proto::DESCRIPTORS).unwrap()
}

/// Every message that a run can hold, with the fields that lead to it from the run.
fn reachable(pool: &DescriptorPool) -> BTreeMap<String, (MessageDescriptor, Vec<FieldDescriptor>)> {
    let run = pool.get_message_by_name("quorate.v1.Run").unwrap();
    let mut found = BTreeMap::from([(run.full_name().to_owned(), (run.clone(), Vec::new()))]);
    let mut next = VecDeque::from([(run, Vec::new())]);
    while let Some((message, path)) = next.pop_front() {
        for field in message.fields() {
            let FieldKind::Message(inner) = field.kind() else { continue };
            if found.contains_key(inner.full_name()) {
                continue;
            }
            let path: Vec<FieldDescriptor> = path.iter().cloned().chain([field]).collect();
            found.insert(inner.full_name().to_owned(), (inner.clone(), path.clone()));
            next.push_back((inner, path));
        }
    }
    found
}

fn rows_of<'a>(message: &'a str, number: u32) -> impl Iterator<Item = &'static Fields> + 'a {
    FIELDS
        .iter()
        .filter(move |row| row.message == message && (row.first..=row.last).contains(&number))
}

#[test]
fn every_field_of_a_run_has_one_row_and_every_row_a_field() {
    let reachable = reachable(&pool());
    let mut findings = Vec::new();
    for (name, (message, _)) in &reachable {
        for field in message.fields() {
            let n_rows = rows_of(name, field.number()).count();
            if n_rows != 1 {
                findings.push(format!("{name} field {} ({n_rows} rows)", field.full_name()));
            }
        }
    }
    for row in FIELDS {
        let message = reachable.get(row.message).map(|(message, _)| message);
        let is_field = |number| message.is_some_and(|it| it.get_field(number).is_some());
        if !(row.first..=row.last).all(is_field) || row.since > KNOWN_LEVEL {
            findings.push(format!("no such fields, or no such level: {row:?}"));
        }
    }
    assert!(
        findings.is_empty(),
        "statemachine/src/admission/fields.rs needs one row for each field that may stand in the \
         log:\n{}",
        findings.join("\n")
    );
}

/// A value that is not left out of the encoding.
fn some_value(kind: &FieldKind) -> Value {
    match kind {
        FieldKind::Double => Value::F64(1.0),
        FieldKind::Float => Value::F32(1.0),
        FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => Value::I32(1),
        FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64 => Value::I64(1),
        FieldKind::Uint32 | FieldKind::Fixed32 => Value::U32(1),
        FieldKind::Uint64 | FieldKind::Fixed64 => Value::U64(1),
        FieldKind::Bool => Value::Bool(true),
        FieldKind::String => Value::String("x".to_owned()),
        FieldKind::Bytes => Value::Bytes(Bytes::from_static(b"x")),
        FieldKind::Message(message) => Value::Message(DynamicMessage::new(message.clone())),
        FieldKind::Enum(_) => Value::EnumNumber(1),
    }
}

fn set(message: &mut DynamicMessage, field: &FieldDescriptor, value: Value) {
    let value = if field.is_list() { Value::List(vec![value]) } else { value };
    message.set_field(field, value);
}

/// A run of one command that holds `field` at the end of `path`.
fn run_with(pool: &DescriptorPool, path: &[FieldDescriptor], field: &FieldDescriptor) -> Bytes {
    let mut value = some_value(&field.kind());
    let mut field = field;
    for outer in path.iter().rev() {
        let mut message = DynamicMessage::new(field.parent_message().clone());
        set(&mut message, field, value);
        value = Value::Message(message);
        field = outer;
    }
    let mut run = DynamicMessage::new(pool.get_message_by_name("quorate.v1.Run").unwrap());
    run.set_field_by_number(1, Value::U64(1));
    set(&mut run, field, value);
    run.encode_to_vec().into()
}

#[test]
fn a_field_is_refused_below_its_level_and_admitted_from_it_on() {
    let pool = pool();
    let reachable = reachable(&pool);
    let mut n_checked = 0;
    for row in FIELDS.iter().filter(|row| row.since > KEYSPACE) {
        let (message, path) = &reachable[row.message];
        for number in row.first..=row.last {
            let field = message.get_field(number).unwrap();
            let run = run_with(&pool, path, &field);
            let below = admit_run(&run, 1, 1, row.since - 1);
            assert!(below.is_err(), "{} below level {}", field.full_name(), row.since);
            assert_eq!(admit_run(&run, 1, 1, row.since), Ok(()), "{}", field.full_name());
            n_checked += 1;
        }
    }
    assert!(n_checked > 200, "only {n_checked} fields were checked");
}

/// A command as a newer binary has it: a put has one more field, and there is one more kind.
#[derive(Clone, PartialEq, Message)]
struct NewerCommand {
    #[prost(message, optional, tag = "2")]
    put: Option<NewerPut>,
    #[prost(message, optional, tag = "200")]
    newer: Option<Newer>,
}

#[derive(Clone, PartialEq, Message)]
struct NewerPut {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(uint64, tag = "99")]
    newer: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Newer {
    #[prost(string, tag = "1")]
    what: String,
}

#[derive(Clone, PartialEq, Message)]
struct NewerRun {
    #[prost(uint64, tag = "1")]
    origin: u64,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    first_seq: u64,
    #[prost(uint64, tag = "4")]
    settled_below: u64,
    #[prost(message, repeated, tag = "5")]
    commands: Vec<NewerCommand>,
}

fn put(key: &'static str) -> Kind {
    Kind::Put(etcd::PutRequest { key: key.into(), value: "1".into(), ..Default::default() })
}

fn newer_run(machine: &mut Machine, commands: Vec<NewerCommand>) -> Bytes {
    let first_seq = machine.next_seq;
    machine.next_seq += commands.len() as u64;
    let (origin, epoch) = (machine.origin, machine.epoch);
    let settled_below = machine.settled_below;
    NewerRun { origin, epoch, first_seq, settled_below, commands }.encode_to_vec().into()
}

fn sound_run(machine: &mut Machine, kinds: Vec<Kind>) -> Bytes {
    let entry = machine.entry(kinds);
    machine.index -= 1;
    quorate::Batch::decode(entry.batch).unwrap().runs.remove(0)
}

fn newer_put(newer: u64) -> NewerCommand {
    let put = NewerPut { key: "k".into(), value: "v".into(), newer };
    NewerCommand { put: Some(put), newer: None }
}

fn newer_kind() -> NewerCommand {
    NewerCommand { put: None, newer: Some(Newer { what: "x".to_owned() }) }
}

fn refused_at(level: u32) -> Result<Response, Rejection> {
    Err(Rejection::UnreadableRun { level })
}

fn revisions(applied: &Applied) -> Vec<i64> {
    applied.events.iter().map(|event| event.revision).collect()
}

#[test]
fn a_run_with_a_newer_kind_or_field_is_refused_alone() {
    for strange in [newer_put(5), newer_kind()] {
        let mut machine = Machine::new();
        let before = sound_run(&mut machine, vec![put("a"), put("b")]);
        let refused = newer_run(&mut machine, vec![newer_put(0), strange, newer_put(0)]);
        let after = sound_run(&mut machine, vec![put("c")]);
        let entry = machine.entry_of_bytes(vec![before, refused, after]);
        let applied = machine.apply(&[entry]).unwrap();
        let outcomes: Vec<_> = applied.outcomes.iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes[2..5], [&refused_at(KNOWN_LEVEL); 3], "{outcomes:?}");
        assert!([0, 1, 5].into_iter().all(|nth: usize| outcomes[nth].is_ok()), "{outcomes:?}");
        assert_eq!(revisions(&applied), [2, 3, 4], "the next run goes on as if it were not there");
        assert_eq!(applied.refused.len(), 1);
        let alarms: Vec<Alarm> = machine.state.alarms().collect();
        assert_eq!(alarms, [Alarm { kind: AlarmKind::Unreadable, member: machine.node }]);
        machine.run(put("d")).expect("the alarm blocks nothing");
        machine.check();
    }
}

#[test]
fn a_newer_command_without_what_is_newer_is_like_any_other() {
    let mut machine = Machine::new();
    let run = newer_run(&mut machine, vec![newer_put(0)]);
    let entry = machine.entry_of_bytes(vec![run]);
    assert!(machine.apply(&[entry]).unwrap().outcomes[0].1.is_ok());
}

/// Applies a strange run of two commands and a sound one to a machine at `level`.
fn digests_after(level: u32, strange: &dyn Fn(&mut Machine) -> Bytes) -> String {
    let mut machine = Machine::at_level(level);
    let strange = strange(&mut machine);
    let sound = sound_run(&mut machine, vec![put("a")]);
    let entry = machine.entry_of_bytes(vec![strange, sound]);
    let applied = machine.apply(&[entry]).unwrap();
    machine.check();
    let outcomes: Vec<_> =
        applied.outcomes.iter().map(|(id, it)| format!("{id:?} {it:?}")).collect();
    format!("{:?}\n{}", machine.state.digests(), outcomes.join("\n"))
}

#[test]
fn a_binary_that_knows_a_command_refuses_it_as_one_that_does_not() {
    // The coordinator's commands are known here and above the first level; the others are what a
    // binary of the first level sees in their place.
    let known = |machine: &mut Machine| {
        let role = quorate::SetRole { on: true, raw_writes: false };
        let kind = quorate::channel_command::Kind::SetRole(role);
        let area = quorate::ChannelCommand { kind: Some(kind) };
        let area = quorate::coordinator_command::Area::Channel(area);
        let command = quorate::CoordinatorCommand { area: Some(area) };
        sound_run(machine, vec![put("b"), Kind::Coordinator(command)])
    };
    let unknown_kind = |machine: &mut Machine| newer_run(machine, vec![newer_put(0), newer_kind()]);
    let unknown_field =
        |machine: &mut Machine| newer_run(machine, vec![newer_put(0), newer_put(7)]);
    let undecodable = |machine: &mut Machine| {
        let run = sound_run(machine, vec![put("b"), put("b")]);
        let mut bytes = run.to_vec();
        // The length of the last command's key goes beyond its end.
        let at = bytes.len() - 5;
        assert_eq!(bytes[at - 1..=at], [0x0a, 0x01]);
        bytes[at] = 0x7f;
        bytes.into()
    };
    let expected = digests_after(KEYSPACE, &known);
    assert!(expected.contains("UnreadableRun { level: 1 }"), "{expected}");
    assert_eq!(digests_after(KEYSPACE, &unknown_kind), expected);
    assert_eq!(digests_after(KEYSPACE, &unknown_field), expected);
    assert_eq!(digests_after(KEYSPACE, &undecodable), expected);
    assert!(!digests_after(COORDINATOR, &known).contains("Unreadable"));
}

#[test]
fn a_refused_run_stays_refused_after_the_level_has_risen() {
    let mut machine = Machine::at_level(KEYSPACE);
    let command = quorate::CoordinatorCommand { area: None };
    let run = sound_run(&mut machine, vec![put("a"), Kind::Coordinator(command)]);
    let first = machine.entry_of_bytes(vec![run.clone()]);
    let refused = machine.apply(&[first]).unwrap().outcomes;
    machine.run(Kind::RaiseLevel(quorate::RaiseLevel { level: COORDINATOR })).unwrap();
    let revision = machine.state.revision();
    let again = machine.entry_of_bytes(vec![run]);
    assert_eq!(machine.apply(&[again]).unwrap().outcomes, refused);
    assert_eq!(machine.state.revision(), revision);
    machine.check();
}

#[test]
fn garbage_where_runs_or_a_batch_should_be_stops_nothing() {
    let mut machine = Machine::new();
    let garbage: Vec<Bytes> =
        [&b""[..], b"\xff", b"not a run", b"\x2a\xff\xff\xff\xff\x0f", b"\x08"]
            .into_iter()
            .map(Bytes::from_static)
            .collect();
    let entry = machine.entry_of_bytes(garbage);
    let applied = machine.apply(&[entry]).unwrap();
    // An empty run is a run without commands.
    assert_eq!(applied.refused.len(), 4);
    assert_eq!(applied.outcomes, []);
    for batch in [&b"\xff"[..], b"not a batch", b"\x12\x7f", b"\x08\x01\x1a\x00"] {
        let mut entry = machine.entry_of_bytes(Vec::new());
        entry.batch = Bytes::from_static(batch);
        assert_eq!(machine.apply(&[entry]).unwrap().refused.len(), 1);
    }
    machine.check();
    machine.run(put("a")).unwrap();
}

#[test]
fn a_list_of_alarms_holds_those_of_etcd_and_ours_are_asked_for_by_number() {
    let mut machine = Machine::new();
    let entry = machine.entry_of_bytes(vec![Bytes::from_static(b"\xff")]);
    machine.apply(&[entry]).unwrap();
    let mut ask = |action: etcd::alarm_request::AlarmAction, alarm: i32| {
        let request = etcd::AlarmRequest { action: action.into(), member_id: 1, alarm };
        match machine.run(Kind::Alarm(request)) {
            Ok(Response::Alarm(response)) => Ok(response.alarms.len()),
            other => Err(format!("{other:?}")),
        }
    };
    use etcd::alarm_request::AlarmAction;
    assert_eq!(ask(AlarmAction::Get, 0), Ok(0));
    assert_eq!(ask(AlarmAction::Get, 100), Ok(1));
    assert!(ask(AlarmAction::Get, 101).is_err());
    assert_eq!(ask(AlarmAction::Deactivate, 100), Ok(1));
    assert_eq!(ask(AlarmAction::Get, 100), Ok(0));
}
