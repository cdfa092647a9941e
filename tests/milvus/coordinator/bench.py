"""Calls of a DataCoord in a closed loop, stock's or ours, in a running Milvus and with many segments
on record. The load is `quorate-chaos datacoord`; its figures go to the folder of `--out`."""

import glob
import json
import os
import subprocess
import time

from pymilvus import Collection, CollectionSchema, DataType, FieldSchema

from coordinator.metastore import META, WATCH_SUCCESS, Metastore

# As it is shipped: what a coordinator does beside its answers belongs to it.
SETTINGS = {}
STARTS_WITH_STOCK = True
# Copying every change would be a load of its own.
HISTORY = False
READY_S = 900
DATA_NODES = META + "session/datanode-"
# The last one leaves many segments behind.
METHODS = ("assign-segment-id", "get-recovery-info", "save-binlog-paths")
# The others answer with all of the segments, or need channels that are watched.
METHODS_OF_OWN = METHODS[:1]
PATIENCE_S = 600
# Stock has not watched any when it gives up, after five minutes.
WATCHED_S = 120
DIMENSION = 128
SHARDS = 4


def prepare(stage):
    """Before the role is on, its keys are written like any others."""
    into = []
    if own(stage):
        place = first_life(stage)
        into = [*arguments(place, "collection", "partition", "channels"),
                "--statistics", statistics(stage, place)]
    if stage.options.segments:
        chaos(stage, "segments", "--endpoints", stage.cluster.endpoints,
              "--count", str(stage.options.segments), *into)
    if stage.ours:
        stage.cluster.take_role(stage.milvus.config_path)


def own(stage):
    """Whether the segments on record are those of the collection that is written."""
    return stage.options.layout == "own"


def first_life(stage):
    """Where the rows of a collection with an index go that a Milvus of stock made, and wrote a row
    of, before it was killed."""
    stage.milvus.start()
    collection = create(stage)
    # Of this kind, an index is finished as soon as it is on record.
    stage.calls("index", collection.create_index, "vector",
                {"index_type": "FLAT", "metric_type": "L2", "params": {}})
    stage.calls("insert", collection.insert, [[1], [[0.0] * DIMENSION]])
    stage.calls("flush", collection.flush)
    place = place_of(stage)
    stage.milvus.kill()
    return place


def statistics(stage, place):
    """The folder of those of the only segment with files."""
    [segment] = glob.glob(os.path.join(stage.milvus.objects, "stats_log", place["collection"],
                                       place["partition"], "*"))
    return segment


def run(stage):
    measured = {"coordinator": stage.options.coordinator, "segments": stage.options.segments,
                "ready_s": stage.ready_s, "calls": []}
    if not own(stage):
        create(stage)
    place = place_of(stage)
    if own(stage):
        measured["watched_s"] = seconds_until_watched(stage)
        stage.say(f"channels are watched after {measured['watched_s']} s")
    for method in METHODS_OF_OWN if own(stage) else METHODS:
        seconds, clients = (8, "1,16,64") if stage.ours or not stage.options.segments \
            else (20, "1,16")
        text = chaos(stage, "datacoord", "--etcd", stage.cluster.endpoints,
                     *arguments(place, *place), "--method", method, "--clients", clients,
                     "--seconds", str(seconds), "--json")
        for call in json.loads(text):
            measured["calls"].append(call)
            stage.say(f"{method}, {call['n_clients']} clients: {call['per_s']:.1f}/s,"
                      f" p50 {call['p50_ms']:.2f} ms, p99 {call['p99_ms']:.2f} ms,"
                      f" {call['n_errors']} errors")
    stage.write("bench.json", json.dumps(measured))


def create(stage):
    schema = CollectionSchema([
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
    ])
    return stage.calls("create", Collection, "bench", schema, shards_num=SHARDS)


def arguments(place, *names):
    """Some of a place, for `quorate-chaos`."""
    return [word for name in names for word in (f"--{name}", place[name])]


def place_of(stage):
    """Where rows go, once the newest data node has the channels."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        store = small_metastore(stage)
        number = store.collection("bench")
        watches = {channel: node for node, channel in store.watches()}
        channels = list(store.collections[number].virtual_channel_names)
        node = max(int(key.rpartition("-")[2]) for key in stage.cluster.read(DATA_NODES))
        if all(watches.get(channel) == str(node) for channel in channels):
            break
        assert time.monotonic() < deadline, f"channels are watched by {watches}"
        time.sleep(0.5)
    partition = min(one.partitionID for one in store.partitions.values()
                    if one.collection_id == number)
    return {"collection": str(number), "partition": str(partition),
            "channels": ",".join(channels), "data-node": str(node)}


def seconds_until_watched(stage):
    """How long the data node took, or None when it takes longer than is worth waiting for."""
    started = time.monotonic()
    while any(watch.state != WATCH_SUCCESS
              for watch in small_metastore(stage).below("channelwatch/").values()):
        if time.monotonic() - started > WATCHED_S:
            return None
        time.sleep(1)
    return time.monotonic() - started


def small_metastore(stage):
    """Without the segments, which are too many to be read again and again."""
    rows = {}
    for prefix in ("root-coord/", "channelwatch/"):
        rows.update(stage.cluster.read(META + prefix))
    return Metastore(stage.messages, rows)


def chaos(stage, *arguments):
    done = subprocess.run([stage.options.chaos, *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"quorate-chaos {arguments[0]} ended with {done.returncode}"
    return done.stdout
