//! One story a test: commands in, answers and rows out.

use expect_test::{Expect, expect};
use prost::Message;
use proto::milvus::data::{
    Binlog, ChannelWatchInfo, ChannelWatchState, FieldBinlog, SegmentInfo, VchannelInfo,
};
use proto::milvus::msg::MsgPosition;
use proto::quorate::command::Kind as Command;
use proto::quorate::coordinator_command::Area;
use proto::quorate::segment_command::Kind;
use proto::quorate::{
    self, ChannelCheckpoint, DropChannel, DropSegments, HasRows, NewSegment, NoteRows, OpenWindows,
    RemoveSegments, SaveBinlogs, SaveCheckpoints, Seal, SealSegments, SegmentRef, Window,
};

use crate::coordinator::Refusal;
use crate::limits::CHANNEL_SEGMENTS_DROPPED_MAX;
use crate::response::{Rejection, Response};
use crate::testkit::Machine;
use crate::view::{CollectionId, SegmentId};

const CHANNEL: &str = "dml_0_1v0";
const NODE: i64 = 7;

/// A cluster with the role on and one channel that node 7 owns.
fn machine() -> Machine {
    let mut machine = Machine::new();
    let coordinator = |area| Command::Coordinator(quorate::CoordinatorCommand { area: Some(area) });
    let channel = |kind| coordinator(Area::Channel(quorate::ChannelCommand { kind: Some(kind) }));
    let role = quorate::SetRole { on: true, raw_writes: true };
    machine.run(channel(quorate::channel_command::Kind::SetRole(role))).expect("the role");
    let record =
        quorate::ChannelRecord { collection: 1, node: NODE, epoch: 1, ..Default::default() };
    put(&mut machine, &format!("by-dev/quorate/channel/{CHANNEL}"), &record.encode_to_vec());
    put(
        &mut machine,
        &format!("by-dev/meta/datacoord-meta/channel-removal/{CHANNEL}"),
        b"non-removed",
    );
    machine
}

fn put(machine: &mut Machine, key: &str, value: &[u8]) {
    let put = proto::etcd::PutRequest {
        key: key.to_owned().into(),
        value: value.to_vec().into(),
        ..Default::default()
    };
    machine.run(Command::Put(put)).expect("raw writes are open");
}

fn run(machine: &mut Machine, kind: Kind) -> String {
    let area = Area::Segment(quorate::SegmentCommand { kind: Some(kind) });
    let command = quorate::CoordinatorCommand { area: Some(area) };
    let told = match machine.run(Command::Coordinator(command)) {
        Ok(Response::Coordinator(outcome)) => {
            let refused = outcome.refused.iter().map(|item| {
                let why = Refusal::of_item(item).expect("a refusal of this version");
                format!(" refused {}: {why}", item.id)
            });
            let names = outcome.changed_names.join(" ");
            format!("changed {:?} {names}{}", outcome.changed, refused.collect::<String>())
        }
        Err(Rejection::Coordinator(refusal)) => format!("refused: {refusal}"),
        other => format!("{other:?}"),
    };
    machine.check();
    told
}

fn of(segment: i64) -> SegmentRef {
    SegmentRef { collection: 1, partition: 2, segment }
}

fn open(segment: i64, rows: i64, expire_ts: u64, create: bool) -> Kind {
    Kind::OpenWindows(OpenWindows { windows: vec![window(segment, rows, expire_ts, create)] })
}

fn window(segment: i64, rows: i64, expire_ts: u64, create: bool) -> Window {
    let create = create.then(|| NewSegment {
        channel: CHANNEL.to_owned(),
        rows_max: 1000,
        importing: false,
    });
    Window { segment: Some(of(segment)), rows, expire_ts, create }
}

fn seal(segment: i64, last_expire_ts: u64, unused: bool) -> Kind {
    let seal = Seal {
        segment: Some(of(segment)),
        last_expire_ts,
        unused,
        reason: "flush".to_owned(),
        importing: false,
    };
    Kind::Seal(SealSegments { seals: vec![seal] })
}

fn drop(segment: i64, disowned: bool) -> Kind {
    let segments = vec![of(segment)];
    Kind::Drop(DropSegments { segments, dropped_at_ns: 5, disowned, ..DropSegments::default() })
}

