"""What a DataCoord answers when it is asked directly, above all to what is wrong: unknown ids,
strangers, repetitions, what goes back. Code and both fields of every status are compared with
stock's answers, which are kept in `questions.txt`; UPDATE_EXPECT=1 with stock's coordinator renews
them.
"""

import json
import re

import grpc
from google.protobuf import text_format

from coordinator import differences, script, standby
from coordinator.ledger import Ledger
from coordinator.transcript import Transcript

SETTINGS = {"dataCoord.compaction.enableAutoCompaction": False}
UNKNOWN = 404
NODE = 9_999
DROPPED_STATE = 6
ORDERS = {"KeyValuePair": "key", "FieldBinlog": "fieldID"}
# Words, not answers: everybody chooses his own.
WORDS = re.compile(r' ?\b(reason|detail): "(?:[^"\\]|\\.)*"')
# Of a process or of the moment.
MOMENTS = re.compile(r"(timestamp(?:_from|_to)?|expire_time|timeOfSeal|flush_ts|last_expire_time"
                     r"|startTs|nodeID|datanode_id|log_size|serialized_size|serialize_size"
                     r"|create_time): \d+")
POSITION = re.compile(r'(msgID|msgGroup): "(?:[^"\\]|\\.)*" ?')
# The path says it, too; stock fills it in after its next start only.
LOG = re.compile(r" logID: \d+")
ROOT = re.compile(r'"[^" ]*/((?:insert|stats|delta)_log|index_files)/')


def run(stage):
    questions = Questions(stage)
    questions.prepare()
    for part in (questions.segments, questions.saves, questions.channels, questions.flushes,
                 questions.statistics, questions.indexes, questions.compactions, questions.imports,
                 questions.garbage, questions.operators, questions.headers, questions.assignments):
        questions.said.say("about", part.__name__)
        part()
    if stage.ours:
        check_followers(stage)
    stage.write("questions.txt", questions.said.text())
    script.check_expected(stage, "questions.txt", questions.said.text(), differences.ANSWERS)


def check_followers(stage):
    """Nodes that do not lead say so, and send everybody else away in a way that makes a stock
    client look for the leader."""
    session = stage.cluster.coordinator_session()["Address"]
    followers = stage.cluster.coordinators() - {session}
    for address in sorted(followers):
        state = standby.call(address, "data.DataCoord/GetComponentStates",
                             stage.messages["milvus.GetComponentStatesRequest"](),
                             stage.messages["milvus.ComponentStates"])
        assert state.state.state_code == standby.STANDBY, f"{address}: {state}"
        try:
            answer = standby.call(address, "data.DataCoord/GetSegmentInfo",
                                  stage.messages["data.GetSegmentInfoRequest"](),
                                  stage.messages["data.GetSegmentInfoResponse"])
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, f"{address}: {error}"
        else:
            raise AssertionError(f"the follower {address} answers {answer}")
    stage.say(f"{len(followers)} followers are in standby and unavailable")


