"""Two experiments that every operator of Milvus knows: a flush after every thousand rows, and many
small segments that a manual compaction merges."""

import json
import math
import statistics
import time

import numpy
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, utility

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import HNSW
from coordinator.metastore import FLUSHED

SETTINGS = {"dataCoord.compaction.check.interval": 1}
DIMENSION = 128
INPUTS_MAX = 30
WAIT_S = 600


def run(stage):
    rounds(stage, 10 if stage.small else 100)
    merge(stage, 5 if stage.small else 50)


def collection_of(stage, name, shards):
    schema = CollectionSchema([
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
    ])
    return stage.calls("create", Collection, name, schema, shards_num=shards)


def insert(stage, collection, first, count):
    vectors = numpy.random.default_rng(stage.options.seed + first).random((count, DIMENSION),
                                                                           "float32")
    done = stage.calls("insert", collection.insert, [list(range(first, first + count)), vectors])
    assert done.insert_count == count, done


def rounds(stage, count, rows=1_000):
    """A thousand rows and a flush, again and again; the count must be right at once."""
    collection = collection_of(stage, "rounds", 1)
    flushes_ms = []
    for number in range(count):
        insert(stage, collection, number * rows, rows)
        started = time.monotonic()
        stage.calls("flush", collection.flush)
        flushes_ms.append((time.monotonic() - started) * 1000)
        found = collection.num_entities
        assert found == (number + 1) * rows, f"round {number}: {found} entities"
    stage.say(f"{count} rounds of {rows} rows: counts exact after each; flush median"
              f" {statistics.median(flushes_ms):.0f} ms, longest {max(flushes_ms):.0f} ms")
    stage.write("flushes.json", json.dumps({"flush_ms": flushes_ms}))
    script.wait_quiet(stage)
    store = stage.metastore()
    sizes = [segment.info.num_of_rows for segment in store.segments_of(store.collection("rounds"))
             if segment.info.state == FLUSHED]
    assert sizes == [rows] * count, f"segments of {sizes} rows"
    invariants.check_all(stage, {"rounds": Rows.exactly(count * rows)})


def merge(stage, flushes, rows=200, shards=2):
    """Each flush leaves one small segment on each channel."""
    collection = collection_of(stage, "merged", shards)
    # Or automatic compaction comes first. A manual one does not care.
    collection.set_properties({"collection.autocompaction.enabled": "false"})
    stage.calls("create_index", collection.create_index, "vector", HNSW)
    for number in range(flushes):
        insert(stage, collection, number * rows, rows)
        stage.calls("flush", collection.flush)
    stage.calls("wait_index", utility.wait_for_index_building_complete, "merged", timeout=WAIT_S)
    before = flushed_by_channel(stage)
    assert set(before.values()) == {flushes} and len(before) == shards, before
    stage.calls("compact", collection.compact)
    stage.calls("wait_compaction", collection.wait_for_compaction_completed, timeout=WAIT_S)
    plans = collection.get_compaction_plans().plans
    wanted = math.ceil(flushes / INPUTS_MAX)
    assert len(plans) == shards * wanted and all(plan.target > 0 for plan in plans), plans
    script.wait_quiet(stage)
    after = flushed_by_channel(stage)
    stage.say(f"segments by channel: {sorted(before.values())} before the compaction,"
              f" {sorted(after.values())} after it")
    assert set(after.values()) == {wanted}, after
    assert collection.num_entities == flushes * rows
    invariants.check_all(stage, {"merged": Rows.exactly(flushes * rows)})


def flushed_by_channel(stage):
    store = stage.metastore()
    counts = {}
    for segment in store.segments_of(store.collection("merged")):
        if segment.info.state == FLUSHED:
            counts[segment.info.insert_channel] = counts.get(segment.info.insert_channel, 0) + 1
    return counts
