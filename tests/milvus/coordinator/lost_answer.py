"""A data node writes once that it watches a channel, and lets go of the channel when it does not hear
that this was done. All nodes are killed at that moment. A stock DataCoord looks at such a channel again
after five minutes, or never where the answer is on record and only the reply was lost; until then every
flush of the collection fails."""

import signal
import time

import numpy
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.metastore import META

SETTINGS = {}
OPENED = "handle put event: new data sync service success"
LOST = "fail to update watch state to etcd"
DONE = "handle put event success"
WATCHED = 3
DIMENSION = 8
ROWS = 100
# The coordinator asks a silent data node after 20 s, and tells it again 30 s after it was last heard
# of: what it does about the question counts.
NOTICED_S = 75
# The data node says itself that it does not know the channel.
REFUSED_S = 10


def run(stage):
    never_written, flushed, left_alone = (create(stage, f"lost_{n}") for n in range(3))
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
    for collection in (flushed, left_alone):
        write_answers(stage, collection)
    fill(stage, flushed, REFUSED_S)
    fill(stage, never_written, NOTICED_S)
    for channel in channels_of(stage, left_alone):
        wait_log(stage, DONE, channel, within_s=NOTICED_S)
    fill(stage, left_alone, REFUSED_S)
    script.wait_quiet(stage)
    collections = (never_written, flushed, left_alone)
    rows = {collection.name: Rows.exactly(ROWS) for collection in collections}
    invariants.check_all(stage, rows)


def create(stage, name):
    schema = CollectionSchema([
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
    ])
    return stage.calls("create", Collection, name, schema, shards_num=2)


def wait_log(stage, *words, within_s=5):
    """Until a line of Milvus's log has all these."""
    started = time.monotonic()
    while not any(all(word in line for word in words) for line in stage.milvus.log_lines()):
        assert time.monotonic() < started + within_s, f"Milvus does not say {words}"
        time.sleep(0.1)
    stage.say(f"{', '.join(words)}: after {time.monotonic() - started:.1f} s")


def channels_of(stage, collection):
    store = stage.metastore()
    return list(store.collections[store.collection(collection.name)].virtual_channel_names)


def write_answers(stage, collection):
    """As the data node's own that arrived, while the replies to them did not."""
    channels = channels_of(stage, collection)
    for key, value in stage.cluster.read(META + "channelwatch/").items():
        if key.rpartition("/")[2] in channels:
            info = stage.messages["data.ChannelWatchInfo"].FromString(value)
            assert info.state != WATCHED, f"{key} is answered"
            info.state = WATCHED
            stage.cluster.put(key, info.SerializeToString())


def fill(stage, collection, within_s):
    vectors = numpy.random.default_rng(0).random((ROWS, DIMENSION), "float32")
    started = time.monotonic()
    stage.calls("insert", collection.insert, [list(range(ROWS)), vectors])
    stage.calls("flush", collection.flush)
    took = time.monotonic() - started
    stage.say(f"{collection.name}: inserted and flushed after {took:.1f} s")
    assert took < within_s, f"{collection.name}: flushed only after {took:.1f} s"
    assert collection.num_entities == ROWS, collection.num_entities
