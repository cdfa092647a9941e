"""A data node writes once that it watches a channel, and lets go of the channel when that fails. All
nodes are killed at that moment: the channel must not stay without an owner for the five minutes after
which a stock DataCoord, whose flushes fail until then, looks at it again."""

import signal
import time

import numpy
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema

from coordinator import invariants, script
from coordinator.invariants import Rows

SETTINGS = {}
OPENED = "handle put event: new data sync service success"
LOST = "fail to update watch state to etcd"
SAID_S = 5
DIMENSION = 8
ROWS = 100
# The coordinator tells a silent data node again after 20 s.
FLUSHED_S = 45


def run(stage):
    collections = [create(stage, f"lost_{n}") for n in range(3)]
    # Stopped nodes take the answers into their sockets, and nobody reads them.
    for node in stage.cluster.nodes:
        node.process.send_signal(signal.SIGSTOP)
    wait_log(stage, OPENED)
    stage.cluster.kill_all()
    for node in stage.cluster.nodes:
        node.start()
    stage.cluster.wait_healthy()
    stage.cluster.wait_coordinator()
    wait_log(stage, LOST)
    for collection in collections:
        fill(stage, collection)
    script.wait_quiet(stage)
    rows = {collection.name: Rows.exactly(ROWS) for collection in collections}
    invariants.check_all(stage, rows)


def wait_log(stage, words):
    """Until Milvus has said this."""
    deadline = time.monotonic() + SAID_S
    while not (count := sum(words in line for line in stage.milvus.log_lines())):
        assert time.monotonic() < deadline, f"Milvus does not say: {words}"
        time.sleep(0.1)
    stage.say(f"{count} times: {words}")


def create(stage, name):
    schema = CollectionSchema([
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
    ])
    return stage.calls("create", Collection, name, schema, shards_num=2)


def fill(stage, collection):
    vectors = numpy.random.default_rng(0).random((ROWS, DIMENSION), "float32")
    started = time.monotonic()
    stage.calls("insert", collection.insert, [list(range(ROWS)), vectors])
    stage.calls("flush", collection.flush)
    took = time.monotonic() - started
    stage.say(f"{collection.name}: inserted and flushed after {took:.1f} s")
    assert took < FLUSHED_S, f"{collection.name}: flushed only after {took:.1f} s"
    assert collection.num_entities == ROWS, collection.num_entities
