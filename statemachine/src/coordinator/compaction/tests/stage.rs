//! A channel with two flushed segments, and the commands about their compactions.

use expect_test::Expect;
use prost::Message;
use proto::milvus::common::SegmentState;
use proto::milvus::data::{
    Binlog, ChannelWatchInfo, ChannelWatchState, CompactionResult, FieldBinlog, SegmentInfo,
};
use proto::milvus::msg::MsgPosition;
use proto::quorate::command::Kind as Command;
use proto::quorate::compaction_command::Kind;
use proto::quorate::coordinator_command::Area;
use proto::quorate::{
    ChannelRecord, CompactionInput, CompactionState, CompactionTask, CompleteCompaction,
    EndCompaction, PlanCompactions, SegmentRef, SendCompaction, SetRole,
};
use proto::{etcd, quorate};

use crate::coordinator::Refusal;
use crate::coordinator::keys::{Keys, LogKind};
use crate::response::{Outcome, Rejection, Response};
use crate::testkit::Machine;
use crate::view::PlanId;

pub(super) const CHANNEL: &str = "dml_0_1v0";
pub(super) const KEYS: Keys<'static> = Keys { root_path: "by-dev" };

pub(super) fn segment(id: i64) -> SegmentRef {
    SegmentRef { collection: 1, partition: 2, segment: id }
}

/// Two flushed segments, 11 with a delta log and 12 without, of a channel that node 7 consumes in
/// epoch 3.
pub(super) struct Stage {
    pub(super) machine: Machine,
}

impl Stage {
    pub(super) fn new() -> Stage {
        let mut machine = Machine::new();
        machine.run(role(SetRole { on: true, raw_writes: true })).expect("the role is switched on");
        let mut stage = Stage { machine };
        stage.own(7, 3, ChannelWatchState::WatchSuccess);
        for (id, timestamp) in [(11, 500), (12, 400)] {
            stage.put_segment(id, SegmentState::Flushed, timestamp);
            stage.put_logs(LogKind::Insert, id, 100, &[id * 10]);
            stage.put_logs(LogKind::Stats, id, 100, &[id * 10 + 1]);
        }
        stage.put_logs(LogKind::Delta, 11, 0, &[900]);
        stage
    }

    pub(super) fn put(&mut self, key: String, record: &impl Message) {
        let value = record.encode_to_vec().into();
        let put = etcd::PutRequest { key: key.into(), value, ..Default::default() };
        self.machine.run(Command::Put(put)).expect("raw writes are open");
    }

    pub(super) fn own(&mut self, node: i64, epoch: u64, state: ChannelWatchState) {
        let record = ChannelRecord { collection: 1, node, epoch, ..Default::default() };
        self.put(KEYS.channel(CHANNEL), &record);
        let watch = ChannelWatchInfo { state: state.into(), ..Default::default() };
        self.put(KEYS.channel_watch(node, CHANNEL), &watch);
    }

    pub(super) fn put_segment(&mut self, id: i64, state: SegmentState, timestamp: u64) {
        let position = |timestamp| {
            Some(MsgPosition { timestamp, msg_id: vec![1].into(), ..Default::default() })
        };
        let info = SegmentInfo {
            id,
            collection_id: 1,
            partition_id: 2,
            insert_channel: CHANNEL.to_owned(),
            num_of_rows: 10,
            max_row_num: 1000,
            state: state.into(),
            start_position: position(timestamp),
            dml_position: position(timestamp + 50),
            ..Default::default()
        };
        self.put(KEYS.segment(segment(id)), &info);
    }

    pub(super) fn put_logs(&mut self, kind: LogKind, id: i64, field: i64, logs: &[i64]) {
        self.put(KEYS.log(kind, segment(id), field), &field_logs(field, logs));
    }

    pub(super) fn run(&mut self, kind: Kind) -> Outcome {
        self.machine.run(compaction(kind))
    }

    /// Runs a command, tells what came of it, and checks that memory, rows and digest agree.
    pub(super) fn told(&mut self, kind: Kind) -> String {
        let outcome = self.run(kind);
        self.machine.check();
        tell(&outcome)
    }

    pub(super) fn task(&self, plan: i64) -> CompactionTask {
        let views = self.machine.state.views();
        views.plans().get(PlanId(plan)).expect("a plan on record").task.clone()
    }

    /// What is on record of segments and plans.
    pub(super) fn shows(&self, expected: &Expect) {
        let views = self.machine.state.views().to_string();
        let words = ["segment ", "logs of ", "plan ", "compaction "];
        let rows = views.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
        expected.assert_eq(&rows.map(|line| format!("{line}\n")).collect::<String>());
    }