fn logs(field_id: i64, ids: &[i64], entries_num: i64) -> FieldBinlog {
    let binlogs = ids.iter().map(|id| Binlog { entries_num, log_id: *id, ..Default::default() });
    FieldBinlog { field_id, binlogs: binlogs.collect() }
}

fn position(timestamp: u64) -> MsgPosition {
    MsgPosition {
        channel_name: CHANNEL.to_owned(),
        msg_id: vec![1].into(),
        timestamp,
        ..Default::default()
    }
}

fn save(segment: i64, log_ids: &[i64], entries: i64, at: u64, flushed: bool) -> SaveBinlogs {
    SaveBinlogs {
        segment: Some(of(segment)),
        node: NODE,
        channel: CHANNEL.to_owned(),
        flushed,
        binlogs: vec![logs(100, log_ids, entries)],
        checkpoint: Some(position(at)),
        checkpoint_rows: 1,
        ..SaveBinlogs::default()
    }
}

fn show(machine: &Machine, segment: i64) -> String {
    let segments = machine.state.views().segments();
    let id = SegmentId(segment);
    let row = segments.get(id).map_or("nothing".to_owned(), |segment| {
        format!(
            "{:?} rows {} expire {} dml {:?} dropped {}",
            segment.state,
            segment.rows,
            segment.last_expire_ts,
            segment.dml_ts,
            segment.dropped_at_ns
        )
    });
    let growth = segments.growth(id).map_or(String::new(), |growth| format!(" | {growth}"));
    let rows = segments.logs(id).map_or(String::new(), |logs| format!(" | logged {}", logs.rows()));
    format!("{row}{growth}{rows}")
}

/// Runs the steps and shows the segment after each.
fn story(machine: &mut Machine, segment: i64, steps: Vec<Kind>, expected: &Expect) {
    let mut told = String::new();
    for step in steps {
        told += &format!("{}\n  {}\n", run(machine, step), show(machine, segment));
    }
    expected.assert_eq(&told);
}

