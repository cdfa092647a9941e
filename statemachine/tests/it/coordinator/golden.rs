//! Golden files of the coordinator's commands: one life of a collection, from its channel to the
//! removal of its records.

use proto::milvus::common::{KeyDataPair, KeyValuePair};
use proto::milvus::data::{Binlog, ChannelWatchInfo, CompactionResult, FieldBinlog, VchannelInfo};
use proto::milvus::index::{FieldIndex, IndexInfo};
use proto::milvus::msg::MsgPosition;
use proto::quorate::channel_move::Step;
use proto::quorate::command::Kind;
use proto::quorate::coordinator_command::Area;
use proto::quorate::{
    AddBuilds, AdoptChannels, AdoptSegments, AlterCollection, BuildRef, BuildResult,
    ChannelCheckpoint, ChannelMove, CompactionInput, CompactionState, CompactionTask,
    CompleteCompaction, ControlCompaction, CreateIndex, DrainNode, DropChannel, DropIndexes,
    DropSegments, EndCompaction, FinishBuild, FinishImport, ForgetCompactions, MoveChannels,
    NewBuild, NewChannel, NewSegment, NoteRows, OpenWindows, PlanCompactions, ReleaseReason,
    RemoveBuilds, RemoveIndexes, RemoveSegments, RetryBuild, SaveBinlogs, SaveCheckpoints, Seal,
    SealSegments, SegmentRef, SendCompaction, StartBuild, StartPosition, WatchChannels, Window,
};
use proto::quorate::{channel_command, compaction_command, index_command, segment_command};
use proto::{etcd, quorate};

use super::commands;
use crate::golden::{self, Golden};

const CHANNEL: &str = "by-dev-rootcoord-dml_0_1v0";

fn segment(kind: segment_command::Kind) -> Kind {
    commands::coordinator(Area::Segment(quorate::SegmentCommand { kind: Some(kind) }))
}

fn channel(kind: channel_command::Kind) -> Kind {
    commands::coordinator(Area::Channel(quorate::ChannelCommand { kind: Some(kind) }))
}

fn index(kind: index_command::Kind) -> Kind {
    commands::coordinator(Area::Index(quorate::IndexCommand { kind: Some(kind) }))
}

fn compaction(kind: compaction_command::Kind) -> Kind {
    commands::coordinator(Area::Compaction(quorate::CompactionCommand { kind: Some(kind) }))
}

fn garbage(kind: quorate::garbage_command::Kind) -> Kind {
    commands::coordinator(Area::Garbage(quorate::GarbageCommand { kind: Some(kind) }))
}

fn of(segment: i64) -> SegmentRef {
    SegmentRef { collection: 1, partition: 2, segment }
}

fn build(segment: i64) -> Option<BuildRef> {
    Some(BuildRef { collection: 1, partition: 2, segment, build: segment + 100 })
}

fn position(timestamp: u64) -> MsgPosition {
    MsgPosition {
        channel_name: CHANNEL.to_owned(),
        msg_id: vec![1, 2, 3].into(),
        timestamp,
        ..MsgPosition::default()
    }
}

fn logs(field_id: i64, log_id: i64, entries_num: i64) -> FieldBinlog {
    let log = Binlog {
        log_id,
        entries_num,
        timestamp_from: 10,
        timestamp_to: 20,
        log_size: 4096,
        ..Binlog::default()
    };
    FieldBinlog { field_id, binlogs: vec![log] }
}

fn window(id: i64, importing: bool) -> Window {
    let new = NewSegment { channel: CHANNEL.to_owned(), rows_max: 1000, importing };
    Window { segment: Some(of(id)), rows: 100, expire_ts: 50, create: Some(new) }
}

fn seal(id: i64, unused: bool) -> Seal {
    Seal {
        segment: Some(of(id)),
        last_expire_ts: 60,
        unused,
        reason: "rows".to_owned(),
        ..Seal::default()
    }
}

fn flushed(id: i64) -> SaveBinlogs {
    SaveBinlogs {
        segment: Some(of(id)),
        node: 7,
        channel: CHANNEL.to_owned(),
        flushed: true,
        binlogs: vec![logs(0, id * 10, 90), logs(100, id * 10 + 1, 90)],
        statslogs: vec![logs(100, 1, 90)],
        deltalogs: vec![logs(0, id * 10 + 2, 5)],
        start_positions: vec![StartPosition { segment: Some(of(id)), position: Some(position(5)) }],
        checkpoint: Some(position(40)),
        checkpoint_rows: 90,
        ..SaveBinlogs::default()
    }
}

fn session() -> Kind {
    let value = r#"{"ServerID":7,"ServerName":"datanode","Address":"h:1","Version":"2.3.5"}"#;
    put("by-dev/meta/session/datanode-7".to_owned(), value.into())
}

fn watching() -> Kind {
    let vchan = VchannelInfo {
        collection_id: 1,
        channel_name: CHANNEL.to_owned(),
        ..VchannelInfo::default()
    };
    let info = ChannelWatchInfo { vchan: Some(vchan), state: 3, ..ChannelWatchInfo::default() };
    put(format!("by-dev/meta/channelwatch/7/{CHANNEL}"), prost::Message::encode_to_vec(&info))
}

