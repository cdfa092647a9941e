mod stage;

use expect_test::expect;
use proto::milvus::common::{KeyValuePair, SegmentState};
use proto::milvus::data::{ChannelWatchState, CompactionResult, SegmentInfo};
use proto::quorate;
use proto::quorate::command::Kind as Command;
use proto::quorate::compaction_command::Kind;
use proto::quorate::coordinator_command::Area;
use proto::quorate::{
    AlterCollection, CompactionState, CompleteCompaction, ControlCompaction, ForgetCompactions,
    NewSegment, OpenWindows, PlanCompactions, RemoveSegments, SaveBinlogs, SegmentRef, Window,
    segment_command,
};

use crate::coordinator::keys::LogKind;
use crate::view::CollectionId;
use stage::{
    CHANNEL, KEYS, Stage, compaction, complete, end, field_logs, overdue, plan, result, segment,
    send, task, tell,
};

#[test]
fn a_compaction_from_its_plan_to_its_end() {
    let mut stage = Stage::completed();
    stage.shows(&expect![[r#"
        segment 11: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 4242 level 0 revision 13 start 500 dml 550 compacted
        segment 12: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 4242 level 0 revision 13 start 400 dml 450 compacted
        segment 20: Flushed 1/2 channel dml_0_1v0 rows 18 of 1000 expire 7777 dropped 0 level 0 revision 13 start 400 dml 450 result from 11 from 12
        logs of segment 11: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 11: deltalog field 0 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 11: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 20: binlog field 100 files 1 entries 18 bytes 0 from 0 to 0
        logs of segment 20: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        plan 1: COMPACTION_STATE_COMPLETED channel dml_0_1v0 node 7 epoch 3 result 20 inputs 11 12
    "#]]);
    assert_eq!(stage.told(end(1, CompactionState::Synced)), "changed 1");
    let task = stage.task(1);
    assert_eq!(task.state(), CompactionState::Synced);
    assert!(task.ended_at_ms > 0);
    let forget = Kind::Forget(ForgetCompactions { plans: vec![1, 5] });
    expect!["changed 1; 5 refused: compaction plan 5 is not known"].assert_eq(&stage.told(forget));
    assert!(stage.machine.state.views().plans().rows().is_empty());
}

#[test]
fn what_is_sent_is_what_the_inputs_have_then() {
    let mut stage = Stage::planned();
    stage.put_logs(LogKind::Delta, 12, 0, &[901, 902]);
    assert_eq!(stage.told(send(1, 7, 3)), "changed 1");
    let deltas: Vec<Vec<i64>> =
        stage.task(1).inputs.into_iter().map(|input| input.deltalogs).collect();
    assert_eq!(deltas, [vec![900], vec![901, 902]]);
}

#[test]
fn an_input_belongs_to_one_plan_at_a_time() {
    let mut stage = Stage::planned();
    let mut told = String::new();
    for (inputs, id) in [(&[11][..], 2), (&[12, 12], 3), (&[], 4), (&[13], 5), (&[12], 1)] {
        told += &format!("{}\n", stage.told(plan(id, inputs)));
    }
    expect![[r#"
        2 refused: segment 11 cannot be an input of plan 2
        3 refused: segment 12 cannot be an input of plan 3
        4 refused: segment 0 cannot be an input of plan 4
        5 refused: segment 13 is not known
        1 refused: compaction plan 1 exists
    "#]]
    .assert_eq(&told);

    // Two commands of one chunk, and two tasks of one command: the views know of neither.
    stage.told(end(1, CompactionState::Cancelled));
    let both = PlanCompactions { tasks: vec![task(6, &[11]), task(7, &[11])] };
    let commands =
        vec![compaction(Kind::Plan(both)), compaction(plan(8, &[11])), compaction(plan(9, &[12]))];
    let entry = stage.machine.entry(commands);
    let applied = stage.machine.apply(&[entry]).expect("commands of this binary apply");
    let told: String =
        applied.outcomes.iter().map(|(_, outcome)| format!("{}\n", tell(outcome))).collect();
    expect![[r#"
        changed 6; 7 refused: segment 11 cannot be an input of plan 7
        8 refused: segment 11 cannot be an input of plan 8
        changed 9
    "#]]
    .assert_eq(&told);
    stage.machine.check();
}

#[test]
fn what_is_not_flushed_and_alone_is_no_input() {
    let mut stage = Stage::new();
    let mut told = String::new();
    for (nth, state) in [
        SegmentState::Growing,
        SegmentState::Sealed,
        SegmentState::Importing,
        SegmentState::Dropped,
        SegmentState::Flushing,
    ]
    .into_iter()
    .enumerate()
    {
        let id = 30 + i64::try_from(nth).expect("a few");
        stage.put_segment(id, state, 100);
        told += &format!("{state:?}: {}\n", stage.told(plan(id, &[id])));
    }
    let mut other = task(40, &[11]);
    other.channel = "dml_1_1v1".to_owned();
    let other = Kind::Plan(PlanCompactions { tasks: vec![other] });
    told += &format!("other channel: {}\n", stage.told(other));
    expect![[r#"
        Growing: 30 refused: segment 30 cannot be an input of plan 30
        Sealed: 31 refused: segment 31 cannot be an input of plan 31
        Importing: 32 refused: segment 32 cannot be an input of plan 32
        Dropped: 33 refused: segment 33 cannot be an input of plan 33
        Flushing: changed 34
        other channel: 40 refused: segment 11 cannot be an input of plan 40
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_plan_goes_to_the_consumer_of_its_channel_once() {
    let mut stage = Stage::planned();
    let mut told = String::new();
    for (node, epoch) in [(8, 3), (7, 2)] {
        told += &format!("{}\n", stage.told(send(1, node, epoch)));
    }
    stage.own(7, 3, ChannelWatchState::ToRelease);
    told += &format!("{}\n", stage.told(send(1, 7, 3)));
    stage.own(7, 3, ChannelWatchState::WatchSuccess);
    stage.put_segment(12, SegmentState::Dropped, 400);
    told += &format!("{}\n", stage.told(send(1, 7, 3)));
    stage.put_segment(12, SegmentState::Flushed, 400);
    for plan in [1, 1, 2] {
        told += &format!("{}\n", stage.told(send(plan, 7, 3)));
    }
    expect![[r#"
        refused: channel dml_0_1v0 changed meanwhile: epoch 3, key revision 0
        refused: channel dml_0_1v0 changed meanwhile: epoch 3, key revision 3
        refused: channel dml_0_1v0 changed meanwhile: epoch 3, key revision 13
        refused: segment 12 cannot be an input of plan 1
        changed 1
        refused: compaction plan 1 is in state 2, which does not allow that
        refused: compaction plan 2 is not known
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_result_is_taken_only_from_the_consumer_of_the_channel() {
    let mut stage = Stage::sent();
    let mut told = String::new();
    for (node, epoch, state) in [
        (8, 4, ChannelWatchState::WatchSuccess),
        (7, 5, ChannelWatchState::WatchSuccess),
        (7, 3, ChannelWatchState::ToRelease),
        (7, 3, ChannelWatchState::ReleaseSuccess),
    ] {
        stage.own(node, epoch, state);
        told += &format!("{node} {epoch} {state:?}: {}\n", stage.told(complete(1, 20, 18, &[])));
    }
    expect![[r#"
        8 4 WatchSuccess: refused: channel dml_0_1v0 changed meanwhile: epoch 4, key revision 3
        7 5 WatchSuccess: refused: channel dml_0_1v0 changed meanwhile: epoch 5, key revision 16
        7 3 ToRelease: refused: channel dml_0_1v0 changed meanwhile: epoch 3, key revision 18
        7 3 ReleaseSuccess: refused: channel dml_0_1v0 changed meanwhile: epoch 3, key revision 20
    "#]]
    .assert_eq(&told);
    stage.own(7, 3, ChannelWatchState::WatchSuccess);
    assert_eq!(stage.told(complete(1, 20, 18, &[])), "changed 1");
}

#[test]
fn no_delete_is_lost_between_plan_and_result() {
    let mut stage = Stage::sent();
    stage.put_logs(LogKind::Delta, 11, 0, &[900, 910]);
    stage.put_logs(LogKind::Delta, 12, 0, &[911]);
    let mut told = String::new();
    for copied in [&[][..], &[910], &[910, 911, 912], &[900, 910, 911], &[911, 910]] {
        told += &format!("{copied:?}: {}\n", stage.told(complete(1, 20, 18, copied)));
    }
    expect![[r#"
        []: refused: delta logs of plan 1 are not all carried over
        [910]: refused: delta logs of plan 1 are not all carried over
        [910, 911, 912]: refused: delta logs of plan 1 are not all carried over
        [900, 910, 911]: refused: delta logs of plan 1 are not all carried over
        [911, 910]: changed 1
    "#]]
    .assert_eq(&told);
    stage.shows(&expect![[r#"
        segment 11: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 4242 level 0 revision 15 start 500 dml 550 compacted
        segment 12: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 4242 level 0 revision 15 start 400 dml 450 compacted
        segment 20: Flushed 1/2 channel dml_0_1v0 rows 18 of 1000 expire 7777 dropped 0 level 0 revision 15 start 400 dml 450 result from 11 from 12
        logs of segment 11: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 11: deltalog field 0 files 2 entries 20 bytes 0 from 0 to 0
        logs of segment 11: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: deltalog field 0 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 20: binlog field 100 files 1 entries 18 bytes 0 from 0 to 0
        logs of segment 20: deltalog field 0 files 2 entries 20 bytes 0 from 0 to 0
        logs of segment 20: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        plan 1: COMPACTION_STATE_COMPLETED channel dml_0_1v0 node 7 epoch 3 result 20 inputs 11 12
    "#]]);
}

#[test]
fn a_result_that_is_none_is_refused() {
    let mut stage = Stage::sent();
    let mut told = String::new();
    let mut path = result(1, 20, 18);
    path.insert_logs[0].binlogs[0].log_path = "files/insert_log/1/2/20/100/200".to_owned();
    let mut other = result(1, 20, 18);
    other.channel = "dml_1_1v1".to_owned();
    for result in [result(2, 20, 18), result(1, 0, 18), result(1, 12, 18), path, other] {
        let result = Some(result);
        let complete = CompleteCompaction { plan: 1, result, ..Default::default() };
        told += &format!("{}\n", stage.told(Kind::Complete(complete)));
    }
    told += &format!("{}\n", stage.told(complete(2, 20, 18, &[])));
    expect![[r#"
        refused: planID cannot be 2: the result is of another plan
        refused: segmentID cannot be 0: no segment has that id
        refused: segment 12 exists
        refused: log cannot be files/insert_log/1/2/20/100/200: logs are named by ids in the log
        refused: segment 20 belongs to another channel than dml_1_1v1
        refused: compaction plan 2 is not known
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_result_names_logs_for_its_rows() {
    let mut stage = Stage::sent();
    let mut told = String::new();
    for insert_logs in [vec![], vec![field_logs(100, &[])], vec![field_logs(100, &[200])]] {
        let result = CompactionResult { insert_logs, ..result(1, 20, 10) };
        let complete = CompleteCompaction { plan: 1, result: Some(result), ..Default::default() };
        told += &format!("{}\n", stage.told(Kind::Complete(complete)));
    }
    expect![[r#"
        refused: numOfRows cannot be 10: it has no insert logs
        refused: numOfRows cannot be 10: it has no insert logs
        changed 1
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_result_has_no_more_rows_than_its_inputs() {
    let mut stage = Stage::sent();
    let mut told = format!("{}\n", stage.told(complete(1, 20, 21, &[])));
    // As its logs count them, whatever the number beside them.
    let logs = result(1, 20, 21).insert_logs;
    let result = CompactionResult { insert_logs: logs, ..result(1, 20, 20) };
    let lie = CompleteCompaction { plan: 1, result: Some(result), ..Default::default() };
    told += &format!("{}\n", stage.told(Kind::Complete(lie)));
    expect![[r#"
        refused: numOfRows cannot be 21: its inputs have 20 rows
        refused: numOfRows cannot be 21: its inputs have 20 rows
    "#]]
    .assert_eq(&told);
    assert_eq!(stage.told(complete(1, 20, 20, &[])), "changed 1");

    // A record may fall short of its logs.
    let mut stage = Stage::sent();
    stage.put_logs(LogKind::Insert, 11, 100, &[110, 111]);
    expect!["refused: numOfRows cannot be 31: its inputs have 30 rows"]
        .assert_eq(&stage.told(complete(1, 20, 31, &[])));
    assert_eq!(stage.told(complete(1, 20, 30, &[])), "changed 1");

    // And of a log that does not say how many rows it has, nobody knows.
    let mut stage = Stage::sent();
    let mut silent = field_logs(100, &[110]);
    silent.binlogs[0].entries_num = 0;
    stage.put(KEYS.log(LogKind::Insert, segment(11), 100), &silent);
    assert_eq!(stage.told(complete(1, 20, 1000, &[])), "changed 1");
}

#[test]
fn a_result_is_no_segment_that_is_known_anywhere() {
    let mut stage = Stage::sent();
    let elsewhere = SegmentRef { partition: 3, ..segment(20) };
    let put = |stage: &mut Stage, of: SegmentRef| {
        let info = SegmentInfo {
            id: of.segment,
            collection_id: of.collection,
            partition_id: of.partition,
            state: SegmentState::Dropped.into(),
            ..Default::default()
        };
        stage.put(KEYS.segment(of), &info);
    };
    put(&mut stage, elsewhere);
    expect!["refused: segment 20 exists"].assert_eq(&stage.told(complete(1, 20, 18, &[])));

    // Commands of one chunk: the views know neither of the removal of 20 nor of segment 21.
    let area = |kind| Area::Segment(quorate::SegmentCommand { kind: Some(kind) });
    let command = |kind| {
        let area = Some(area(kind));
        Command::Coordinator(quorate::CoordinatorCommand { area })
    };
    let remove = RemoveSegments { segments: vec![elsewhere] };
    let create = NewSegment { channel: CHANNEL.to_owned(), rows_max: 9, importing: false };
    let elsewhere = Some(SegmentRef { partition: 3, ..segment(21) });
    let window = Window { segment: elsewhere, create: Some(create), ..Default::default() };
    let windows = OpenWindows { windows: vec![window] };
    let entry = stage.machine.entry(vec![
        command(segment_command::Kind::OpenWindows(windows)),
        compaction(complete(1, 21, 18, &[])),
        command(segment_command::Kind::Remove(remove)),
        compaction(complete(1, 20, 18, &[])),
    ]);
    let applied = stage.machine.apply(&[entry]).expect("commands of this binary apply");
    let told: String =
        applied.outcomes.iter().map(|(_, outcome)| format!("{}\n", tell(outcome))).collect();
    expect![[r#"
        changed 21
        refused: segment 21 exists
        changed 20
        changed 1
    "#]]
    .assert_eq(&told);
    stage.machine.check();
}

#[test]
fn a_repeated_result_changes_nothing_and_another_one_is_refused() {
    let mut stage = Stage::completed();
    let revision = stage.machine.state.revision();
    assert_eq!(stage.told(complete(1, 20, 18, &[])), "nothing to do");
    assert_eq!(stage.machine.state.revision(), revision);
    expect!["refused: compaction plan 1 is in state 3, which does not allow that"]
        .assert_eq(&stage.told(complete(1, 21, 18, &[])));
    stage.told(end(1, CompactionState::Synced));
    assert_eq!(stage.told(complete(1, 20, 18, &[])), "nothing to do");
}

#[test]
fn a_result_without_rows_is_dropped_at_once() {
    let mut stage = Stage::sent();
    assert_eq!(stage.told(complete(1, 20, 0, &[])), "changed 1");
    stage.shows(&expect![[r#"
        segment 11: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 4242 level 0 revision 13 start 500 dml 550 compacted
        segment 12: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 4242 level 0 revision 13 start 400 dml 450 compacted
        segment 20: Dropped 1/2 channel dml_0_1v0 rows 0 of 1000 expire 7777 dropped 4242 level 0 revision 13 start 400 dml 450 result from 11 from 12
        logs of segment 11: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 11: deltalog field 0 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 11: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 20: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        plan 1: COMPACTION_STATE_COMPLETED channel dml_0_1v0 node 7 epoch 3 result 20 inputs 11 12
    "#]]);
}

#[test]
fn inputs_that_were_dropped_with_their_partition_take_the_result_along() {
    let mut stage = Stage::sent();
    stage.put_segment(11, SegmentState::Dropped, 500);
    expect!["refused: segment 11 cannot be an input of plan 1"].assert_eq(&stage.told(complete(
        1,
        20,
        18,
        &[],
    )));
    stage.put_segment(12, SegmentState::Dropped, 400);
    assert_eq!(stage.told(complete(1, 20, 18, &[])), "changed 1");
    stage.shows(&expect![[r#"
        segment 11: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 0 level 0 revision 13 start 500 dml 550
        segment 12: Dropped 1/2 channel dml_0_1v0 rows 10 of 1000 expire 0 dropped 0 level 0 revision 14 start 400 dml 450
        segment 20: Dropped 1/2 channel dml_0_1v0 rows 18 of 1000 expire 7777 dropped 4242 level 0 revision 15 start 400 dml 450 result from 11 from 12
        logs of segment 11: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 11: deltalog field 0 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 11: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: binlog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 12: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        logs of segment 20: binlog field 100 files 1 entries 18 bytes 0 from 0 to 0
        logs of segment 20: statslog field 100 files 1 entries 10 bytes 0 from 0 to 0
        plan 1: COMPACTION_STATE_COMPLETED channel dml_0_1v0 node 7 epoch 3 result 20 inputs 11 12
    "#]]);
}

#[test]
fn a_late_result_is_taken_while_the_node_holds_it() {
    let mut stage = Stage::sent();
    assert_eq!(stage.told(overdue(1)), "changed 1");
    assert_eq!(stage.told(overdue(1)), "nothing to do");
    // Its inputs are still bound.
    expect!["2 refused: segment 11 cannot be an input of plan 2"]
        .assert_eq(&stage.told(plan(2, &[11])));
    assert_eq!(stage.told(complete(1, 20, 18, &[])), "changed 1");

    let mut stage = Stage::sent();
    stage.told(overdue(1));
    assert_eq!(stage.told(end(1, CompactionState::TimedOut)), "changed 1");
    expect!["refused: compaction plan 1 is in state 6, which does not allow that"]
        .assert_eq(&stage.told(complete(1, 20, 18, &[])));
    assert_eq!(stage.told(plan(2, &[11])), "changed 2");
}

#[test]
fn which_ends_exist() {
    use CompactionState::{Cancelled, Completed, Executing, Failed, Queued, Synced, TimedOut};
    let all = [Queued, Executing, Completed, Synced, Failed, TimedOut, Cancelled];
    let mut told = String::new();
    for from in all {
        for to in all {
            let mut stage = match from {
                Queued => Stage::planned(),
                Completed | Synced => Stage::completed(),
                CompactionState::Unspecified | Executing | Failed | TimedOut | Cancelled => {
                    Stage::sent()
                }
            };
            if !matches!(from, Queued | Executing | Completed) {
                stage.told(end(1, from));
            }
            let answer = stage.told(end(1, to));
            if !answer.starts_with("refused") {
                told += &format!("{} to {}: {answer}\n", from.as_str_name(), to.as_str_name());
            }
        }
    }
    expect![[r#"
        COMPACTION_STATE_QUEUED to COMPACTION_STATE_FAILED: changed 1
        COMPACTION_STATE_QUEUED to COMPACTION_STATE_CANCELLED: changed 1
        COMPACTION_STATE_EXECUTING to COMPACTION_STATE_FAILED: changed 1
        COMPACTION_STATE_EXECUTING to COMPACTION_STATE_TIMED_OUT: changed 1
        COMPACTION_STATE_EXECUTING to COMPACTION_STATE_CANCELLED: changed 1
        COMPACTION_STATE_COMPLETED to COMPACTION_STATE_SYNCED: changed 1
        COMPACTION_STATE_SYNCED to COMPACTION_STATE_SYNCED: nothing to do
        COMPACTION_STATE_FAILED to COMPACTION_STATE_FAILED: nothing to do
        COMPACTION_STATE_TIMED_OUT to COMPACTION_STATE_TIMED_OUT: nothing to do
        COMPACTION_STATE_CANCELLED to COMPACTION_STATE_CANCELLED: nothing to do
    "#]]
    .assert_eq(&told);
    expect!["refused: compaction plan 1 is not known"]
        .assert_eq(&Stage::new().told(end(1, Failed)));
}

#[test]
fn only_plans_that_ended_are_forgotten() {
    let mut stage = Stage::sent();
    let forget = || Kind::Forget(ForgetCompactions { plans: vec![1] });
    expect!["1 refused: compaction plan 1 is in state 2, which does not allow that"]
        .assert_eq(&stage.told(forget()));
    stage.told(end(1, CompactionState::Failed));
    assert_eq!(stage.told(forget()), "changed 1");
    expect!["1 refused: compaction plan 1 is not known"].assert_eq(&stage.told(forget()));
}

#[test]
fn planning_is_paused_and_resumed() {
    let mut stage = Stage::new();
    for (paused, is_paused) in [(true, true), (true, true), (false, false), (false, false)] {
        stage.told(Kind::Control(ControlCompaction { paused }));
        assert_eq!(stage.machine.state.views().plans().is_paused(), is_paused);
    }
}

#[test]
fn changed_properties_are_merged_and_kept() {
    let mut stage = Stage::new();
    let alter = |pairs: &[(&str, &str)]| {
        let pair = |(key, value): &(&str, &str)| KeyValuePair {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let properties = pairs.iter().map(pair).collect();
        Kind::Alter(AlterCollection { collection: 1, properties })
    };
    stage.run(alter(&[("ttl", "1"), ("automatic", "true")])).unwrap();
    stage.run(alter(&[("ttl", "2")])).unwrap();
    let plans = stage.machine.state.views().plans();
    let found = ["ttl", "automatic", "else"].map(|key| plans.altered(CollectionId(1), key));
    assert_eq!(found, [Some("2"), Some("true"), None]);
    assert_eq!(plans.altered(CollectionId(2), "ttl"), None);
}

#[test]
fn deletes_of_an_input_that_come_after_the_result_are_refused_not_lost() {
    let mut stage = Stage::completed();
    let save = |deltas: &[i64]| {
        let saved = SaveBinlogs {
            segment: Some(segment(11)),
            node: 7,
            channel: CHANNEL.to_owned(),
            deltalogs: deltas.iter().map(|log| field_logs(0, &[*log])).collect(),
            ..SaveBinlogs::default()
        };
        let kind = segment_command::Kind::SaveBinlogs(saved);
        Command::Coordinator(quorate::CoordinatorCommand {
            area: Some(Area::Segment(quorate::SegmentCommand { kind: Some(kind) })),
        })
    };
    assert!(stage.machine.run(save(&[])).is_ok());
    let refused = stage.machine.run(save(&[905])).expect_err("they belong to the result");
    assert_eq!(refused.to_string(), "segment 11 is in state 6, which does not allow that");
}

#[test]
fn a_partition_that_is_dropped_takes_along_results_that_its_data_node_does_not_know() {
    let drop_segment = |id: i64, deltas: bool| {
        let save = SaveBinlogs {
            segment: Some(segment(id)),
            node: 7,
            channel: CHANNEL.to_owned(),
            flushed: true,
            dropped: true,
            dropped_at_ns: 99,
            deltalogs: if deltas { vec![field_logs(0, &[950])] } else { vec![] },
            ..SaveBinlogs::default()
        };
        let kind = Some(segment_command::Kind::SaveBinlogs(save));
        let area = Area::Segment(quorate::SegmentCommand { kind });
        Command::Coordinator(quorate::CoordinatorCommand { area: Some(area) })
    };
    let states = |stage: &Stage| {
        let segments = stage.machine.state.views().segments();
        let state = |id| segments.get(crate::view::SegmentId(id)).map(|one| one.state);
        [11, 20, 21].map(state)
    };
    use SegmentState::{Dropped, Flushed};

    let mut stage = Stage::completed();
    assert_eq!(states(&stage), [Some(Dropped), Some(Flushed), None]);
    assert_eq!(tell(&stage.machine.run(drop_segment(11, false))), "changed 20");
    assert_eq!(tell(&stage.machine.run(drop_segment(12, true))), "nothing to do");
    assert_eq!(states(&stage), [Some(Dropped), Some(Dropped), None]);
    stage.machine.check();

    // A result of a result, and with deletes that nobody needs.
    let mut stage = Stage::completed();
    stage.told(end(1, CompactionState::Synced));
    for kind in [plan(2, &[20]), send(2, 7, 3), complete(2, 21, 18, &[])] {
        assert!(stage.told(kind).starts_with("changed"));
    }
    assert_eq!(tell(&stage.machine.run(drop_segment(12, true))), "changed 21");
    assert_eq!(states(&stage), [Some(Dropped), Some(Dropped), Some(Dropped)]);
    stage.machine.check();

    // The result and the drop in one chunk: the views do not know of the result yet.
    let mut stage = Stage::sent();
    let commands = vec![compaction(complete(1, 20, 18, &[])), drop_segment(11, false)];
    let entry = stage.machine.entry(commands);
    stage.machine.apply(&[entry]).expect("commands of this binary apply");
    assert_eq!(states(&stage), [Some(Dropped), Some(Dropped), None]);
    stage.machine.check();
}
