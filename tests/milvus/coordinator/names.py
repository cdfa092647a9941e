"""Names in the place of ids, equal for two runs that did the same: what a user called a thing, or
its rank among those that are equal to the user."""

import re

from coordinator import metastore

CHANNEL = re.compile(r"^(.*)_(\d+)v(\d+)$")


class Names:
    """Of one metastore; `events` is its history, for the names of what is gone."""

    def __init__(self, messages, events, store):
        self.known = {}
        self.node_names = {}
        seen = {}
        for event in events:
            below = event.key.removeprefix(metastore.META)
            if event.value in (None, metastore.TOMBSTONE) or not below.startswith("root-coord/"):
                continue
            record = metastore.decode(messages, event.key, event.value)
            if below.startswith("root-coord/database/collection-info/"):
                self.first(seen, record.ID, record.schema.name)
            elif below.startswith("root-coord/partitions/"):
                self.first(seen, record.partitionID,
                           f"{self.of(record.collection_id)}.{record.partitionName}")
        self.name_segments(store)
        self.name_indexes(store)

    def first(self, seen, number, name):
        """A name that was used before gets a number."""
        if number in self.known:
            return
        seen[name] = seen.get(name, 0) + 1
        self.known[number] = name if seen[name] == 1 else f"{name}#{seen[name]}"

    def name_segments(self, store):
        ranks = {}
        for segment in sorted(store.segments.values(), key=likeness):
            info = segment.info
            home = f"{self.of(info.partitionID)}/{shard(info.insert_channel)}"
            ranks[home] = ranks.get(home, 0) + 1
            self.known[info.ID] = f"{home}/segment{ranks[home]}"

    def name_indexes(self, store):
        for number, record in sorted(store.indexes.items()):
            home = f"{self.of(record.index_info.collectionID)}.index.{record.index_info.index_name}"
            self.known[number] = home if home not in self.known.values() else f"{home}'"
        for record in store.segment_indexes:
            self.known[record.buildID] = f"build({self.of(record.indexID)})"

    def of(self, number):
        return self.known.get(number, f"?{number}" if number > 10**15 else str(number))

    def channel(self, name):
        found = CHANNEL.match(name)
        if found is None:
            return name
        return f"{found.group(1)}_{{{self.of(int(found.group(2)))}}}v{found.group(3)}"

    def node(self, number):
        """Nodes in order of appearance; the buffer of channels without a node keeps its name."""
        number = int(number)
        if number < 0:
            return "buffer"
        return self.node_names.setdefault(number, f"node{len(self.node_names) + 1}")


def shard(channel):
    return f"shard{channel.rpartition('v')[2]}"


def likeness(segment):
    """Orders segments by what two equal runs have in common, then by their age."""
    info = segment.info
    return (info.insert_channel.rpartition("v")[2], info.createdByCompaction, info.state,
            info.num_of_rows, len(segment.insert), info.ID)