fn put(key: String, value: Vec<u8>) -> Kind {
    let (key, value) = (key.into(), value.into());
    Kind::Put(etcd::PutRequest { key, value, ..etcd::PutRequest::default() })
}

fn definition() -> CreateIndex {
    let pair = |key: &str, value: &str| KeyValuePair { key: key.into(), value: value.into() };
    let info = IndexInfo {
        collection_id: 1,
        field_id: 101,
        index_id: 70,
        type_params: vec![pair("dim", "8")],
        index_params: vec![pair("index_type", "HNSW")],
        user_index_params: vec![pair("index_type", "HNSW")],
        ..IndexInfo::default()
    };
    let definition = FieldIndex { index_info: Some(info), deleted: false, create_time: 45 };
    CreateIndex { definition: Some(definition), field_name: "vector".to_owned() }
}

fn task() -> CompactionTask {
    let input = |segment| CompactionInput { segment, ..CompactionInput::default() };
    CompactionTask {
        plan: 80,
        trigger: 79,
        collection: 1,
        partition: 2,
        channel: CHANNEL.to_owned(),
        kind: 3,
        inputs: vec![input(11), input(12)],
        timeout_s: 900,
        total_rows: 180,
        reason: "deletes".to_owned(),
        priority_milli: 400,
        factors_milli: vec![400, 0, 0, 0],
        ..CompactionTask::default()
    }
}

fn moved(epoch: u64, key_revision: i64, step: Step) -> Kind {
    let channel_name = CHANNEL.to_owned();
    let moves = vec![ChannelMove { channel: channel_name, epoch, key_revision, step: Some(step) }];
    channel(channel_command::Kind::Move(MoveChannels { moves }))
}

fn beginning() -> Vec<(&'static str, Vec<Kind>)> {
    use segment_command::Kind as Segment;
    let watch = WatchChannels {
        collection: 1,
        channels: vec![NewChannel { channel: CHANNEL.to_owned(), node: 7 }],
        start_positions: vec![KeyDataPair {
            key: "by-dev-rootcoord-dml_0".to_owned(),
            data: vec![9].into(),
        }],
        create_ts: 4,
        schema: None,
    };
    let windows = [11, 12, 13, 14].map(|id| window(id, false));
    let windows = windows.into_iter().chain([window(15, true)]).collect();
    let checkpoint =
        ChannelCheckpoint { channel: CHANNEL.to_owned(), position: Some(position(40)) };
    vec![
        ("set-role", vec![commands::role(true, true)]),
        ("session", vec![session()]),
        ("watch-channels", vec![channel(channel_command::Kind::Watch(watch)), watching()]),
        ("open-windows", vec![segment(Segment::OpenWindows(OpenWindows { windows }))]),
        (
            "note-rows",
            vec![segment(Segment::NoteRows(NoteRows { segments: vec![of(11), of(12)] }))],
        ),
        (
            "seal-segments",
            vec![segment(Segment::Seal(SealSegments {
                seals: vec![seal(11, false), seal(12, false), seal(13, true)],
            }))],
        ),
        (
            "save-binlogs",
            vec![
                segment(Segment::SaveBinlogs(flushed(11))),
                segment(Segment::SaveBinlogs(flushed(12))),
            ],
        ),
        (
            "save-checkpoints",
            vec![segment(Segment::SaveCheckpoints(SaveCheckpoints {
                checkpoints: vec![checkpoint],
                node: 7,
            }))],
        ),
        (
            "drop-segments",
            vec![segment(Segment::Drop(DropSegments {
                segments: vec![of(14), of(11)],
                dropped_at_ns: 99,
                ..DropSegments::default()
            }))],
        ),
        (
            "finish-import",
            vec![segment(Segment::FinishImport(FinishImport { segments: vec![of(15)] }))],
        ),
        (
            "adopt-segments",
            vec![segment(Segment::Adopt(AdoptSegments {
                segments: vec![of(15)],
                last_expire_ts: 70,
            }))],
        ),
    ]
}

fn indexes() -> Vec<(&'static str, Vec<Kind>)> {
    use index_command::Kind as Index;
    let new = |segment, finished| NewBuild { build: build(segment), index: 70, finished };
    let start = |expect_version| {
        index(Index::Start(StartBuild { build: build(11), expect_version, node: 9 }))
    };
    let result = BuildResult {
        file_keys: vec!["HNSW".to_owned()],
        size_bytes: 2048,
        engine_version: 1,
        ..BuildResult::default()
    };
    vec![
        ("create-index", vec![index(Index::Create(definition()))]),
        (
            "add-builds",
            vec![index(Index::AddBuilds(AddBuilds {
                builds: vec![new(11, false), new(12, true), new(14, false)],
            }))],
        ),
        ("start-build", vec![start(0), start(0)]),
        (
            "retry-build",
            vec![index(Index::Retry(RetryBuild {
                build: build(11),
                version: 1,
                reason: "the node is gone".to_owned(),
            }))],
        ),
        (
            "finish-build",
            vec![
                start(1),
                index(Index::Finish(FinishBuild {
                    build: build(11),
                    version: 2,
                    result: Some(result),
                })),
            ],
        ),
    ]
}

