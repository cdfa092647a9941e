//! Random commands of the coordinator.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use proto::milvus::common::{KeyDataPair, KeyValuePair, SegmentState};
use proto::milvus::data::{
    Binlog, ChannelWatchInfo, CompactionResult, FieldBinlog, SegmentInfo, VchannelInfo,
};
use proto::milvus::index::{FieldIndex, IndexInfo};
use proto::milvus::msg::MsgPosition;
use proto::quorate::channel_move::Step;
use proto::quorate::command::Kind;
use proto::quorate::coordinator_command::Area;
use proto::quorate::{
    AddBuilds, AdoptChannels, AdoptSegments, AlterCollection, BuildRef, BuildResult,
    ChannelCheckpoint, ChannelMove, CollectionStart, CompactionInput, CompactionTask,
    CompleteCompaction, ControlCompaction, CoordinatorCommand, CreateIndex, DrainNode, DropChannel,
    DropIndexes, DropSegments, EndCompaction, FinishBuild, FinishImport, ForgetCompactions,
    MoveChannels, NewBuild, NewChannel, NewSegment, NoteRows, OpenWindows, PlanCompactions,
    RemoveBuilds, RemoveIndexes, RemoveSegments, RetryBuild, SaveBinlogs, SaveCheckpoints, Seal,
    SealSegments, SegmentRef, SendCompaction, SetRole, StartBuild, StartPosition, WatchChannels,
    Window,
};
use proto::quorate::{channel_command, compaction_command, index_command, segment_command};
use proto::{etcd, quorate};

pub(crate) fn coordinator(area: Area) -> Kind {
    Kind::Coordinator(CoordinatorCommand { area: Some(area) })
}

/// Switches the role.
pub(crate) fn role(on: bool, raw_writes: bool) -> Kind {
    let kind = channel_command::Kind::SetRole(SetRole { on, raw_writes });
    coordinator(Area::Channel(quorate::ChannelCommand { kind: Some(kind) }))
}

/// What a command is called, for counting.
pub(crate) fn name(kind: &Kind) -> &'static str {
    let Kind::Coordinator(CoordinatorCommand { area: Some(area) }) = kind else { return "raw" };
    match area {
        Area::Segment(command) => match &command.kind {
            Some(segment_command::Kind::OpenWindows(_)) => "OpenWindows",
            Some(segment_command::Kind::Seal(_)) => "SealSegments",
            Some(segment_command::Kind::Drop(_)) => "DropSegments",
            Some(segment_command::Kind::NoteRows(_)) => "NoteRows",
            Some(segment_command::Kind::SaveBinlogs(_)) => "SaveBinlogs",
            Some(segment_command::Kind::SaveCheckpoints(_)) => "SaveCheckpoints",
            Some(segment_command::Kind::DropChannel(_)) => "DropChannel",
            Some(segment_command::Kind::FinishImport(_)) => "FinishImport",
            Some(segment_command::Kind::Remove(_)) => "RemoveSegments",
            Some(segment_command::Kind::Adopt(_)) => "AdoptSegments",
            None => "no segment command",
        },
        Area::Channel(command) => match &command.kind {
            Some(channel_command::Kind::Watch(_)) => "WatchChannels",
            Some(channel_command::Kind::Move(_)) => "MoveChannels",
            Some(channel_command::Kind::Adopt(_)) => "AdoptChannels",
            Some(channel_command::Kind::SetRole(_)) => "role",
            Some(channel_command::Kind::Drain(_)) => "DrainNode",
            None => "no channel command",
        },
        Area::Index(command) => match &command.kind {
            Some(index_command::Kind::Create(_)) => "CreateIndex",
            Some(index_command::Kind::Drop(_)) => "DropIndexes",
            Some(index_command::Kind::AddBuilds(_)) => "AddBuilds",
            Some(index_command::Kind::Start(_)) => "StartBuild",
            Some(index_command::Kind::Finish(_)) => "FinishBuild",
            Some(index_command::Kind::Retry(_)) => "RetryBuild",
            Some(index_command::Kind::RemoveIndexes(_)) => "RemoveIndexes",
            Some(index_command::Kind::RemoveBuilds(_)) => "RemoveBuilds",
            None => "no index command",
        },
        Area::Garbage(_) => "garbage",
        Area::Compaction(command) => match &command.kind {
            Some(compaction_command::Kind::Plan(_)) => "PlanCompactions",
            Some(compaction_command::Kind::Send(_)) => "SendCompaction",
            Some(compaction_command::Kind::Complete(_)) => "CompleteCompaction",
            Some(compaction_command::Kind::End(_)) => "EndCompaction",
            Some(compaction_command::Kind::Alter(_)) => "AlterCollection",
            Some(compaction_command::Kind::Forget(_)) => "ForgetCompactions",
            Some(compaction_command::Kind::Control(_)) => "control",
            None => "no compaction command",
        },
    }
}

