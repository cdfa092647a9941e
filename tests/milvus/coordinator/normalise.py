"""A metastore as lines `record .field = value` that two equal runs have in common."""

from coordinator.names import Names

# Fields whose value differs from run to run: whether there is one is what is kept.
TIMES = {"timestamp", "timestamp_from", "timestamp_to", "last_expire_time", "dropped_at",
         "create_time", "startTs", "timeoutTs", "create_ts", "start_ts"}
SIZES = {"serialize_size"}
POSITIONS = {"msgID"}
# Says who read the queue, and only sometimes.
LEFT_OUT = {"msgGroup"}
# Keys of pairs whose value is a duration.
DURATIONS = {"persist_cost"}
IDS = {"ID", "collectionID", "partitionID", "segmentID", "indexID", "buildID",
       "compactionFrom", "unflushedSegmentIds", "flushedSegmentIds", "dropped_segmentIds",
       "collection_id", "partition_id", "segments"}
NODES = {"nodeID", "datanode_id", "opID"}
CHANNELS = {"insert_channel", "channel_name", "channelName", "channel_names"}
# Fields of a collection are numbered from here on; below are those that Milvus adds.
FIRST_OWN_FIELD = 100
# Not DataCoord's; only read for names.
OTHERS = ("root-coord/",)


def lines(messages, events, store):
    """The whole metastore, sorted."""
    names = Names(messages, events, store)
    found = []
    counts = {}
    for key, record in store.records.items():
        if key.startswith(OTHERS):
            continue
        name = name_of_key(names, key)
        counts[name] = counts.get(name, 0) + 1
        if isinstance(record, str):
            found.append(f"{name} = {record}")
            continue
        is_logs = record.DESCRIPTOR.name == "FieldBinlog"
        fields = sums(record, name) if is_logs else flat(names, record, "")
        found += [f"{name} {path} = {value}" for path, value in fields]
    # A record whose fields all have their default is a record nevertheless.
    return sorted([*found, *(f"{name} .records = {count}" for name, count in counts.items())])


def sums(logs, name):
    """When a data node begins a new log is its own affair: all of a field are one."""
    if not logs.binlogs:
        yield ".binlogs", "none"
        return
    yield ".fieldID", logs.fieldID
    yield ".entries_num", sum(log.entries_num for log in logs.binlogs)
    # Of row ids and timestamps, and of deletes, which have some in them: they compress differently.
    varies = "/deltalog/" in name or logs.fieldID < FIRST_OWN_FIELD
    yield ".log_size", "a size" if varies else sum(log.log_size for log in logs.binlogs)
    # A compound statistics file is called 1 by everybody.
    yield ".logID", " and ".join(sorted({"1" if log.logID == 1 else "a log"
                                         for log in logs.binlogs}))
    yield ".log_path", " and ".join(sorted({log.log_path for log in logs.binlogs}))


def name_of_key(names, key):
    parts = key.split("/")
    if parts[0] == "channelwatch":
        return f"channelwatch/{names.node(parts[1])}/{names.channel(parts[2])}"
    if parts[0] == "importtask":
        return "importtask"
    return "/".join(names.channel(part) if "dml_" in part
                    else names.of(int(part)) if part.isdigit() else part for part in parts)


def flat(names, message, path):
    for descriptor, value in message.ListFields():
        if descriptor.name in LEFT_OUT:
            continue
        if descriptor.message_type is not None and descriptor.message_type.name == "KeyValuePair":
            for pair in value:
                shown = "a duration" if pair.key in DURATIONS else pair.value
                yield f"{path}.{descriptor.name}{{{pair.key}}}", shown
            continue
        repeated = descriptor.label == descriptor.LABEL_REPEATED
        values = list(value) if repeated else [value]
        if descriptor.message_type is None:
            shown = [scalar(names, descriptor, one, at) for at, one in enumerate(values)]
            if repeated:
                # Which comes first says nothing where ids were drawn at the same time.
                yield f"{path}.{descriptor.name}", f"[{', '.join(sorted(shown))}]"
            else:
                yield f"{path}.{descriptor.name}", shown[0]
            continue
        for at, one in enumerate(values):
            place = f"{path}.{descriptor.name}" + (f"[{at}]" if repeated else "")
            yield from flat(names, one, place)


def scalar(names, descriptor, value, at):
    name = descriptor.name
    if name in TIMES:
        return "a time"
    if name in SIZES:
        return "a size"
    if name in POSITIONS:
        return "a position"
    if name in NODES:
        return names.node(value) if value else "none"
    if name == "id":
        # Of an import task, and nothing else refers to it.
        return "an id"
    if name in CHANNELS:
        return names.channel(value)
    if name in IDS:
        return names.of(value)
    if descriptor.enum_type is not None:
        known = descriptor.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return value if isinstance(value, str) else repr(value)


def compare(stock, ours):
    """(line of the place, stock's value, ours) of everything that differs; None where it is not."""
    left, right = by_place(stock), by_place(ours)
    for place in sorted(left.keys() | right.keys()):
        if left.get(place) != right.get(place):
            yield place, left.get(place), right.get(place)


def by_place(text):
    """Records that share a place, such as import tasks, give it all values that they have."""
    places = {}
    for line in text:
        place, _, value = line.partition(" = ")
        places.setdefault(place, set()).add(value)
    return {place: " or ".join(sorted(values)) for place, values in places.items()}