fn compactions() -> Vec<(&'static str, Vec<Kind>)> {
    use compaction_command::Kind as Compaction;
    let result = CompactionResult {
        plan_id: 80,
        segment_id: 16,
        num_of_rows: 170,
        insert_logs: vec![logs(0, 160, 170), logs(100, 161, 170)],
        field2_statslog_paths: vec![logs(100, 1, 170)],
        channel: CHANNEL.to_owned(),
        ..CompactionResult::default()
    };
    vec![
        (
            "plan-compactions",
            vec![compaction(Compaction::Plan(PlanCompactions { tasks: vec![task()] }))],
        ),
        (
            "send-compaction",
            vec![compaction(Compaction::Send(SendCompaction {
                plan: 80,
                node: 7,
                epoch: 1,
                start_ts: 44,
            }))],
        ),
        (
            "complete-compaction",
            vec![compaction(Compaction::Complete(CompleteCompaction {
                plan: 80,
                result: Some(result),
                copied_deltalogs: vec![],
                dropped_at_ns: 100,
            }))],
        ),
        (
            "end-compaction",
            vec![compaction(Compaction::End(EndCompaction {
                plan: 80,
                state: CompactionState::Synced.into(),
                reason: "synced".to_owned(),
                overdue: false,
            }))],
        ),
        (
            "control-compaction",
            vec![compaction(Compaction::Control(ControlCompaction { paused: true }))],
        ),
        (
            "forget-compactions",
            vec![compaction(Compaction::Forget(ForgetCompactions { plans: vec![80, 81] }))],
        ),
    ]
}

fn end() -> Vec<(&'static str, Vec<Kind>)> {
    use index_command::Kind as Index;
    use segment_command::Kind as Segment;
    let drop_channel = DropChannel {
        channel: CHANNEL.to_owned(),
        node: 7,
        segments: vec![SaveBinlogs { flushed: false, ..flushed(16) }],
    };
    let all: Vec<i64> = (11..=16).collect();
    let segments = all.iter().copied().map(of).collect();
    let builds = all.iter().filter_map(|id| build(*id)).collect();
    vec![
        ("move-channels", vec![moved(1, 4, Step::Release(ReleaseReason::Balance.into()))]),
        (
            "drain-node",
            vec![
                channel(channel_command::Kind::Drain(DrainNode { node: 7, on: true })),
                channel(channel_command::Kind::Drain(DrainNode { node: 8, on: true })),
            ],
        ),
        (
            "adopt-channels",
            vec![channel(channel_command::Kind::Adopt(AdoptChannels {
                channels: vec![CHANNEL.to_owned()],
                starts: Vec::new(),
            }))],
        ),
        ("drop-channel", vec![segment(Segment::DropChannel(drop_channel))]),
        (
            "drop-indexes",
            vec![index(Index::Drop(DropIndexes { collection: 1, indexes: vec![70, 71] }))],
        ),
        (
            "remove-indexes",
            vec![index(Index::RemoveIndexes(RemoveIndexes { collection: 1, indexes: vec![70] }))],
        ),
        ("remove-builds", vec![index(Index::RemoveBuilds(RemoveBuilds { builds }))]),
        ("remove-segments", vec![segment(Segment::Remove(RemoveSegments { segments }))]),
        (
            "pause-garbage",
            vec![garbage(quorate::garbage_command::Kind::Pause(quorate::PauseGarbage {
                duration_ms: 60_000,
            }))],
        ),
        (
            "resume-garbage",
            vec![garbage(quorate::garbage_command::Kind::Resume(quorate::ResumeGarbage {}))],
        ),
        ("role-off", vec![commands::role(false, true)]),
    ]
}

fn properties() -> Vec<(&'static str, Vec<Kind>)> {
    let alter = |value: &str| {
        let key = "collection.ttl.seconds".to_owned();
        let properties = vec![KeyValuePair { key, value: value.to_owned() }];
        let alter = AlterCollection { collection: 1, properties };
        compaction(compaction_command::Kind::Alter(alter))
    };
    vec![
        ("role-on-again", vec![commands::role(true, false)]),
        ("alter-collection", vec![alter("60"), alter("61")]),
    ]
}

/// Append only, once released.
pub(super) fn life() -> Golden {
    let files = [beginning(), indexes(), compactions(), end(), properties()].concat();
    Golden { folder: "coordinator/", files }
}

#[test]
fn released_bytes_apply_to_the_digests_that_they_had() {
    golden::bytes_apply_to_the_digests_that_they_had(life());
}

#[test]
fn released_rows_load_to_the_state_that_wrote_them() {
    golden::rows_load_to_the_state_that_wrote_them(life());
}

#[test]
fn every_command_of_today_encodes_as_released() {
    golden::commands_encode_as_released(life());
}