const CHANNELS: [&str; 2] = ["dml_0_1v0", "dml_1_1v1"];

/// Mostly the first one, so that things meet.
fn channel() -> impl Strategy<Value = String> {
    prop_oneof![5 => Just(CHANNELS[0]), 1 => Just(CHANNELS[1])].prop_map(str::to_owned)
}

fn of(segment: i64) -> SegmentRef {
    SegmentRef { collection: 1, partition: 1, segment }
}

fn segment() -> impl Strategy<Value = SegmentRef> {
    prop_oneof![
        20 => (1i64..6).prop_map(of),
        1 => (1i64..3, 1i64..3, 1i64..6).prop_map(|(collection, partition, segment)| {
            SegmentRef { collection, partition, segment }
        }),
    ]
}

fn segments() -> impl Strategy<Value = Vec<SegmentRef>> {
    prop::collection::vec(segment(), 0..4)
}

fn node() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(7i64), 1 => Just(8i64)]
}

fn ts() -> impl Strategy<Value = u64> {
    1u64..20
}

fn position() -> impl Strategy<Value = Option<MsgPosition>> {
    let some = (channel(), ts()).prop_map(|(channel_name, timestamp)| {
        let msg_id = timestamp.to_le_bytes().to_vec().into();
        MsgPosition { channel_name, msg_id, timestamp, ..MsgPosition::default() }
    });
    prop::option::weighted(0.8, some)
}

fn logs(fields: Vec<i64>) -> impl Strategy<Value = Vec<FieldBinlog>> {
    let log = (1i64..6, 0i64..4, ts()).prop_map(|(log_id, entries_num, timestamp_to)| Binlog {
        log_id,
        entries_num,
        timestamp_to,
        log_size: 100,
        ..Binlog::default()
    });
    let of_field = (select(fields), prop::collection::vec(log, 0..3))
        .prop_map(|(field_id, binlogs)| FieldBinlog { field_id, binlogs });
    prop::collection::vec(of_field, 0..3)
}

fn weighted(probability: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(probability)
}

fn open_windows() -> impl Strategy<Value = OpenWindows> {
    let create = (channel(), 1i64..9, weighted(0.1))
        .prop_map(|(channel, rows_max, importing)| NewSegment { channel, rows_max, importing });
    let window = (segment(), 0i64..9, ts(), prop::option::weighted(0.6, create)).prop_map(
        |(segment, rows, expire_ts, create)| Window {
            segment: Some(segment),
            rows,
            expire_ts,
            create,
        },
    );
    prop::collection::vec(window, 1..3).prop_map(|windows| OpenWindows { windows })
}

fn seal() -> impl Strategy<Value = SealSegments> {
    let one = (segment(), ts(), weighted(0.2), weighted(0.2)).prop_map(
        |(segment, last_expire_ts, unused, importing)| Seal {
            segment: Some(segment),
            last_expire_ts,
            unused,
            reason: "full".to_owned(),
            importing,
        },
    );
    prop::collection::vec(one, 1..3).prop_map(|seals| SealSegments { seals })
}

fn drop_segments() -> impl Strategy<Value = DropSegments> {
    (segments(), any::<bool>(), any::<bool>()).prop_map(|(segments, disowned, importing)| {
        DropSegments {
            segments,
            dropped_at_ns: 5,
            disowned,
            importing,
            partition_dropped: importing,
        }
    })
}

fn save_binlogs() -> impl Strategy<Value = SaveBinlogs> {
    let flags = (weighted(0.5), weighted(0.1), weighted(0.1));
    let starts = prop::collection::vec((segment(), position()), 0..2);
    (
        (segment(), node(), channel()),
        flags,
        (logs(vec![0, 100]), logs(vec![100]), logs(vec![0])),
        starts,
        position(),
        0i64..6,
    )
        .prop_map(
            |((segment, node, channel), flags, logs, starts, checkpoint, checkpoint_rows)| {
                let start =
                    |(segment, position)| StartPosition { segment: Some(segment), position };
                SaveBinlogs {
                    segment: Some(segment),
                    node,
                    channel,
                    flushed: flags.0,
                    dropped: flags.1,
                    importing: flags.2,
                    binlogs: logs.0,
                    statslogs: logs.1,
                    deltalogs: logs.2,
                    start_positions: starts.into_iter().map(start).collect(),
                    checkpoint,
                    checkpoint_rows,
                    dropped_at_ns: 6,
                }
            },
        )
}