class Questions:
    def __init__(self, stage):
        self.stage = stage
        self.said = Transcript()
        self.service = stage.messages.pool.FindServiceByName("milvus.proto.data.DataCoord")

    def prepare(self):
        """One collection with a flushed segment that has an index, and a growing one."""
        ledger = Ledger(self.stage, "asked", shards=1)
        ledger.insert(2_000)
        ledger.flush()
        ledger.index()
        ledger.wait_index()
        script.wait_quiet(self.stage)
        ledger.insert(100)
        store = self.stage.metastore()
        self.collection = store.collection("asked")
        record = store.collections[self.collection]
        self.channel = record.virtual_channel_names[0]
        self.pchannel = record.physical_channel_names[0]
        self.schema = record.schema
        segments = sorted(store.segments.values(), key=lambda segment: segment.info.state)
        self.growing, self.flushed = (segment.info for segment in segments)
        self.partition = self.flushed.partitionID
        self.owner = int(store.watches()[0][0])
        self.checkpoint = store.checkpoints[self.channel]
        self.ledger = ledger

    def ask(self, what, method, show=str, **fields):
        described = self.service.methods_by_name[method]
        request = self.message(described.input_type)(**fields)
        address = self.stage.cluster.coordinator_session()["Address"]
        try:
            answer = standby.call(address, f"data.DataCoord/{method}", request,
                                  self.message(described.output_type))
        except grpc.RpcError as error:
            self.said.say(f"{method} {what}", f"gRPC {error.code().name}")
            return None
        in_order(answer)
        self.said.say(f"{method} {what}", show(shown(answer)))
        return answer

    def message(self, descriptor):
        return self.stage.messages[descriptor.full_name.removeprefix("milvus.proto.")]

    def segments(self):
        flushed, growing = self.flushed.ID, self.growing.ID
        self.ask("of nothing", "GetSegmentInfo")
        self.ask("unknown", "GetSegmentInfo", segmentIDs=[UNKNOWN])
        self.ask("one of two unknown", "GetSegmentInfo", segmentIDs=[flushed, UNKNOWN])
        self.ask("unknown, the unhealthy too", "GetSegmentInfo", segmentIDs=[UNKNOWN],
                 includeUnHealthy=True)
        self.ask("flushed", "GetSegmentInfo", segmentIDs=[flushed])
        self.ask("of three", "GetSegmentStates", segmentIDs=[flushed, growing, UNKNOWN])
        self.ask("flushed", "GetInsertBinlogPaths", segmentID=flushed,
                 show=lambda text: " ".join(sorted(text.split())))
        self.ask("unknown", "GetInsertBinlogPaths", segmentID=UNKNOWN)
        for state in (2, 4, DROPPED_STATE):
            self.ask(f"in state {state}", "GetSegmentsByStates", collectionID=self.collection,
                     partitionID=-1, states=[state])
        self.ask("of no collection", "GetSegmentsByStates", collectionID=UNKNOWN, partitionID=-1,
                 states=[4])
        self.ask("of the collection", "GetFlushedSegments", collectionID=self.collection,
                 partitionID=-1)
        self.ask("of no partition", "GetFlushedSegments", collectionID=self.collection,
                 partitionID=UNKNOWN)
        self.ask("of an unknown segment", "SetSegmentState", segment_id=UNKNOWN, new_state=4)
        self.ask("unknown to dropped", "SetSegmentState", segment_id=UNKNOWN,
                 new_state=DROPPED_STATE)
        self.ask("of an unknown segment", "UpdateSegmentStatistics",
                 stats=[{"SegmentID": UNKNOWN, "NumRows": 1}])

    def saves(self):
        def save(what, owner, segment, channel, **fields):
            self.ask(what, "SaveBinlogPaths", base={"sourceID": owner}, segmentID=segment,
                     collectionID=self.collection, channel=channel, **fields)

        save("of a stranger", NODE, self.growing.ID, self.channel)
        save("of another channel", self.owner, self.growing.ID, "by-dev-rootcoord-dml_9_404v0")
        save("of an unknown segment", self.owner, UNKNOWN, self.channel)
        save("of nothing", self.owner, self.growing.ID, self.channel)
        # A flushed segment receives deletes.
        save("of nothing to a flushed segment", self.owner, self.flushed.ID, self.channel)
        log = {"entries_num": 1, "log_size": 1, "log_path": "insert_log/1/2/3/100/4"}
        save("with a log of another segment", self.owner, self.growing.ID, self.channel,
             field2BinlogPaths=[{"fieldID": 100, "binlogs": [log]}],
             field2StatslogPaths=[{"fieldID": 100, "binlogs": [log]}])

    def channels(self):
        self.ask("without a position", "UpdateChannelCheckpoint", vChannel=self.channel)
        self.ask("without a message", "UpdateChannelCheckpoint", vChannel=self.channel,
                 position={"channel_name": self.channel, "timestamp": 1})
        for what, node in (("back", self.owner), ("of a stranger", NODE)):
            self.ask(what, "UpdateChannelCheckpoint", base={"sourceID": node},
                     vChannel=self.channel, position={
                         "channel_name": self.channel, "msgID": b"12345678", "timestamp": 1})
        kept = self.stage.metastore().checkpoints[self.channel].timestamp
        self.said.say("the checkpoint did not go back", kept >= self.checkpoint.timestamp)
        self.ask("of a stranger", "DropVirtualChannel", base={"sourceID": NODE},
                 channel_name=self.channel)
        self.ask("unknown", "DropVirtualChannel", base={"sourceID": self.owner},
                 channel_name="by-dev-rootcoord-dml_9_404v0")
        self.ask("again", "WatchChannels", collectionID=self.collection,
                 channelNames=[self.channel], schema=self.schema_copy(),
                 start_positions=[{"key": self.pchannel, "data": b"12345678"}])
        self.said.say("keys of the channel", len(self.stage.metastore().watches()))
        self.ask("of nothing", "ReportDataNodeTtMsgs", base={"sourceID": self.owner})
        self.ask("of a stranger", "ReportDataNodeTtMsgs", base={"sourceID": NODE}, msgs=[{
            "base": {"sourceID": NODE}, "channel_name": self.channel, "timestamp": 1 << 60,
            "segments_stats": [{"SegmentID": self.growing.ID, "NumRows": 10**6}]}])
        self.ask("of an unknown collection", "BroadcastAlteredCollection", collectionID=UNKNOWN)
        for method in ("GetTimeTickChannel", "GetStatisticsChannel", "GetSegmentInfoChannel"):
            self.ask("", method)

    def schema_copy(self):
        return self.stage.messages.decode("schema.CollectionSchema",
                                          self.schema.SerializeToString())

    def flushes(self):
        self.ask("of an unknown collection", "Flush", collectionID=UNKNOWN)
        self.ask("nothing", "GetFlushState")
        self.ask("unknown", "GetFlushState", segmentIDs=[UNKNOWN])
        self.ask("growing", "GetFlushState", segmentIDs=[self.growing.ID],
                 collectionID=self.collection)
        self.ask("flushed", "GetFlushState", segmentIDs=[self.flushed.ID],
                 collectionID=self.collection)
        self.ask("in the future", "GetFlushState", segmentIDs=[self.flushed.ID],
                 collectionID=self.collection, flush_ts=1 << 62)
        self.ask("of long ago", "GetFlushAllState", flush_all_ts=1)
        self.ask("in the future", "GetFlushAllState", flush_all_ts=1 << 62)
        self.ask("of an unknown database", "GetFlushAllState", flush_all_ts=1, db_name="nothing")

    def statistics(self):
        self.ask("", "GetCollectionStatistics", collectionID=self.collection)
        self.ask("unknown", "GetCollectionStatistics", collectionID=UNKNOWN)
        self.ask("", "GetPartitionStatistics", collectionID=self.collection,
                 partitionIDs=[self.partition])
        self.ask("of all", "GetPartitionStatistics", collectionID=self.collection)
        self.ask("unknown", "GetPartitionStatistics", collectionID=self.collection,
                 partitionIDs=[UNKNOWN])
        self.ask("", "GetRecoveryInfoV2", collectionID=self.collection)
        self.ask("unknown", "GetRecoveryInfoV2", collectionID=UNKNOWN)
        self.ask("", "GetRecoveryInfo", collectionID=self.collection, partitionID=self.partition)
        self.ask("unknown", "GetRecoveryInfo", collectionID=UNKNOWN, partitionID=UNKNOWN)

    def indexes(self):
        named = {"collectionID": self.collection, "index_name": "vector"}
        for method in ("DescribeIndex", "GetIndexState", "GetIndexStatistics",
                       "GetIndexBuildProgress"):
            self.ask("", method, **named)
            self.ask("of another name", method, collectionID=self.collection, index_name="nothing")
            self.ask("of an unknown collection", method, collectionID=UNKNOWN)
        self.ask("", "GetSegmentIndexState", segmentIDs=[self.flushed.ID, UNKNOWN], **named)
        self.ask("of another name", "GetSegmentIndexState", collectionID=self.collection,
                 index_name="nothing", segmentIDs=[self.flushed.ID])
        self.ask("", "GetIndexInfos", collectionID=self.collection,
                 segmentIDs=[self.flushed.ID, self.growing.ID])
        self.ask("unknown", "GetIndexInfos", collectionID=UNKNOWN, segmentIDs=[UNKNOWN])
        self.ask("of another name", "DropIndex", collectionID=self.collection, index_name="nothing")
        self.ask("of an unknown collection", "DropIndex", collectionID=UNKNOWN)
        self.ask("of a partition", "DropIndex", collectionID=self.collection,
                 partitionIDs=[self.partition])
        self.ask("after that", "DescribeIndex", show=lambda text: text[:12], **named)

    def compactions(self):
        # Its id is drawn: whether there is one.
        self.ask("of an unknown collection", "ManualCompaction", show=nameless,
                 collectionID=UNKNOWN)
        self.ask("unknown", "GetCompactionState", compactionID=UNKNOWN)
        self.ask("unknown", "GetCompactionStateWithPlans", compactionID=UNKNOWN)

    def imports(self):
        self.ask("without a node", "Import", import_task={"collection_id": self.collection},
                 working_nodes=[self.owner])
        self.ask("of an unknown channel", "SaveImportSegment", segment_id=UNKNOWN,
                 channel_name="by-dev-rootcoord-dml_9_404v0", collection_id=self.collection,
                 partition_id=self.partition, row_num=1,
                 save_binlog_path_req={"segmentID": UNKNOWN, "importing": True})
        self.ask("of unknown segments", "UnsetIsImportingState", segment_ids=[UNKNOWN])
        self.ask("of unknown segments", "MarkSegmentsDropped", segment_ids=[UNKNOWN])

    def garbage(self):
        self.ask("of a live collection", "GcConfirm", collection_id=self.collection,
                 partition_id=-1)
        self.ask("of a live partition", "GcConfirm", collection_id=self.collection,
                 partition_id=self.partition)
        self.ask("of an unknown collection", "GcConfirm", collection_id=UNKNOWN, partition_id=-1)
        self.ask("of an unknown partition", "GcConfirm", collection_id=self.collection,
                 partition_id=UNKNOWN)
        self.ask("without a command", "GcControl")
        self.ask("pause without a duration", "GcControl", command=1)
        self.ask("pause for no number", "GcControl", command=1,
                 params=[{"key": "duration", "value": "soon"}])
        self.ask("pause", "GcControl", command=1, params=[{"key": "duration", "value": "60"}])
        self.ask("resume", "GcControl", command=2)

    def operators(self):
        self.ask("", "CheckHealth")
        self.ask("", "GetComponentStates")
        for what, request in (("of no kind", "{}"), ("of an unknown kind", '{"metric_type":"no"}'),
                              ("that is no JSON", "no")):
            self.ask(what, "GetMetrics", request=request, show=nameless)
        answer = self.ask("of the system", "GetMetrics", request='{"metric_type":"system_info"}',
                          show=lambda text: "an answer")
        self.said.say("its names", outline(json.loads(answer.response)))

    def headers(self):
        for what, metadata in (("of another cluster", [("cluster", "other")]),
                               ("for another server", [("serverid", "404")]),
                               ("for no number", [("serverid", "x")]),
                               ("of no cluster", [("cluster", "")])):
            address = self.stage.cluster.coordinator_session()["Address"]
            try:
                standby.call(address, "data.DataCoord/GetComponentStates",
                             self.stage.messages["milvus.GetComponentStatesRequest"](),
                             self.stage.messages["milvus.ComponentStates"], metadata=metadata)
                self.said.say(f"a call {what}", "answered")
            except grpc.RpcError as error:
                words = re.sub(r"ID=-?\d+", "ID", error.details())
                self.said.say(f"a call {what}", f"gRPC {error.code().name} {words}")

    def assignments(self):
        def assign(what, **fields):
            request = {"count": 10, "channel_name": self.channel, "collectionID": self.collection,
                       "partitionID": self.partition, **fields}
            return self.ask(what, "AssignSegmentID", nodeID=1, peer_role="proxy",
                            segmentIDRequests=[request])

        self.ask("of nothing", "AssignSegmentID", nodeID=1, peer_role="proxy")
        assign("of ten rows")
        assign("of an unknown collection", collectionID=UNKNOWN,
               channel_name="by-dev-rootcoord-dml_9_404v0")


def in_order(message):
    """Sorts what comes out of maps: pairs by their key, logs by their field."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            for one in value.values():
                in_order(one)
            continue
        if descriptor.label != descriptor.LABEL_REPEATED:
            in_order(value)
            continue
        for one in value:
            in_order(one)
        key = ORDERS.get(descriptor.message_type.name)
        if key:
            value.sort(key=lambda one: getattr(one, key))


def shown(answer):
    text = text_format.MessageToString(answer, as_one_line=True)
    for pattern, instead in ((WORDS, ""), (MOMENTS, r"\1: some"), (POSITION, ""), (LOG, ""),
                             (ROOT, r'"\1/')):
        text = pattern.sub(instead, text)
    return text.strip() or "empty"


def nameless(text):
    return re.sub(r"component_name: \S+|\d{9,}", "some", text)


def outline(value):
    """The names in a JSON text, without its values."""
    if isinstance(value, dict):
        # Ids of collections are keys, too.
        return {("an id" if key.isdigit() else key): outline(one)
                for key, one in sorted(value.items())}
    if isinstance(value, list):
        return [outline(one) for one in value[:1]]
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__