#[test]
fn a_segment_lives_from_its_window_to_its_removal() {
    let mut machine = machine();
    let note = Kind::NoteRows(NoteRows { segments: vec![of(10)] });
    story(
        &mut machine,
        10,
        vec![
            open(10, 100, 50, true),
            open(10, 200, 60, false),
            note.clone(),
            note,
            seal(10, 55, false),
            seal(10, 99, false),
            open(10, 1, 70, false),
            drop(10, true),
            Kind::SaveBinlogs(save(10, &[1, 2], 3, 40, false)),
            Kind::SaveBinlogs(save(10, &[2, 3], 3, 41, true)),
            Kind::SaveBinlogs(save(10, &[3], 3, 41, true)),
            Kind::Remove(RemoveSegments { segments: vec![of(10)] }),
            Kind::SaveBinlogs(SaveBinlogs {
                dropped: true,
                dropped_at_ns: 9,
                ..save(10, &[], 0, 42, true)
            }),
            Kind::SaveBinlogs(save(10, &[4], 3, 43, false)),
            Kind::Remove(RemoveSegments { segments: vec![of(10)] }),
            Kind::SaveBinlogs(save(10, &[4], 3, 43, false)),
        ],
        &expect![[r#"
            changed [10] 
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
            changed [10] 
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 200 until 60 at 1000 sealed at 0
            changed [10] 
              Growing rows 0 expire 0 dml None dropped 0 | rows Yes window 200 until 60 at 1000 sealed at 0
            changed [] 
              Growing rows 0 expire 0 dml None dropped 0 | rows Yes window 200 until 60 at 1000 sealed at 0
            changed [10] 
              Sealed rows 0 expire 55 dml None dropped 0 | rows Yes window 0 until 60 at 1000 sealed at 1000
            changed [10] 
              Sealed rows 0 expire 55 dml None dropped 0 | rows Yes window 0 until 60 at 1000 sealed at 1000
            changed []  refused 10: segment 10 is in state 3, which does not allow that
              Sealed rows 0 expire 55 dml None dropped 0 | rows Yes window 0 until 60 at 1000 sealed at 1000
            changed []  refused 10: segment 10 has rows, or may have
              Sealed rows 0 expire 55 dml None dropped 0 | rows Yes window 0 until 60 at 1000 sealed at 1000
            changed [10] 
              Sealed rows 6 expire 55 dml Some(40) dropped 0 | rows Yes window 0 until 60 at 1000 sealed at 1000 | logged 6
            changed [10] 
              Flushed rows 9 expire 55 dml Some(41) dropped 0 | logged 9
            changed [10] 
              Flushed rows 9 expire 55 dml Some(41) dropped 0 | logged 9
            changed []  refused 10: segment 10 is in state 4, which does not allow that
              Flushed rows 9 expire 55 dml Some(41) dropped 0 | logged 9
            changed [10] 
              Dropped rows 9 expire 55 dml Some(42) dropped 9 | logged 9
            changed [] 
              Dropped rows 9 expire 55 dml Some(42) dropped 9 | logged 9
            changed [10] 
              nothing
            refused: segment 10 is not known
              nothing
        "#]],
    );
}

#[test]
fn a_segment_is_made_on_a_channel_of_its_collection_only() {
    let mut machine = machine();
    let open = |collection, segment| {
        let create = NewSegment { channel: CHANNEL.to_owned(), rows_max: 1000, importing: false };
        let of = SegmentRef { collection, ..of(segment) };
        let window = Window { segment: Some(of), create: Some(create), ..Window::default() };
        Kind::OpenWindows(OpenWindows { windows: vec![window] })
    };
    let mut told = String::new();
    for (collection, segment) in [(2, 10), (0, 11), (1, 12)] {
        told += &format!("{}\n", run(&mut machine, open(collection, segment)));
    }
    // A stock coordinator's key need not name the collection; what is no record names none.
    let adopted = quorate::ChannelRecord { node: NODE, epoch: 1, ..Default::default() };
    for (record, segment) in [(adopted.encode_to_vec(), 13), (b"x".to_vec(), 14)] {
        put(&mut machine, &format!("by-dev/quorate/channel/{CHANNEL}"), &record);
        told += &format!("{}\n", run(&mut machine, open(2, segment)));
    }
    expect![[r#"
        changed []  refused 10: channel dml_0_1v0 is not known
        changed []  refused 11: channel dml_0_1v0 is not known
        changed [12] 
        changed [13] 
        changed [14] 
    "#]]
    .assert_eq(&told);
}

#[test]
fn an_empty_segment_goes_only_when_nobody_may_have_written_into_it() {
    let mut machine = machine();
    story(
        &mut machine,
        11,
        vec![open(11, 100, 50, true), seal(11, 0, true)],
        &expect![[r#"
        changed [11] 
          Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
        changed [11] 
          Dropped rows 0 expire 0 dml None dropped 1000000000
    "#]],
    );
    story(
        &mut machine,
        12,
        vec![open(12, 100, 50, true), seal(12, 50, false), drop(12, false)],
        &expect![[r#"
            changed [12] 
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
            changed [12] 
              Sealed rows 0 expire 50 dml None dropped 0 | rows No window 0 until 50 at 1000 sealed at 1000
            changed [12] 
              Dropped rows 0 expire 50 dml None dropped 5
        "#]],
    );
    story(
        &mut machine,
        13,
        vec![
            open(13, 100, 50, true),
            Kind::NoteRows(NoteRows { segments: vec![of(13)] }),
            seal(13, 50, true),
            drop(13, false),
            drop(13, true),
        ],
        &expect![[r#"
            changed [13] 
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
            changed [13] 
              Growing rows 0 expire 0 dml None dropped 0 | rows Yes window 100 until 50 at 1000 sealed at 0
            changed [13] 
              Sealed rows 0 expire 50 dml None dropped 0 | rows Yes window 0 until 50 at 1000 sealed at 1000
            changed []  refused 13: segment 13 has rows, or may have
              Sealed rows 0 expire 50 dml None dropped 0 | rows Yes window 0 until 50 at 1000 sealed at 1000
            changed []  refused 13: segment 13 has rows, or may have
              Sealed rows 0 expire 50 dml None dropped 0 | rows Yes window 0 until 50 at 1000 sealed at 1000
        "#]],
    );
}

#[test]
fn what_a_stock_coordinator_left_has_rows_until_its_data_node_disowns_it() {
    let mut machine = machine();
    let info = SegmentInfo {
        id: 14,
        collection_id: 1,
        partition_id: 2,
        insert_channel: CHANNEL.to_owned(),
        state: 3,
        max_row_num: 1000,
        ..Default::default()
    };
    put(&mut machine, "by-dev/meta/datacoord-meta/s/1/2/14", &info.encode_to_vec());
    let adopt = quorate::AdoptSegments { segments: vec![of(14)], last_expire_ts: 77 };
    story(
        &mut machine,
        14,
        vec![Kind::Adopt(adopt.clone()), Kind::Adopt(adopt), drop(14, false), drop(14, true)],
        &expect![[r#"
            changed [14] 
              Sealed rows 0 expire 77 dml None dropped 0 | rows Unknown window 0 until 77 at 1000 sealed at 0
            changed [14] 
              Sealed rows 0 expire 77 dml None dropped 0 | rows Unknown window 0 until 77 at 1000 sealed at 0
            changed []  refused 14: segment 14 has rows, or may have
              Sealed rows 0 expire 77 dml None dropped 0 | rows Unknown window 0 until 77 at 1000 sealed at 0
            changed [14] 
              Dropped rows 0 expire 77 dml None dropped 5
        "#]],
    );
}

#[test]
fn logs_come_from_the_owner_of_the_channel_only() {
    let mut machine = machine();
    let stranger = SaveBinlogs { node: 8, ..save(10, &[1], 3, 40, false) };
    let elsewhere = SaveBinlogs { channel: "dml_1_1v1".to_owned(), ..save(10, &[1], 3, 40, false) };
    story(
        &mut machine,
        10,
        vec![open(10, 100, 50, true), Kind::SaveBinlogs(stranger), Kind::SaveBinlogs(elsewhere)],
        &expect![[r#"
            changed [10] 
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
            refused: channel dml_0_1v0 does not belong to node 8
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
            refused: channel dml_1_1v1 does not belong to node 7
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
        "#]],
    );
}

#[test]
fn a_checkpoint_never_goes_back_and_needs_a_channel() {
    let mut machine = machine();
    let checkpoint = |channel: &str, at| {
        let checkpoint =
            ChannelCheckpoint { channel: channel.to_owned(), position: Some(position(at)) };
        Kind::SaveCheckpoints(SaveCheckpoints { checkpoints: vec![checkpoint], node: NODE })
    };
    let mut told = String::new();
    watched(&mut machine, NODE, ChannelWatchState::WatchSuccess);
    for (channel, at) in [(CHANNEL, 5), (CHANNEL, 4), (CHANNEL, 6), ("dml_9_9v9", 7)] {
        told += &run(&mut machine, checkpoint(channel, at));
        let known = machine.state.views().assignments().checkpoint(channel).cloned();
        told += &format!(" {:?}\n", known.map(|known| known.position.timestamp));
    }
    expect![[r#"
        changed [] dml_0_1v0 Some(5)
        changed []  Some(5)
        changed [] dml_0_1v0 Some(6)
        changed []  None
    "#]]
    .assert_eq(&told);
}

/// A data node has answered to the command on its channel.
fn watched(machine: &mut Machine, node: i64, state: ChannelWatchState) {
    let vchan = VchannelInfo {
        collection_id: 1,
        channel_name: CHANNEL.to_owned(),
        ..VchannelInfo::default()
    };
    let info = ChannelWatchInfo { vchan: Some(vchan), state: state.into(), ..Default::default() };
    let key = format!("by-dev/meta/channelwatch/{node}/{CHANNEL}");
    put(machine, &key, &info.encode_to_vec());
}

#[test]
fn a_checkpoint_comes_from_the_node_that_consumes_the_channel() {
    let mut machine = machine();
    let mut told = String::new();
    let mut at = 0;
    let states = [
        ChannelWatchState::ToWatch,
        ChannelWatchState::WatchSuccess,
        ChannelWatchState::ToRelease,
        ChannelWatchState::ReleaseSuccess,
        ChannelWatchState::WatchFailure,
    ];
    for (node, state) in states.map(|state| (NODE, state)).into_iter().chain([
        // It watches on its own record only: the channel is another node's.
        (8, ChannelWatchState::WatchSuccess),
    ]) {
        at += 1;
        watched(&mut machine, node, state);
        let checkpoint =
            ChannelCheckpoint { channel: CHANNEL.to_owned(), position: Some(position(at)) };
        let save = SaveCheckpoints { checkpoints: vec![checkpoint], node };
        told += &format!("{node} {state:?}: {}\n", run(&mut machine, Kind::SaveCheckpoints(save)));
    }
    expect![[r#"
        7 ToWatch: changed []  refused 0: channel dml_0_1v0 does not belong to node 7
        7 WatchSuccess: changed [] dml_0_1v0
        7 ToRelease: changed [] dml_0_1v0
        7 ReleaseSuccess: changed [] dml_0_1v0
        7 WatchFailure: changed []  refused 0: channel dml_0_1v0 does not belong to node 7
        8 WatchSuccess: changed []  refused 0: channel dml_0_1v0 does not belong to node 8
    "#]]
    .assert_eq(&told);
    let known = machine.state.views().assignments().checkpoint(CHANNEL).cloned();
    assert_eq!(known.map(|known| known.position.timestamp), Some(4));
}

#[test]
fn a_dropped_channel_takes_its_segments_along_and_takes_nothing_in() {
    let mut machine = machine();
    run(&mut machine, open(10, 100, 50, true));
    run(&mut machine, open(11, 100, 50, true));
    run(&mut machine, Kind::SaveBinlogs(save(11, &[1], 3, 40, true)));
    let drop = |node| {
        let segments = vec![SaveBinlogs { dropped: true, ..save(10, &[9], 5, 40, false) }];
        Kind::DropChannel(DropChannel { channel: CHANNEL.to_owned(), node, segments })
    };
    let mut told = String::new();
    for step in [drop(8), drop(NODE), open(12, 100, 50, true)] {
        told += &format!("{}\n", run(&mut machine, step));
    }
    for segment in [10, 11, 12] {
        told += &format!("{}\n", show(&machine, segment));
    }
    expect![[r#"
        refused: channel dml_0_1v0 does not belong to node 8
        changed [10, 11] dml_0_1v0
        changed []  refused 12: channel dml_0_1v0 is not known
        Dropped rows 0 expire 0 dml None dropped 0 | logged 5
        Dropped rows 3 expire 0 dml Some(40) dropped 0 | logged 3
        nothing
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_channel_of_many_segments_is_dropped_in_pieces() {
    let mut machine = machine();
    let n_segments = i64::try_from(CHANNEL_SEGMENTS_DROPPED_MAX).unwrap() + 1;
    for first in (1..=n_segments).step_by(256) {
        let windows =
            (first..(first + 256).min(n_segments + 1)).map(|id| window(id, 100, 50, true));
        run(&mut machine, Kind::OpenWindows(OpenWindows { windows: windows.collect() }));
    }
    let drop = || {
        let segments = Vec::new();
        Kind::DropChannel(DropChannel { channel: CHANNEL.to_owned(), node: NODE, segments })
    };
    let removal = |machine: &Machine| machine.state.views().assignments().removal(CHANNEL);
    let told = run(&mut machine, drop());
    assert!(told.ends_with(&format!(", {}] ", n_segments - 1)), "{told}");
    let segments = machine.state.views().segments();
    let open: Vec<_> = segments.open_of_channel(CHANNEL).map(|(id, _)| id.0).collect();
    assert_eq!(open, [n_segments]);
    assert_eq!(removal(&machine), Some(false), "its segments are not all dropped");
    assert_eq!(run(&mut machine, drop()), format!("changed [{n_segments}] {CHANNEL}"));
    assert_eq!(machine.state.views().segments().open_of_channel(CHANNEL).count(), 0);
    assert_eq!(removal(&machine), Some(true));
}

#[test]
fn a_flushed_segment_is_dropped_with_its_partition_only() {
    let mut machine = machine();
    let with_partition = Kind::Drop(DropSegments {
        segments: vec![of(10)],
        dropped_at_ns: 6,
        partition_dropped: true,
        ..DropSegments::default()
    });
    let flushed = Kind::SaveBinlogs(save(10, &[1], 3, 40, true));
    story(
        &mut machine,
        10,
        vec![
            open(10, 100, 50, true),
            Kind::NoteRows(NoteRows { segments: vec![of(10)] }),
            with_partition.clone(),
            flushed,
            drop(10, true),
            with_partition,
        ],
        &expect![[r#"
            changed [10] 
              Growing rows 0 expire 0 dml None dropped 0 | rows No window 100 until 50 at 1000 sealed at 0
            changed [10] 
              Growing rows 0 expire 0 dml None dropped 0 | rows Yes window 100 until 50 at 1000 sealed at 0
            changed []  refused 10: segment 10 has rows, or may have
              Growing rows 0 expire 0 dml None dropped 0 | rows Yes window 100 until 50 at 1000 sealed at 0
            changed [10] 
              Flushed rows 3 expire 0 dml Some(40) dropped 0 | logged 3
            changed []  refused 10: segment 10 is in state 4, which does not allow that
              Flushed rows 3 expire 0 dml Some(40) dropped 0 | logged 3
            changed [10] 
              Dropped rows 3 expire 0 dml Some(40) dropped 6 | logged 3
        "#]],
    );
}

#[test]
fn a_command_sees_what_an_earlier_one_of_its_chunk_did() {
    let mut machine = machine();
    let command = |kind| {
        let area = Area::Segment(quorate::SegmentCommand { kind: Some(kind) });
        Command::Coordinator(quorate::CoordinatorCommand { area: Some(area) })
    };
    let first = machine.entry(vec![command(open(10, 100, 50, true)), command(seal(10, 0, true))]);
    let drop = DropChannel { channel: CHANNEL.to_owned(), node: NODE, segments: Vec::new() };
    let second =
        machine.entry(vec![command(open(11, 100, 50, true)), command(Kind::DropChannel(drop))]);
    machine.apply(&[first, second]).expect("the commands apply");
    machine.check();
    let segments = machine.state.views().segments();
    let dropped: Vec<_> = segments.dropped_after(SegmentId(0)).map(|(id, _)| id.0).collect();
    assert_eq!(dropped, [10, 11]);
    assert_eq!(segments.of_collection(CollectionId(1)).count(), 2);
}

/// Segment 10 is dropped, 11 flushed, and the channel has a checkpoint and a mark.
fn with_one_dropped(mark: &[u8]) -> Machine {
    let mut machine = machine();
    for id in [10, 11] {
        run(&mut machine, open(id, 100, 50, true));
        run(&mut machine, Kind::SaveBinlogs(save(id, &[1], 3, 40, true)));
    }
    let dropped = SaveBinlogs { dropped: true, ..save(10, &[], 0, 41, true) };
    run(&mut machine, Kind::SaveBinlogs(dropped));
    let checkpoint =
        ChannelCheckpoint { channel: CHANNEL.to_owned(), position: Some(position(40)) };
    watched(&mut machine, NODE, ChannelWatchState::WatchSuccess);
    let checkpoints = SaveCheckpoints { checkpoints: vec![checkpoint], node: NODE };
    run(&mut machine, Kind::SaveCheckpoints(checkpoints));
    put(&mut machine, &format!("by-dev/meta/datacoord-meta/channel-removal/{CHANNEL}"), mark);
    machine
}

fn remove(segment: i64) -> Kind {
    Kind::Remove(RemoveSegments { segments: vec![of(segment)] })
}

#[test]
fn removal_reads_no_segment_but_those_it_removes() {
    for mark in [&b"non-removed"[..], b"removed"] {
        let mut machine = with_one_dropped(mark);
        let key = "by-dev/meta/datacoord-meta/s/1/2/11";
        let meta = machine.state.key_meta(key.as_bytes()).expect("it is there");
        let row = crate::table::event::encode_key(meta.event_id());
        machine.store.rows_mut(crate::store::Table::Event).remove(&row[..]).expect("its row");
        let area = Area::Segment(quorate::SegmentCommand { kind: Some(remove(10)) });
        let command = quorate::CoordinatorCommand { area: Some(area) };
        machine.run(Command::Coordinator(command)).expect("nothing needs the row of another");
        let views = machine.state.views();
        assert!(views.segments().get(SegmentId(10)).is_none());
        assert!(views.assignments().checkpoint(CHANNEL).is_some(), "11 still has it");
    }
}

#[test]
fn the_checkpoint_of_an_ended_channel_goes_with_its_last_segment() {
    let command = |kind| {
        let area = Area::Segment(quorate::SegmentCommand { kind: Some(kind) });
        Command::Coordinator(quorate::CoordinatorCommand { area: Some(area) })
    };
    let dropped = Kind::SaveBinlogs(SaveBinlogs { dropped: true, ..save(11, &[], 0, 42, true) });
    let mut told = String::new();
    for mark in ["non-removed", "removed"] {
        for (steps, name) in [
            (vec![remove(10)], "11 is alive"),
            (vec![dropped.clone(), remove(10)], "11 is dropped"),
            (vec![dropped.clone(), remove(11), remove(10)], "all are removed"),
        ] {
            // How the log is cut into chunks must not matter.
            let mut apart = with_one_dropped(mark.as_bytes());
            let mut together = with_one_dropped(mark.as_bytes());
            for step in &steps {
                run(&mut apart, step.clone());
            }
            let entry = together.entry(steps.into_iter().map(command).collect());
            together.apply(&[entry]).expect("the commands apply");
            let [apart, together] = [apart, together].map(|machine| {
                machine.check();
                machine.state.views().assignments().checkpoint(CHANNEL).is_some()
            });
            assert_eq!(apart, together, "{mark}, {name}");
            told += &format!("{mark}, {name}: {}\n", if apart { "kept" } else { "gone" });
        }
    }
    // Two records of one id, which only raw writes bring about: the last place counts.
    for (places, name) in [([4, 6], "last dropped"), ([6, 4], "last flushed")] {
        let mut machine = with_one_dropped(b"removed");
        run(&mut machine, dropped.clone());
        for (partition, state) in [8, 9].into_iter().zip(places) {
            let info = SegmentInfo {
                id: 12,
                collection_id: 1,
                partition_id: partition,
                insert_channel: CHANNEL.to_owned(),
                state,
                ..Default::default()
            };
            let key = format!("by-dev/meta/datacoord-meta/s/1/{partition}/12");
            put(&mut machine, &key, &info.encode_to_vec());
        }
        run(&mut machine, remove(10));
        let is_kept = machine.state.views().assignments().checkpoint(CHANNEL).is_some();
        told += &format!("twins, {name}: {}\n", if is_kept { "kept" } else { "gone" });
    }
    expect![[r#"
        non-removed, 11 is alive: kept
        non-removed, 11 is dropped: kept
        non-removed, all are removed: kept
        removed, 11 is alive: kept
        removed, 11 is dropped: gone
        removed, all are removed: gone
        twins, last dropped: gone
        twins, last flushed: kept
    "#]]
    .assert_eq(&told);
}

#[test]
fn nothing_but_commands_writes_owned_keys() {
    let mut machine = machine();
    let area = Area::Channel(quorate::ChannelCommand {
        kind: Some(quorate::channel_command::Kind::SetRole(quorate::SetRole {
            on: true,
            raw_writes: false,
        })),
    });
    let closed = Command::Coordinator(quorate::CoordinatorCommand { area: Some(area) });
    machine.run(closed).expect("the role stays on");
    expect![[r#"
        put by-dev/meta/datacoord-meta/s/1/2/3 x
          refused: key by-dev/meta/datacoord-meta/s/1/2/3 is written by the coordinator only
        put by-dev/quorate/growing/3 x
          refused: key by-dev/quorate/growing/3 is written by the coordinator only
        put by-dev/meta/session/id 5
          r4
        txn then put by-dev/meta/field-index/1/2 x
          refused: key by-dev/meta/field-index/1/2 is written by the coordinator only
        del by-dev/meta/datacoord-meta/
          refused: key by-dev/meta/datacoord-meta/ is written by the coordinator only
        del by-dev/ by-dev0
          refused: key by-dev/meta/datacoord-meta/ is written by the coordinator only
        del * *
          refused: key by-dev/meta/datacoord-meta/ is written by the coordinator only
        del by-dev/meta/root-coord/ by-dev/meta/root-coord0
          r4 deleted 0
    "#]]
    .assert_eq(&machine.script(
        "
        put by-dev/meta/datacoord-meta/s/1/2/3 x
        put by-dev/quorate/growing/3 x
        put by-dev/meta/session/id 5
        txn then put by-dev/meta/field-index/1/2 x
        del by-dev/meta/datacoord-meta/
        del by-dev/ by-dev0
        del * *
        del by-dev/meta/root-coord/ by-dev/meta/root-coord0
        ",
    ));
    assert_eq!(HasRows::No as i32, 0, "an absent field is no");
}
