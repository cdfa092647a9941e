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
SAID_S = 15
ROUNDS_MAX = 5
COLLECTIONS, ROLES = 6, 3
DIMENSION = 8
ROWS = 100
# The coordinator asks a silent data node after 20 s, and tells it again 30 s after it was last heard
# of: what it does about the question counts.
NOTICED_S = 75
# The data node says itself that it does not know the channel.
REFUSED_S = 10


def run(stage):
    others = []
    for nth in range(ROUNDS_MAX):
        created = cut(stage, nth)
        lost = [one for one in created if is_lost(stage, channel_of(stage, one))]
        stage.say(f"round {nth}: {len(lost)} of {len(created)} answers were lost")
        # What a data node opens only when the cluster is back is answered as ever.
        others += [one for one in created if one not in lost[:ROLES]]
        if len(lost) >= ROLES:
            break
    assert len(lost) >= ROLES, f"too few answers were lost in {ROUNDS_MAX} rounds"
    never_written, flushed, left_alone = lost[:ROLES]
    for collection in (flushed, left_alone):
        write_answer(stage, collection)
    fill(stage, flushed, REFUSED_S)
    fill(stage, never_written, NOTICED_S)
    wait_log(stage, 0, DONE, channel_of(stage, left_alone), within_s=NOTICED_S)
    fill(stage, left_alone, REFUSED_S)
    for collection in others:
        fill(stage, collection, NOTICED_S)
    script.wait_quiet(stage)
    rows = {collection.name: Rows.exactly(ROWS) for collection in (*lost[:ROLES], *others)}
    invariants.check_all(stage, rows)


def cut(stage, nth):
    """New collections; the cluster dies while a data node answers that it watches them."""
    seen = len(stage.milvus.log_lines())
    created = [create(stage, f"lost_{nth}_{n}") for n in range(COLLECTIONS)]
    # Stopped nodes take the answers into their sockets, and nobody reads them.
    for node in stage.cluster.nodes:
        node.process.send_signal(signal.SIGSTOP)
    wait_log(stage, seen, OPENED)
    stage.cluster.kill_all()
    for node in stage.cluster.nodes:
        node.start()
    stage.cluster.wait_healthy()
    stage.cluster.wait_coordinator()
    return created


def is_lost(stage, channel):
    """What became of the answer; one of both is said."""
    deadline = time.monotonic() + SAID_S
    while True:
        lines = [line for line in stage.milvus.log_lines() if channel in line]
        for words in (LOST, DONE):
            if any(words in line for line in lines):
                return words == LOST
        assert time.monotonic() < deadline, f"the answer for {channel} has no end"
        time.sleep(0.1)


def create(stage, name):
    schema = CollectionSchema([
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
    ])
    return stage.calls("create", Collection, name, schema, shards_num=1)


def wait_log(stage, seen, *words, within_s=SAID_S):
    """Until a line of Milvus's log after the first `seen` has all these."""
    started = time.monotonic()
    while not any(all(word in line for word in words)
                  for line in stage.milvus.log_lines()[seen:]):
        assert time.monotonic() < started + within_s, f"Milvus does not say {words}"
        time.sleep(0.1)
    stage.say(f"{', '.join(words)}: after {time.monotonic() - started:.1f} s")


def channel_of(stage, collection):
    store = stage.metastore()
    [channel] = store.collections[store.collection(collection.name)].virtual_channel_names
    return channel


def write_answer(stage, collection):
    """As the data node's own that arrived, while the reply to it did not."""
    channel = channel_of(stage, collection)
    for key, value in stage.cluster.read(META + "channelwatch/").items():
        if key.endswith(f"/{channel}"):
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
