"""A metastore as lines `record .field = value` that two equal runs have in common."""

from coordinator.names import Names

# Fields whose value differs from run to run: whether there is one is what is kept.
TIMES = {"timestamp", "timestamp_from", "timestamp_to", "last_expire_time", "dropped_at",
         "create_time", "startTs", "timeoutTs", "create_ts", "start_ts"}
SIZES = {"serialize_size"}
POSITIONS = {"msgID", "msgGroup"}
IDS = {"ID", "id", "collectionID", "partitionID", "segmentID", "indexID", "buildID",
       "compactionFrom", "unflushedSegmentIds", "flushedSegmentIds", "dropped_segmentIds",
       "collection_id", "partition_id", "segments"}
NODES = {"nodeID", "datanode_id", "opID"}
CHANNELS = {"insert_channel", "channel_name", "channelName", "channel_names"}
# Not DataCoord's; only read for names.
OTHERS = ("root-coord/",)


def lines(messages, events, store):
    """The whole metastore, sorted."""
    names = Names(messages, events, store)
    found = []
    for key, record in store.records.items():
        if key.startswith(OTHERS):
            continue
        name = name_of_key(names, key)
        if isinstance(record, str):
            found.append(f"{name} = {record}")
            continue
        fields = list(flat(names, record, ""))
        # A record whose fields all have their default is a record nevertheless.
        found += [f"{name} {path} = {value}" for path, value in fields] or [f"{name} = empty"]
    return sorted(found)


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
    if name == "logID":
        # A compound statistics file is called 1 by everybody.
        return "1" if value == 1 else "a log"
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
    places = {}
    for line in text:
        place, _, value = line.partition(" = ")
        # Several import tasks share a place.
        places[place] = f"{places[place]} + {value}" if place in places else value
    return places
