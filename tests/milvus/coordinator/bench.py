"""Calls of a DataCoord in a closed loop, stock's or ours, in a running Milvus and with many segments
on record. The load is `quorate-chaos datacoord`; its figures go to the folder of `--out`."""

import json
import subprocess
import time

from pymilvus import Collection, CollectionSchema, DataType, FieldSchema

from coordinator.metastore import META, Metastore

# As it is shipped: what a coordinator does beside its answers belongs to it.
SETTINGS = {}
STARTS_WITH_STOCK = True
# Copying every change would be a load of its own.
HISTORY = False
READY_S = 900
DATA_NODES = META + "session/datanode-"
# The last one leaves many segments behind.
METHODS = ("assign-segment-id", "get-recovery-info", "save-binlog-paths")
PATIENCE_S = 600
DIMENSION = 128
SHARDS = 4


def prepare(stage):
    """Before the role is on, its keys are written like any others."""
    if stage.options.segments:
        chaos(stage, "segments", "--endpoints", stage.cluster.endpoints,
              "--count", str(stage.options.segments))
    if stage.ours:
        stage.cluster.take_role(stage.milvus.config_path)


def run(stage):
    measured = {"coordinator": stage.options.coordinator, "segments": stage.options.segments,
                "ready_s": stage.ready_s, "calls": []}
    create(stage)
    place = place_of(stage)
    for method in METHODS:
        seconds, clients = (8, "1,16,64") if stage.ours or not stage.options.segments \
            else (20, "1,16")
        text = chaos(stage, "datacoord", *place, "--method", method, "--clients", clients,
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
    stage.calls("create", Collection, "bench", schema, shards_num=SHARDS)


def place_of(stage):
    """The arguments that say where rows go, once the newest data node has the channels."""
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
    return ("--etcd", stage.cluster.endpoints, "--collection", str(number),
            "--partition", str(partition), "--channels", ",".join(channels),
            "--data-node", str(node))


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