fn save_checkpoints() -> impl Strategy<Value = SaveCheckpoints> {
    let one = (channel(), position())
        .prop_map(|(channel, position)| ChannelCheckpoint { channel, position });
    (prop::collection::vec(one, 1..3), node())
        .prop_map(|(checkpoints, node)| SaveCheckpoints { checkpoints, node })
}

fn drop_channel() -> impl Strategy<Value = DropChannel> {
    (channel(), node(), prop::collection::vec(save_binlogs(), 0..2))
        .prop_map(|(channel, node, segments)| DropChannel { channel, node, segments })
}

fn segment_command() -> impl Strategy<Value = segment_command::Kind> {
    use segment_command::Kind;
    prop_oneof![
        8 => open_windows().prop_map(Kind::OpenWindows),
        4 => seal().prop_map(Kind::Seal),
        2 => drop_segments().prop_map(Kind::Drop),
        3 => segments().prop_map(|segments| Kind::NoteRows(NoteRows { segments })),
        10 => save_binlogs().prop_map(Kind::SaveBinlogs),
        2 => save_checkpoints().prop_map(Kind::SaveCheckpoints),
        1 => drop_channel().prop_map(Kind::DropChannel),
        1 => segments().prop_map(|segments| Kind::FinishImport(FinishImport { segments })),
        2 => segments().prop_map(|segments| Kind::Remove(RemoveSegments { segments })),
        1 => (segments(), ts()).prop_map(|(segments, last_expire_ts)| {
            Kind::Adopt(AdoptSegments { segments, last_expire_ts })
        }),
    ]
}

fn watch() -> impl Strategy<Value = WatchChannels> {
    let new = (channel(), prop_oneof![6 => node(), 1 => Just(i64::MIN)])
        .prop_map(|(channel, node)| NewChannel { channel, node });
    prop::collection::vec(new, 1..3).prop_map(|channels| WatchChannels {
        collection: 1,
        channels,
        start_positions: vec![KeyDataPair { key: "dml_0".to_owned(), data: vec![1].into() }],
        create_ts: 1,
        schema: None,
    })
}

/// Epochs and revisions that are right now and then.
fn moves() -> impl Strategy<Value = MoveChannels> {
    let step = prop_oneof![
        (0i32..6).prop_map(Step::Release),
        node().prop_map(Step::AssignTo),
        node().prop_map(Step::DeleteKeyOf),
    ];
    let one =
        (channel(), 0u64..3, 0i64..40, step).prop_map(|(channel, epoch, key_revision, step)| {
            ChannelMove { channel, epoch, key_revision, step: Some(step) }
        });
    prop::collection::vec(one, 1..3).prop_map(|moves| MoveChannels { moves })
}

fn start() -> impl Strategy<Value = CollectionStart> {
    (1i64..4, 0u64..9).prop_map(|(collection, create_ts)| CollectionStart {
        collection,
        create_ts,
        start_positions: Vec::new(),
    })
}

fn channel_command() -> impl Strategy<Value = channel_command::Kind> {
    use channel_command::Kind;
    prop_oneof![
        6 => watch().prop_map(Kind::Watch),
        6 => moves().prop_map(Kind::Move),
        1 => (node(), any::<bool>()).prop_map(|(node, on)| Kind::Drain(DrainNode { node, on })),
        2 => (prop::collection::vec(channel(), 1..3), prop::collection::vec(start(), 0..3))
            .prop_map(|(channels, starts)| Kind::Adopt(AdoptChannels { channels, starts })),
        1 => (weighted(0.8), weighted(0.8))
            .prop_map(|(on, raw_writes)| Kind::SetRole(SetRole { on, raw_writes })),
    ]
}

fn index_id() -> impl Strategy<Value = i64> {
    1i64..4
}

fn create_index() -> impl Strategy<Value = CreateIndex> {
    (index_id(), 100i64..102, select(vec!["", "v", "w"]), select(vec!["HNSW", "FLAT"]), ts())
        .prop_map(|(index_id, field_id, name, kind, create_time)| {
            let kind = KeyValuePair { key: "index_type".to_owned(), value: kind.to_owned() };
            let info = IndexInfo {
                collection_id: 1,
                field_id,
                index_id,
                index_name: name.to_owned(),
                index_params: vec![kind.clone()],
                user_index_params: vec![kind],
                ..IndexInfo::default()
            };
            let definition = FieldIndex { index_info: Some(info), deleted: false, create_time };
            CreateIndex { definition: Some(definition), field_name: format!("f{field_id}") }
        })
}

