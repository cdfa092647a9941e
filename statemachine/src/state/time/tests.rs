use prost::Message;
use proto::etcd;
use proto::milvus::common::SegmentState;
use proto::milvus::data::SegmentInfo;
use proto::quorate::command::Kind;
use proto::quorate::coordinator_command::Area;
use proto::quorate::{self, CompactionState, CompactionTask, GarbageControl, Growth, SegmentRef};

use crate::coordinator::keys::Keys;
use crate::response::{Outcome, Rejection, Response};
use crate::testkit::Machine;
use crate::view::{PlanId, SegmentId};
use crate::{limits, versions};

const KEYS: Keys<'static> = Keys { root_path: "by-dev" };
const DAY_MS: u64 = 86_400_000;
const NOW_MS: u64 = 1_700_000_000_000;
const AHEAD_MS: u64 = NOW_MS + DAY_MS;

fn put(machine: &mut Machine, key: String, record: &impl Message) {
    let value = record.encode_to_vec().into();
    let put = etcd::PutRequest { key: key.into(), value, ..Default::default() };
    machine.run(Kind::Put(put)).expect("raw writes are open");
}

/// A machine with the role on, a day ahead.
fn ahead() -> Machine {
    let mut machine = Machine::new();
    machine.at_ms = AHEAD_MS;
    let role = quorate::SetRole { on: true, raw_writes: true };
    let kind = quorate::channel_command::Kind::SetRole(role);
    let area = Area::Channel(quorate::ChannelCommand { kind: Some(kind) });
    let command = quorate::CoordinatorCommand { area: Some(area) };
    machine.run(Kind::Coordinator(command)).expect("the role is switched on");
    machine
}

fn set(machine: &mut Machine, at_ms: u64) -> Outcome {
    machine.run(Kind::SetTime(quorate::SetTime { at_ms }))
}

fn dropped(id: i64, dropped_at_ms: u64) -> SegmentInfo {
    SegmentInfo {
        id,
        collection_id: 1,
        partition_id: 2,
        state: SegmentState::Dropped.into(),
        dropped_at: dropped_at_ms * 1_000_000,
        ..Default::default()
    }
}

fn segment(id: i64) -> SegmentRef {
    SegmentRef { collection: 1, partition: 2, segment: id }
}

#[test]
fn time_goes_back_and_what_was_stamped_before_does_not_advance_it() {
    let mut machine = ahead();
    assert_eq!(machine.state.at_ms(), AHEAD_MS);
    let done = Response::TimeSet { at_ms: NOW_MS, clipped: 0, more: false };
    assert_eq!(set(&mut machine, NOW_MS), Ok(done));
    assert_eq!((machine.state.at_ms(), machine.state.time_epoch()), (NOW_MS, 1));
    // An entry that the leader proposed before it had applied the command.
    machine.run_all(Vec::new());
    assert_eq!(machine.state.at_ms(), NOW_MS);
    machine.time_epoch = 1;
    machine.at_ms = NOW_MS + 5;
    machine.run_all(Vec::new());
    assert_eq!(machine.state.at_ms(), NOW_MS + 5);
    machine.check();
}

#[test]
fn a_time_that_is_not_before_the_present_one_changes_nothing() {
    let mut machine = ahead();
    let same = Ok(Response::TimeSet { at_ms: AHEAD_MS, clipped: 0, more: false });
    assert_eq!(set(&mut machine, AHEAD_MS + 1), same);
    assert_eq!((machine.state.at_ms(), machine.state.time_epoch()), (AHEAD_MS, 0));
    assert!(matches!(set(&mut machine, 0), Err(Rejection::InvalidSetting { .. })));
    machine.check();
}

