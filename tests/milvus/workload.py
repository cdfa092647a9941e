"""What a user does with three collections, with exact counts checked after each step."""

import contextlib
import threading
import time

import numpy
from pymilvus import (
    Collection, CollectionSchema, DataType, FieldSchema, MilvusException, utility,
)

DIMENSION = 32
RETRY_S = 60


class Calls:
    """Calls into pymilvus: retried as a client would, counted, and their longest time kept."""

    def __init__(self):
        self.lock = threading.Lock()
        self.made = 0
        self.retried = {}
        self.longest = (0.0, "")

    def __call__(self, name, call, *arguments, **options):
        started = time.monotonic()
        while True:
            try:
                result = call(*arguments, **options)
                break
            except MilvusException as error:
                assert time.monotonic() - started < RETRY_S, f"{name}: {error}"
                with self.lock:
                    self.retried[name] = self.retried.get(name, 0) + 1
                print(f"    retry {name}: {str(error)[:160]}", flush=True)
                time.sleep(0.5)
        with self.lock:
            self.made += 1
            self.longest = max(self.longest, (time.monotonic() - started, name))
        return result

    def report(self):
        seconds, name = self.longest
        retried = ", ".join(f"{name} {count}" for name, count in sorted(self.retried.items()))
        return f"{self.made} calls, retried: {retried or 'none'}, longest {name} {seconds:.2f} s"


def expect(what, found, wanted):
    assert found == wanted, f"{what}: found {found}, wanted {wanted}"


class OneCollection:
    """The life of one collection. Vectors come from a seed, so every nearest neighbour is known."""

    def __init__(self, calls, name, rows, batches, seed):
        self.calls = calls
        self.name = name
        self.rows = rows
        self.batches = batches
        self.vectors = numpy.random.default_rng(seed).random((rows * batches, DIMENSION), "float32")
        self.collection = None

    @property
    def total(self):
        return self.rows * self.batches

    def steps(self):
        return [self.create, self.insert_and_flush, self.index, self.load, self.search,
                self.delete, self.query, self.drop]

    def create(self):
        schema = CollectionSchema([
            FieldSchema("id", DataType.INT64, is_primary=True),
            FieldSchema("batch", DataType.INT64),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
        ])
        self.collection = self.calls("create", Collection, self.name, schema, shards_num=2)

    def insert_and_flush(self):
        for batch in range(self.batches):
            ids = list(range(batch * self.rows, (batch + 1) * self.rows))
            rows = [ids, [batch] * self.rows, self.vectors[ids]]
            inserted = self.calls("insert", self.collection.insert, rows)
            expect("inserted", inserted.insert_count, self.rows)
            self.calls("flush", self.collection.flush)
            entities = self.calls("num_entities", lambda: self.collection.num_entities)
            expect("num_entities", entities, (batch + 1) * self.rows)

    def index(self):
        parameters = {"index_type": "HNSW", "metric_type": "L2",
                      "params": {"M": 8, "efConstruction": 64}}
        self.calls("create_index", self.collection.create_index, "vector", parameters)
        self.calls("wait_index", utility.wait_for_index_building_complete, self.name, timeout=120)

    def load(self):
        self.calls("load", self.collection.load, timeout=120)

    def search(self):
        wanted = [0, self.total // 2, self.total - 1]
        found = self.calls(
            "search", self.collection.search, self.vectors[wanted], "vector",
            {"metric_type": "L2", "params": {"ef": 64}}, limit=5, consistency_level="Strong",
        )
        expect("nearest", [hits[0].id for hits in found], wanted)
        expect("hits", [len(hits) for hits in found], [5] * len(wanted))

    def delete(self):
        gone = list(range(0, self.total, 10))
        self.calls("delete", self.collection.delete, f"id in {gone}")

    def query(self):
        counted = self.calls("count", self.collection.query, "", output_fields=["count(*)"],
                             consistency_level="Strong")
        expect("count(*)", counted[0]["count(*)"], self.total - len(range(0, self.total, 10)))
        last = self.batches - 1
        rows = self.calls("query", self.collection.query, f"batch == {last}",
                          output_fields=["id"], consistency_level="Strong")
        first = last * self.rows
        kept = {n for n in range(first, first + self.rows) if n % 10 != 0}
        expect("ids", {row["id"] for row in rows}, kept)

    def drop(self):
        self.calls("release", self.collection.release)
        self.calls("drop", self.collection.drop)
        expect("dropped", self.calls("has", utility.has_collection, self.name), False)


def run(calls, size, label, between=lambda: None, creating=contextlib.nullcontext):
    """Three collections side by side, step by step. `between` is called before every step, and the
    first one is done within `creating`."""
    rows, batches = size
    lives = [OneCollection(calls, f"{label}_{n}", rows, batches, seed=n) for n in range(3)]
    for steps in zip(*(life.steps() for life in lives)):
        between()
        started = time.monotonic()
        with creating() if steps[0].__name__ == "create" else contextlib.nullcontext():
            for step in steps:
                step()
        print(f"  {label} {steps[0].__name__}: {time.monotonic() - started:.1f} s", flush=True)