/// Builds have the number of their segment, mostly.
fn build() -> impl Strategy<Value = BuildRef> {
    let named = |segment: i64, build: i64| BuildRef { collection: 1, partition: 1, segment, build };
    prop_oneof![
        9 => (1i64..6).prop_map(move |segment| named(segment, segment)),
        1 => (1i64..6, 1i64..6).prop_map(move |(segment, build)| named(segment, build)),
    ]
}

fn index_command() -> impl Strategy<Value = index_command::Kind> {
    use index_command::Kind;
    let new = (build(), prop_oneof![4 => Just(1i64), 1 => index_id()], weighted(0.2))
        .prop_map(|(build, index, finished)| NewBuild { build: Some(build), index, finished });
    let result = (weighted(0.2), 0usize..3).prop_map(|(failed, n_files)| BuildResult {
        failure: if failed { "no memory".to_owned() } else { String::new() },
        file_keys: (0..n_files).map(|nth| format!("file{nth}")).collect(),
        size_bytes: 10,
        engine_version: 1,
    });
    prop_oneof![
        4 => create_index().prop_map(Kind::Create),
        1 => prop::collection::vec(index_id(), 1..3)
            .prop_map(|indexes| Kind::Drop(DropIndexes { collection: 1, indexes })),
        6 => prop::collection::vec(new, 1..5)
            .prop_map(|builds| Kind::AddBuilds(AddBuilds { builds })),
        6 => (build(), 0i64..2, node()).prop_map(|(build, expect_version, node)| {
            Kind::Start(StartBuild { build: Some(build), expect_version, node })
        }),
        5 => (build(), 0i64..3, result).prop_map(|(build, version, result)| {
            Kind::Finish(FinishBuild { build: Some(build), version, result: Some(result) })
        }),
        4 => (build(), 0i64..3).prop_map(|(build, version)| {
            let reason = "gone".to_owned();
            Kind::Retry(RetryBuild { build: Some(build), version, reason })
        }),
        1 => prop::collection::vec(index_id(), 1..3)
            .prop_map(|indexes| Kind::RemoveIndexes(RemoveIndexes { collection: 1, indexes })),
        1 => prop::collection::vec(build(), 1..4)
            .prop_map(|builds| Kind::RemoveBuilds(RemoveBuilds { builds })),
    ]
}

fn plan_id() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(1i64), 1 => Just(2i64)]
}

fn task() -> impl Strategy<Value = CompactionTask> {
    (plan_id(), channel(), prop::collection::btree_set(1i64..6, 1..2)).prop_map(
        |(plan, channel, inputs)| CompactionTask {
            plan,
            trigger: 9,
            collection: 1,
            partition: 1,
            channel,
            kind: 3,
            inputs: inputs
                .into_iter()
                .map(|segment| CompactionInput { segment, ..CompactionInput::default() })
                .collect(),
            timeout_s: 900,
            ..CompactionTask::default()
        },
    )
}

fn compaction_command() -> impl Strategy<Value = compaction_command::Kind> {
    use compaction_command::Kind;
    let result = (plan_id(), 6i64..9, 0i64..9, logs(vec![0, 100]), logs(vec![0]), channel())
        .prop_map(|(plan_id, segment_id, num_of_rows, insert_logs, deltalogs, channel)| {
            CompactionResult {
                plan_id,
                segment_id,
                num_of_rows,
                insert_logs,
                deltalogs,
                channel,
                ..CompactionResult::default()
            }
        });
    prop_oneof![
        6 => prop::collection::vec(task(), 1..3)
            .prop_map(|tasks| Kind::Plan(PlanCompactions { tasks })),
        5 => (plan_id(), node(), 1u64..3, ts()).prop_map(|(plan, node, epoch, start_ts)| {
            Kind::Send(SendCompaction { plan, node, epoch, start_ts })
        }),
        5 => (plan_id(), result, prop::collection::vec(1i64..6, 0..5)).prop_map(
            |(plan, result, copied_deltalogs)| Kind::Complete(CompleteCompaction {
                plan,
                result: Some(result),
                copied_deltalogs,
                dropped_at_ns: 7,
            })
        ),
        3 => (plan_id(), 0i32..8, weighted(0.2)).prop_map(|(plan, state, overdue)| {
            Kind::End(EndCompaction { plan, state, reason: "over".to_owned(), overdue })
        }),
        1 => prop::collection::vec(plan_id(), 1..3)
            .prop_map(|plans| Kind::Forget(ForgetCompactions { plans })),
        1 => any::<bool>().prop_map(|paused| Kind::Control(ControlCompaction { paused })),
        1 => (1i64..4, "[ab]", "[01]").prop_map(|(collection, key, value)| {
            let properties = vec![KeyValuePair { key, value }];
            Kind::Alter(AlterCollection { collection, properties })
        }),
    ]
}