#[test]
fn recorded_times_are_clipped_and_a_pause_keeps_what_was_left() {
    let mut machine = ahead();
    let growth = |window_at_ms| Growth { window_at_ms, window_rows: 7, ..Default::default() };
    put(&mut machine, KEYS.growth(1), &growth(AHEAD_MS));
    put(&mut machine, KEYS.growth(2), &growth(NOW_MS - 9));
    let task = CompactionTask {
        plan: 3,
        channel: "c".to_owned(),
        state: CompactionState::Executing.into(),
        planned_at_ms: NOW_MS - 1,
        sent_at_ms: AHEAD_MS,
        ..Default::default()
    };
    put(&mut machine, KEYS.compaction(3), &task);
    put(&mut machine, KEYS.segment(segment(4)), &dropped(4, AHEAD_MS));
    put(&mut machine, KEYS.segment(segment(5)), &dropped(5, NOW_MS - 9));
    let pause = GarbageControl { paused_until_ms: AHEAD_MS + 5_000 };
    put(&mut machine, KEYS.garbage_control(), &pause);

    let done = Response::TimeSet { at_ms: NOW_MS, clipped: 3, more: false };
    assert_eq!(set(&mut machine, NOW_MS), Ok(done));
    machine.check();
    let views = machine.state.views();
    let window_at = |id| views.segments().growth(SegmentId(id)).unwrap().window_at_ms;
    assert_eq!((window_at(1), window_at(2)), (NOW_MS, NOW_MS - 9));
    let task = &views.plans().get(PlanId(3)).unwrap().task;
    assert_eq!((task.planned_at_ms, task.sent_at_ms), (NOW_MS - 1, NOW_MS));
    let dropped_at = |id| views.segments().get(SegmentId(id)).unwrap().dropped_at_ns / 1_000_000;
    assert_eq!((dropped_at(4), dropped_at(5)), (NOW_MS, NOW_MS - 9));
    assert_eq!(views.garbage().until_ms, NOW_MS + 5_000);
}

#[test]
fn many_records_are_clipped_by_several_commands_however_entries_are_cut() {
    let n_records = limits::TIME_RECORDS_CLIPPED_MAX + 5;
    let machines = [1, 1_000_000].map(|entries_at_once| {
        let mut machine = ahead();
        let mut entries = Vec::new();
        for id in 0..i64::from(n_records) {
            let key = KEYS.segment(segment(id));
            let value = dropped(id, AHEAD_MS).encode_to_vec().into();
            let put = etcd::PutRequest { key: key.into(), value, ..Default::default() };
            entries.push(machine.entry(vec![Kind::Put(put)]));
        }
        for _ in 0..2 {
            let set = Kind::SetTime(quorate::SetTime { at_ms: NOW_MS });
            entries.push(machine.entry(vec![set]));
        }
        let mut outcomes = Vec::new();
        for chunk in entries.chunks(entries_at_once) {
            outcomes.extend(machine.apply(chunk).unwrap().outcomes);
        }
        machine.check();
        let last: Vec<Outcome> = outcomes.into_iter().rev().take(2).map(|(_, it)| it).collect();
        let clipped = limits::TIME_RECORDS_CLIPPED_MAX;
        let first = Response::TimeSet { at_ms: NOW_MS, clipped, more: true };
        let second = Response::TimeSet { at_ms: NOW_MS, clipped: 5, more: false };
        assert_eq!(last, [Ok(second), Ok(first)]);
        machine.state.digests()
    });
    assert_eq!(machines[0], machines[1]);
}

#[test]
fn below_its_level_time_cannot_be_set() {
    let mut machine = Machine::at_level(versions::COORDINATOR);
    let refused = Err(Rejection::UnreadableRun { level: versions::COORDINATOR });
    assert_eq!(set(&mut machine, 1), refused);
    machine.time_epoch = 1;
    let entry = machine.entry(vec![Kind::CheckDigest(quorate::CheckDigest {})]);
    assert_eq!(machine.apply(&[entry]).unwrap().refused.len(), 1, "nor has a stamp an epoch");
    machine.check();
}
