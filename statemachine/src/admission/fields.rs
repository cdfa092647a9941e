//! Since when each field of each message that a run is made of may stand in the log.
//!
//! A test walks the descriptors from `quorate.v1.Run` and finds fields that have no row, and fields
//! whose row apply does not obey. Whoever adds a field adds a row with the level that brings it, and
//! a check in `needed_level` if that level is above the one of its command's kind.

use crate::versions::{COORDINATOR, HARDENING, KEYSPACE};

/// Fields `first..=last` of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub message: &'static str,
    /// The feature level that brought them.
    pub since: u32,
    pub first: u32,
    pub last: u32,
}

const fn row(message: &'static str, since: u32, first: u32, last: u32) -> Fields {
    Fields { message, since, first, last }
}

pub const FIELDS: &[Fields] = &[
    // 2026-11-24
    row("etcdserverpb.AlarmRequest", KEYSPACE, 1, 3),
    row("etcdserverpb.CompactionRequest", KEYSPACE, 1, 2),
    row("etcdserverpb.Compare", KEYSPACE, 1, 8),
    row("etcdserverpb.Compare", KEYSPACE, 64, 64),
    row("etcdserverpb.DeleteRangeRequest", KEYSPACE, 1, 3),
    row("etcdserverpb.LeaseGrantRequest", KEYSPACE, 1, 2),
    row("etcdserverpb.LeaseRevokeRequest", KEYSPACE, 1, 1),
    row("etcdserverpb.PutRequest", KEYSPACE, 1, 6),
    row("etcdserverpb.RangeRequest", KEYSPACE, 1, 13),
    row("etcdserverpb.RequestOp", KEYSPACE, 1, 4),
    row("etcdserverpb.TxnRequest", KEYSPACE, 1, 3),
    row("quorate.v1.ChangeSettings", KEYSPACE, 1, 5),
    row("quorate.v1.Command", KEYSPACE, 1, 13),
    row("quorate.v1.ExpireLeases", KEYSPACE, 1, 1),
    row("quorate.v1.Fence", KEYSPACE, 1, 2),
    row("quorate.v1.RaiseLevel", KEYSPACE, 1, 1),
    row("quorate.v1.RegisterOrigin", KEYSPACE, 1, 2),
    row("quorate.v1.Run", KEYSPACE, 1, 5),
    // 2026-11-25
    row("quorate.v1.Command", COORDINATOR, 14, 14),
    row("milvus.proto.common.KeyDataPair", COORDINATOR, 1, 2),
    row("milvus.proto.common.KeyValuePair", COORDINATOR, 1, 2),
    row("milvus.proto.data.Binlog", COORDINATOR, 1, 6),
    row("milvus.proto.data.CompactionResult", COORDINATOR, 1, 7),
    row("milvus.proto.data.FieldBinlog", COORDINATOR, 1, 2),
    row("milvus.proto.index.FieldIndex", COORDINATOR, 1, 3),
    row("milvus.proto.index.IndexInfo", COORDINATOR, 1, 13),
    row("milvus.proto.msg.MsgPosition", COORDINATOR, 1, 4),
    row("milvus.proto.schema.CollectionSchema", COORDINATOR, 1, 5),
    row("milvus.proto.schema.FieldSchema", COORDINATOR, 1, 13),
    row("milvus.proto.schema.ValueField", COORDINATOR, 1, 7),
    row("quorate.v1.AddBuilds", COORDINATOR, 1, 1),
    row("quorate.v1.AdoptChannels", COORDINATOR, 1, 2),
    row("quorate.v1.AdoptSegments", COORDINATOR, 1, 2),
    row("quorate.v1.AlterCollection", COORDINATOR, 1, 2),
    row("quorate.v1.BuildRef", COORDINATOR, 1, 4),
    row("quorate.v1.BuildResult", COORDINATOR, 1, 4),
    row("quorate.v1.ChannelCheckpoint", COORDINATOR, 1, 2),
    row("quorate.v1.ChannelCommand", COORDINATOR, 1, 5),
    row("quorate.v1.ChannelMove", COORDINATOR, 1, 6),
    row("quorate.v1.CollectionStart", COORDINATOR, 1, 3),
    row("quorate.v1.CompactionCommand", COORDINATOR, 1, 7),
    row("quorate.v1.CompactionInput", COORDINATOR, 1, 2),
    row("quorate.v1.CompactionTask", COORDINATOR, 1, 25),
    row("quorate.v1.CompleteCompaction", COORDINATOR, 1, 4),
    row("quorate.v1.ControlCompaction", COORDINATOR, 1, 1),
    row("quorate.v1.CoordinatorCommand", COORDINATOR, 1, 5),
    row("quorate.v1.CreateIndex", COORDINATOR, 1, 2),
    row("quorate.v1.DrainNode", COORDINATOR, 1, 2),
    row("quorate.v1.DropChannel", COORDINATOR, 1, 3),
    row("quorate.v1.DropIndexes", COORDINATOR, 1, 2),
    row("quorate.v1.DropSegments", COORDINATOR, 1, 4),
    row("quorate.v1.EndCompaction", COORDINATOR, 1, 4),
    row("quorate.v1.FinishBuild", COORDINATOR, 1, 3),
    row("quorate.v1.FinishImport", COORDINATOR, 1, 1),
    row("quorate.v1.ForgetCompactions", COORDINATOR, 1, 1),
    row("quorate.v1.GarbageCommand", COORDINATOR, 1, 2),
    row("quorate.v1.IndexCommand", COORDINATOR, 1, 8),
    row("quorate.v1.MoveChannels", COORDINATOR, 1, 1),
    row("quorate.v1.NewBuild", COORDINATOR, 1, 3),
    row("quorate.v1.NewChannel", COORDINATOR, 1, 2),
    row("quorate.v1.NewSegment", COORDINATOR, 1, 3),
    row("quorate.v1.NoteRows", COORDINATOR, 1, 1),
    row("quorate.v1.OpenWindows", COORDINATOR, 1, 1),
    row("quorate.v1.PauseGarbage", COORDINATOR, 1, 1),
    row("quorate.v1.PlanCompactions", COORDINATOR, 1, 1),
    row("quorate.v1.RemoveBuilds", COORDINATOR, 1, 1),
    row("quorate.v1.RemoveIndexes", COORDINATOR, 1, 2),
    row("quorate.v1.RemoveSegments", COORDINATOR, 1, 1),
    row("quorate.v1.RetryBuild", COORDINATOR, 1, 3),
    row("quorate.v1.SaveBinlogs", COORDINATOR, 1, 13),
    row("quorate.v1.SaveCheckpoints", COORDINATOR, 1, 1),
    row("quorate.v1.Seal", COORDINATOR, 1, 5),
    row("quorate.v1.SealSegments", COORDINATOR, 1, 1),
    row("quorate.v1.SegmentCommand", COORDINATOR, 1, 10),
    row("quorate.v1.SegmentRef", COORDINATOR, 1, 3),
    row("quorate.v1.SendCompaction", COORDINATOR, 1, 4),
    row("quorate.v1.SetRole", COORDINATOR, 1, 2),
    row("quorate.v1.StartBuild", COORDINATOR, 1, 3),
    row("quorate.v1.StartPosition", COORDINATOR, 1, 2),
    row("quorate.v1.WatchChannels", COORDINATOR, 1, 5),
    row("quorate.v1.Window", COORDINATOR, 1, 4),
    // 2026-11-29
    row("quorate.v1.Command", HARDENING, 15, 15),
    row("quorate.v1.SetTime", HARDENING, 1, 1),
    row("quorate.v1.DropSegments", HARDENING, 5, 5),
    row("quorate.v1.SaveCheckpoints", HARDENING, 2, 2),
];
