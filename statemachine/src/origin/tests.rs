use proto::etcd;
use proto::quorate;
use proto::quorate::command::Kind;

use super::*;
use crate::response::Response;
use crate::testkit::Machine;

fn put(key: &str) -> quorate::Command {
    let request = etcd::PutRequest { key: key.to_owned().into(), ..Default::default() };
    quorate::Command { fence: None, kind: Some(Kind::Put(request)) }
}

fn get_all() -> quorate::Command {
    let range =
        etcd::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let op = etcd::request_op::Request::RequestRange(range);
    let success = vec![etcd::RequestOp { request: Some(op) }];
    let request = etcd::TxnRequest { success, ..Default::default() };
    quorate::Command { fence: None, kind: Some(Kind::Txn(request)) }
}

fn run_of(
    machine: &mut Machine,
    first_seq: u64,
    settled_below: u64,
    commands: Vec<quorate::Command>,
) -> Vec<Outcome> {
    let run = quorate::Run {
        origin: machine.origin,
        epoch: machine.epoch,
        first_seq,
        settled_below,
        commands,
    };
    let entry = machine.entry_of_runs(vec![run]);
    let applied = machine.apply(&[entry]).unwrap();
    machine.check();
    applied.outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn revision(outcome: &Outcome) -> i64 {
    match outcome {
        Ok(Response::Put(response)) => response.header.as_ref().unwrap().revision,
        other => panic!("a put was answered with {other:?}"),
    }
}

#[test]
fn a_duplicate_gets_the_first_outcome_and_changes_nothing() {
    let mut machine = Machine::new();
    let commands = || vec![put("a"), put(""), put("b"), put("c"), get_all()];
    let first = run_of(&mut machine, 10, 0, commands());
    assert_eq!((revision(&first[0]), revision(&first[3])), (2, 4));
    assert_eq!(first[1], Err(Rejection::EmptyKey));
    let before = machine.state.digests().content;
    assert_eq!(run_of(&mut machine, 10, 0, commands()), first);
    assert_eq!((machine.state.revision(), machine.state.digests().content), (4, before));
    // In other runs than before, and with new commands around.
    let mixed = run_of(&mut machine, 9, 0, vec![put("d"), put("a"), put("")]);
    assert_eq!(revision(&mixed[0]), 5);
    assert_eq!(mixed[1..], first[..2]);
    let mixed = run_of(&mut machine, 13, 0, vec![put("c"), get_all(), put("e"), put("f")]);
    assert_eq!(mixed[..2], first[3..]);
    assert_eq!((revision(&mixed[2]), revision(&mixed[3])), (6, 7));
    assert_eq!(machine.state.n_unsettled_outcomes(), 8);
}

#[test]
fn settled_outcomes_are_forgotten_and_their_duplicates_refused() {
    let mut machine = Machine::new();
    run_of(&mut machine, 1, 0, vec![put("a"), put("b")]);
    run_of(&mut machine, 3, 0, vec![put("c")]);
    assert_eq!(machine.state.n_unsettled_outcomes(), 3);
    // A row goes when all of it is settled.
    run_of(&mut machine, 4, 2, vec![put("d")]);
    assert_eq!(machine.state.n_unsettled_outcomes(), 4);
    assert_eq!(run_of(&mut machine, 1, 2, vec![put("a")]), [Err(Rejection::StaleRequest)]);
    assert!(run_of(&mut machine, 2, 2, vec![put("b")])[0].is_ok());
    run_of(&mut machine, 5, 4, vec![put("e")]);
    assert_eq!(machine.state.n_unsettled_outcomes(), 2);
    // An old run that comes late does not lower the floor.
    assert_eq!(run_of(&mut machine, 3, 0, vec![put("c")]), [Err(Rejection::StaleRequest)]);
    assert_eq!(machine.state.revision(), 6);
}

#[test]
fn a_new_start_makes_the_old_one_stale() {
    let mut machine = Machine::new();
    run_of(&mut machine, 1, 0, vec![put("a")]);
    let old_epoch = machine.epoch;
    machine.register(77);
    assert!(machine.epoch > old_epoch);
    assert_eq!(machine.state.n_unsettled_outcomes(), 0);
    let fresh = run_of(&mut machine, 1, 0, vec![put("a")]);
    assert_eq!(revision(&fresh[0]), 3);
    let epoch = std::mem::replace(&mut machine.epoch, old_epoch);
    assert_eq!(run_of(&mut machine, 2, 0, vec![put("a")]), [Err(Rejection::StaleRequest)]);
    machine.epoch = epoch;
    // The same start once more: its registration was proposed again.
    machine.register(77);
    assert_eq!(machine.epoch, epoch);
    assert_eq!(run_of(&mut machine, 1, 0, vec![put("a")]), fresh);
}

#[test]
fn an_unknown_origin_is_stale() {
    let mut machine = Machine::new();
    machine.origin = 9;
    for epoch in [0, 1, 5] {
        machine.epoch = epoch;
        assert_eq!(run_of(&mut machine, 1, 0, vec![put("a")]), [Err(Rejection::StaleRequest)]);
    }
    machine.origin = 1;
    machine.epoch = 1;
    for seq in [limits::SEQ_MAX, u64::MAX] {
        assert_eq!(run_of(&mut machine, seq, 0, vec![put("a")]), [Err(Rejection::StaleRequest)]);
    }
    assert_eq!(machine.state.origins().collect::<Vec<_>>(), [(1, 1)]);
}

#[test]
fn a_registration_for_another_node_is_refused() {
    let mut machine = Machine::new();
    let register = quorate::RegisterOrigin { node: 2, nonce: 5 };
    assert_eq!(machine.run(Kind::RegisterOrigin(register)), Err(Rejection::StaleRequest));
    assert_eq!(machine.state.origins().count(), 1);
}

#[test]
fn without_a_nonce_the_first_number_is_it() {
    let mut machine = Machine::new();
    let mut register = |first_seq| {
        let kind = Kind::RegisterOrigin(quorate::RegisterOrigin { node: 2, nonce: 0 });
        let commands = vec![quorate::Command { fence: None, kind: Some(kind) }];
        let run = quorate::Run { origin: 2, epoch: 0, first_seq, settled_below: 0, commands };
        let entry = machine.entry_of_runs(vec![run]);
        machine.apply(&[entry]).unwrap().outcomes.pop().unwrap().1
    };
    let first = register(1_000);
    assert_eq!(first, Ok(Response::OriginRegistered { epoch: 2 }));
    assert_eq!(register(1_000), first);
    assert_eq!(register(1_001), Ok(Response::OriginRegistered { epoch: 4 }));
}

#[test]
fn a_large_outcome_is_not_kept_but_remembered() {
    let mut machine = Machine::new();
    let value = vec![b'v'; limits::OUTCOME_BYTES_MAX];
    let large = etcd::PutRequest { key: "a".into(), value: value.into(), ..Default::default() };
    machine.run(Kind::Put(large)).unwrap();
    assert!(run_of(&mut machine, 50, 0, vec![put("b"), get_all(), put("c")])[1].is_ok());
    let again = run_of(&mut machine, 50, 0, vec![put("b"), get_all(), put("c")]);
    assert_eq!((revision(&again[0]), revision(&again[2])), (3, 4));
    assert_eq!(again[1], Err(Rejection::OutcomeTooLarge));
}

#[test]
fn outcomes_are_bounded_by_giving_up_the_oldest() {
    let mut machine = Machine::new();
    let per_run = 4_096;
    let n_runs = limits::ORIGIN_OUTCOMES_MAX / per_run + 2;
    for nth in 0..n_runs {
        let commands = vec![put(""); usize::try_from(per_run).unwrap()];
        let run = quorate::Run {
            origin: 1,
            epoch: machine.epoch,
            first_seq: 1 + nth * per_run,
            settled_below: 0,
            commands,
        };
        let entry = machine.entry_of_runs(vec![run]);
        machine.apply(&[entry]).unwrap();
    }
    assert_eq!(machine.state.n_unsettled_outcomes(), limits::ORIGIN_OUTCOMES_MAX);
    assert_eq!(
        run_of(&mut machine, 2 * per_run, 0, vec![put("a"), put("a")]),
        [Err(Rejection::StaleRequest), Err(Rejection::EmptyKey)]
    );
}

#[test]
fn origins_are_bounded_by_forgetting_the_oldest() {
    let mut machine = Machine::new();
    run_of(&mut machine, 1, 0, vec![put("a")]);
    for node in 2..300 {
        machine.origin = node;
        machine.register(1);
    }
    machine.check();
    assert_eq!(machine.state.origins().count(), limits::ORIGINS_MAX);
    assert_eq!(machine.state.origins().next().map(|(node, _)| node), Some(44));
}

/// Registers as many origins as are kept, of which 1 is the oldest.
fn crowd(machine: &mut Machine) {
    for node in 2..=limits::ORIGINS_MAX as u64 {
        machine.origin = node;
        machine.register(1);
    }
}

fn registration(node: u64) -> quorate::Run {
    let register = quorate::RegisterOrigin { node, nonce: 1 };
    let kind = Some(Kind::RegisterOrigin(register));
    let commands = vec![quorate::Command { fence: None, kind }];
    quorate::Run { origin: node, commands, ..Default::default() }
}

fn is_known(machine: &Machine, node: u64) -> bool {
    machine.state.origins().any(|(known, _)| known == node)
}

#[test]
fn origins_that_are_no_members_go_first() {
    let mut machine = Machine::new();
    machine.members = [1, 7, 9].into();
    crowd(&mut machine);
    for node in 1_000..1_300 {
        machine.origin = node;
        machine.register(1);
    }
    machine.check();
    assert_eq!(machine.state.origins().count(), limits::ORIGINS_MAX);
    for member in [1, 7, 9] {
        assert!(is_known(&machine, member), "a member keeps its outcomes");
    }
}

#[test]
fn which_origin_goes_does_not_depend_on_the_chunk() {
    // The oldest origin proposes in the chunk in which another one takes its place.
    let states = [1, 3].map(|entries_at_once| {
        let mut machine = Machine::new();
        crowd(&mut machine);
        let run = |first_seq| quorate::Run {
            origin: 1,
            epoch: 1,
            first_seq,
            settled_below: 0,
            commands: vec![put("a")],
        };
        let entries = [
            machine.entry_of_runs(vec![run(1)]),
            machine.entry_of_runs(vec![registration(1_000)]),
            machine.entry_of_runs(vec![run(2), registration(1_000)]),
        ];
        let outcomes: Vec<Outcome> = entries
            .chunks(entries_at_once)
            .flat_map(|chunk| machine.apply(chunk).unwrap().outcomes)
            .map(|(_, outcome)| outcome)
            .collect();
        machine.check();
        assert!(!is_known(&machine, 1));
        assert_eq!(outcomes[2], Err(Rejection::StaleRequest));
        (machine.store.clone(), outcomes)
    });
    assert!(states[0] == states[1]);
}

#[test]
fn every_outcome_comes_back_from_its_row() {
    let header = Response::header(5);
    let kv = etcd::KeyValue { key: "k".into(), value: "v".into(), ..Default::default() };
    let put = |revision| {
        Ok(Response::Put(etcd::PutResponse { header: Response::header(revision), prev_kv: None }))
    };
    let outcomes: Vec<Outcome> = vec![
        put(7),
        put(8),
        put(10),
        Ok(Response::Put(etcd::PutResponse { header, prev_kv: Some(kv) })),
        put(11),
        Ok(Response::DeleteRange(etcd::DeleteRangeResponse { deleted: 3, ..Default::default() })),
        Ok(Response::Txn(etcd::TxnResponse { succeeded: true, ..Default::default() })),
        Ok(Response::Compact(etcd::CompactionResponse { header })),
        Ok(Response::LeaseGrant(etcd::LeaseGrantResponse { id: 4, ttl: 5, ..Default::default() })),
        Ok(Response::LeaseRevoke(etcd::LeaseRevokeResponse { header })),
        Ok(Response::LeasesExpired { ids: vec![1, -2], revision: 9 }),
        Ok(Response::Alarm(etcd::AlarmResponse { header, alarms: vec![] })),
        Ok(Response::OriginRegistered { epoch: 6 }),
        Ok(Response::SettingsChanged(crate::Settings::default().to_wire())),
        Ok(Response::LevelRaised { level: 1 }),
        Ok(Response::DigestChecked { index: 12 }),
        Err(Rejection::EmptyKey),
        Err(Rejection::ValueProvided),
        Err(Rejection::LeaseProvided { lease: -1 }),
        Err(Rejection::TooManyOperations { given: 200, limit: 128 }),
        Err(Rejection::DuplicateKey { key: "k".to_owned() }),
        Err(Rejection::EmptyOperation),
        Err(Rejection::KeyNotFound),
        Err(Rejection::UnknownOption { value: 77 }),
        Err(Rejection::Compacted { requested: 1, compacted: 2 }),
        Err(Rejection::FutureRevision { requested: 2, current: 1 }),
        Err(Rejection::LeaseNotFound { id: i64::MIN }),
        Err(Rejection::LeaseExists { id: 1 }),
        Err(Rejection::LeaseIdMissing),
        Err(Rejection::LeaseTtlTooLarge { ttl_s: 2, limit_s: 1 }),
        Err(Rejection::NoSpace { size_bytes: u64::MAX, quota_bytes: 1 }),
        Err(Rejection::Corrupt),
        Err(Rejection::StaleFence { term: u64::MAX, node: 1 }),
        Err(Rejection::StaleRequest),
        Err(Rejection::OutcomeTooLarge),
        Err(Rejection::InvalidSetting { name: "n".to_owned(), value: "a\nb".to_owned() }),
        Err(Rejection::UnknownAlarm { alarm: 1, action: 2 }),
    ];
    let mut writer = outcomes::Writer::default();
    outcomes.iter().for_each(|outcome| writer.add(outcome));
    let (n_outcomes, row) = writer.finish().unwrap();
    assert_eq!(n_outcomes, outcomes.len() as u64);
    assert_eq!(outcomes::count(&row).unwrap(), n_outcomes);
    for (nth, outcome) in (0..).zip(&outcomes) {
        assert_eq!(outcomes::read(&row, nth).unwrap().as_ref(), Some(outcome));
    }
    assert!(outcomes::read(&row, n_outcomes).is_err());
    assert!(outcomes::read(&row[..9], 4).is_err());
}
