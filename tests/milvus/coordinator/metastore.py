"""DataCoord's records in the metastore, decoded."""

from dataclasses import dataclass, field

META = "by-dev/meta/"
# Below META: the type of the value.
TYPES = {
    "datacoord-meta/s/": "data.SegmentInfo",
    "datacoord-meta/binlog/": "data.FieldBinlog",
    "datacoord-meta/statslog/": "data.FieldBinlog",
    "datacoord-meta/deltalog/": "data.FieldBinlog",
    "datacoord-meta/channel-cp/": "msg.MsgPosition",
    "field-index/": "index.FieldIndex",
    "segment-index/": "index.SegmentIndex",
    "channelwatch/": "data.ChannelWatchInfo",
    "importtask/": "data.ImportTaskInfo",
    # RootCoord's, for the names of what DataCoord knows by number.
    "root-coord/database/collection-info/": "etcd.CollectionInfo",
    "root-coord/partitions/": "etcd.PartitionInfo",
}
TEXTS = ("datacoord-meta/channel-removal/",)
# What RootCoord writes in the place of a record that is gone.
TOMBSTONE = b"\xe2\x9b\xbc"

GROWING, SEALED, FLUSHED, FLUSHING, DROPPED, IMPORTING = 2, 3, 4, 5, 6, 7
INDEX_FINISHED = 3
WATCH_SUCCESS = 3


def decode(messages, key, value):
    """The record under a key, its text, or None for keys of others."""
    key = key.removeprefix(META)
    for prefix in TEXTS:
        if key.startswith(prefix):
            return value.decode()
    for prefix, name in TYPES.items():
        if key.startswith(prefix) and value != TOMBSTONE:
            return messages.decode(name, value)
    return None


@dataclass
class Segment:
    """A segment with its logs: lists of (field, log) in the order of the record."""

    info: object
    insert: list = field(default_factory=list)
    stats: list = field(default_factory=list)
    delta: list = field(default_factory=list)

    @property
    def healthy(self):
        return self.info.state != DROPPED

    def rows_in_logs(self):
        """Rows of the insert logs, by the field that has the lowest number."""
        fields = sorted({number for number, _ in self.insert})
        return sum(log.entries_num for number, log in self.insert if fields[:1] == [number])


class Metastore:
    """One moment of everything that DataCoord keeps."""

    def __init__(self, messages, rows):
        """`rows`: the value of each key below `by-dev/`."""
        self.records = {}
        for key, value in sorted(rows.items()):
            record = decode(messages, key, value)
            if record is not None:
                self.records[key.removeprefix(META)] = record
        self.segments = {
            record.ID: Segment(record) for record in self.below("datacoord-meta/s/").values()
        }
        self.homeless = []
        for kind, name in (("insert", "binlog"), ("stats", "statslog"), ("delta", "deltalog")):
            for key, record in self.below(f"datacoord-meta/{name}/").items():
                segment = self.segments.get(int(key.split("/")[4]))
                if segment is None:
                    self.homeless.append(key)
                    continue
                logs = getattr(segment, kind)
                logs.extend((int(key.split("/")[5]), log) for log in record.binlogs)
        self.indexes = {record.index_info.indexID: record
                        for record in self.below("field-index/").values()}
        self.segment_indexes = list(self.below("segment-index/").values())
        self.checkpoints = {key.rpartition("/")[2]: record
                            for key, record in self.below("datacoord-meta/channel-cp/").items()}
        self.collections = {record.ID: record for record in self.below("root-coord/database/")
                            .values()}
        self.partitions = {record.partitionID: record
                           for record in self.below("root-coord/partitions/").values()}

    def below(self, prefix):
        return {key: record for key, record in self.records.items() if key.startswith(prefix)}

    def collection(self, name):
        """The id of a collection that is neither dropped nor being dropped."""
        found = [number for number, record in self.collections.items()
                 if record.schema.name == name and record.state == 0]
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def segments_of(self, collection):
        return [segment for segment in self.segments.values()
                if segment.info.collectionID == collection]

    def watches(self):
        """(node, channel) of every channelwatch key."""
        return [tuple(key.split("/")[1:]) for key in self.below("channelwatch/")]


def read(cluster, messages):
    return Metastore(messages, cluster.read("by-dev/"))