fn garbage_command() -> impl Strategy<Value = Area> {
    use quorate::garbage_command::Kind;
    let kind = prop_oneof![
        (0u64..3).prop_map(|duration_ms| Kind::Pause(quorate::PauseGarbage { duration_ms })),
        Just(Kind::Resume(quorate::ResumeGarbage {})),
    ];
    kind.prop_map(|kind| Area::Garbage(quorate::GarbageCommand { kind: Some(kind) }))
}

fn put(key: String, value: Vec<u8>) -> Kind {
    let (key, value) = (Bytes::from(key), Bytes::from(value));
    Kind::Put(etcd::PutRequest { key, value, ..etcd::PutRequest::default() })
}

/// What a stock coordinator left, and what data nodes write.
fn raw() -> impl Strategy<Value = Kind> {
    let state = prop_oneof![Just(SegmentState::Growing), Just(SegmentState::Flushed)];
    let stock = (1i64..6, state, channel(), 1i64..9).prop_map(|(id, state, channel, rows)| {
        let info = SegmentInfo {
            id,
            collection_id: 1,
            partition_id: 1,
            insert_channel: channel,
            num_of_rows: rows,
            state: state.into(),
            ..SegmentInfo::default()
        };
        put(format!("by-dev/meta/datacoord-meta/s/1/1/{id}"), info.encode_to_vec())
    });
    let acknowledged = (node(), channel(), 2i32..8).prop_map(|(node, channel, state)| {
        let key = format!("by-dev/meta/channelwatch/{node}/{channel}");
        let vchan =
            VchannelInfo { collection_id: 1, channel_name: channel, ..VchannelInfo::default() };
        let info = ChannelWatchInfo { vchan: Some(vchan), state, ..ChannelWatchInfo::default() };
        put(key, info.encode_to_vec())
    });
    let session = node().prop_map(|node| {
        let value = format!(r#"{{"ServerID":{node},"Address":"h:1","Version":"2.3.5"}}"#);
        put(format!("by-dev/meta/session/datanode-{node}"), value.into_bytes())
    });
    prop_oneof![2 => stock, 5 => acknowledged, 1 => session]
}

/// Bytes that are no record, below the prefixes that commands write.
pub(crate) fn junk() -> impl Strategy<Value = Kind> {
    let key = prop_oneof![
        "meta/datacoord-meta/s/1/1/[1-5]",
        "meta/datacoord-meta/(binlog|deltalog|statslog)/1/1/[1-5]/(0|100)",
        "meta/datacoord-meta/channel-(cp|removal)/dml_[01]_1v[01]",
        "meta/datacoord-meta/[a-z]{0,3}",
        "meta/field-index/1/[1-3]",
        "meta/field-index/[a-z/]{0,4}",
        "meta/segment-index/1/1/[1-5]/[1-5]",
        "meta/channelwatch/[78]/dml_[01]_1v[01]",
        "quorate/growing/[1-5]",
        "quorate/channel/dml_[01]_1v[01]",
        "quorate/drain/[78]",
        "quorate/garbage-control",
        "quorate/compaction/[12]",
        "quorate/altered/[1-3]",
        "quorate/[a-z-]{0,5}",
    ];
    let value = prop_oneof![
        1 => Just(Vec::new()),
        4 => prop::collection::vec(any::<u8>(), 1..9),
    ];
    (key, value).prop_map(|(key, value)| put(format!("by-dev/{key}"), value))
}

/// Everything that happens to records.
pub(crate) fn any_command() -> impl Strategy<Value = Kind> {
    let segment = segment_command()
        .prop_map(|kind| Area::Segment(quorate::SegmentCommand { kind: Some(kind) }));
    let channel = channel_command()
        .prop_map(|kind| Area::Channel(quorate::ChannelCommand { kind: Some(kind) }));
    let index =
        index_command().prop_map(|kind| Area::Index(quorate::IndexCommand { kind: Some(kind) }));
    let compaction = compaction_command()
        .prop_map(|kind| Area::Compaction(quorate::CompactionCommand { kind: Some(kind) }));
    prop_oneof![
        30 => segment.prop_map(coordinator),
        12 => channel.prop_map(coordinator),
        25 => index.prop_map(coordinator),
        16 => compaction.prop_map(coordinator),
        2 => garbage_command().prop_map(coordinator),
        10 => raw(),
        3 => junk(),
    ]
}