    pub(super) fn planned() -> Stage {
        let mut stage = Stage::new();
        assert_eq!(stage.told(plan(1, &[11, 12])), "changed 1");
        stage
    }

    pub(super) fn sent() -> Stage {
        let mut stage = Stage::planned();
        assert_eq!(stage.told(send(1, 7, 3)), "changed 1");
        stage
    }

    pub(super) fn completed() -> Stage {
        let mut stage = Stage::sent();
        assert_eq!(stage.told(complete(1, 20, 18, &[])), "changed 1");
        stage
    }
}

pub(super) fn role(role: SetRole) -> Command {
    let kind = Some(quorate::channel_command::Kind::SetRole(role));
    let area = Some(Area::Channel(quorate::ChannelCommand { kind }));
    Command::Coordinator(quorate::CoordinatorCommand { area })
}

pub(super) fn compaction(kind: Kind) -> Command {
    let area = Some(Area::Compaction(quorate::CompactionCommand { kind: Some(kind) }));
    Command::Coordinator(quorate::CoordinatorCommand { area })
}

pub(super) fn field_logs(field_id: i64, logs: &[i64]) -> FieldBinlog {
    let log = |log_id: &i64| Binlog { log_id: *log_id, entries_num: 10, ..Default::default() };
    FieldBinlog { field_id, binlogs: logs.iter().map(log).collect() }
}

pub(super) fn tell(outcome: &Outcome) -> String {
    let response = match outcome {
        Ok(Response::Coordinator(response)) => response,
        Ok(other) => panic!("answer of another command: {other:?}"),
        Err(Rejection::Coordinator(refusal)) => return format!("refused: {refusal}"),
        Err(other) => panic!("no refusal of the coordinator: {other}"),
    };
    let changed = response.changed.iter().map(|id| format!("changed {id}"));
    let refused = response.refused.iter().map(|item| {
        let refusal = Refusal::of_item(item).expect("a refusal of this version");
        format!("{} refused: {refusal}", item.id)
    });
    let told: Vec<String> = changed.chain(refused).collect();
    if told.is_empty() { "nothing to do".to_owned() } else { told.join("; ") }
}

pub(super) fn task(plan: i64, inputs: &[i64]) -> CompactionTask {
    let input = |segment: &i64| CompactionInput { segment: *segment, deltalogs: vec![] };
    CompactionTask {
        plan,
        trigger: 1000,
        collection: 1,
        partition: 2,
        channel: CHANNEL.to_owned(),
        kind: 3,
        inputs: inputs.iter().map(input).collect(),
        timeout_s: 900,
        ..Default::default()
    }
}

pub(super) fn plan(plan: i64, inputs: &[i64]) -> Kind {
    Kind::Plan(PlanCompactions { tasks: vec![task(plan, inputs)] })
}

pub(super) fn send(plan: i64, node: i64, epoch: u64) -> Kind {
    Kind::Send(SendCompaction { plan, node, epoch, start_ts: 7777 })
}

pub(super) fn result(plan: i64, segment: i64, rows: i64) -> CompactionResult {
    let insert = Binlog { log_id: segment * 10, entries_num: rows, ..Default::default() };
    let insert_logs = match rows {
        0 => vec![],
        _ => vec![FieldBinlog { field_id: 100, binlogs: vec![insert] }],
    };
    CompactionResult {
        plan_id: plan,
        segment_id: segment,
        num_of_rows: rows,
        insert_logs,
        field2_statslog_paths: vec![field_logs(100, &[segment * 10 + 1])],
        deltalogs: vec![],
        channel: CHANNEL.to_owned(),
    }
}

pub(super) fn complete(plan: i64, segment: i64, rows: i64, copied: &[i64]) -> Kind {
    Kind::Complete(CompleteCompaction {
        plan,
        result: Some(result(plan, segment, rows)),
        copied_deltalogs: copied.to_vec(),
        dropped_at_ns: 4242,
    })
}

pub(super) fn end(plan: i64, state: CompactionState) -> Kind {
    let reason = "because".to_owned();
    Kind::End(EndCompaction { plan, state: state.into(), reason, overdue: false })
}

pub(super) fn overdue(plan: i64) -> Kind {
    let state = CompactionState::TimedOut.into();
    Kind::End(EndCompaction { plan, state, reason: "late".to_owned(), overdue: true })
}
