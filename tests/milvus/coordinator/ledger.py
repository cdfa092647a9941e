"""Inserts and deletes without end, and the exact set of rows that must be there."""

import random
import threading
import time

import numpy
from pymilvus import (
    Collection, CollectionSchema, DataType, FieldSchema, MilvusException, utility,
)

DIMENSION = 32
WAIT_S = 300
PAGE = 10_000
HNSW = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}


class Ledger:
    """One collection. Every call is made once: an insert that failed and was repeated could be
    there twice, and a call that fails for good is what must not happen."""

    def __init__(self, stage, name, shards=2):
        self.stage = stage
        self.name = name
        self.shards = shards
        self.draw = random.Random(stage.options.seed)
        self.lock = threading.Lock()
        self.next = 0
        self.live = set()
        self.deleted = set()
        self.unsure = set()
        # (what, start, seconds), and what a call died of.
        self.made = []
        self.failed = []
        # Only for a server that is known to lose deletes.
        self.forgives_deletes = False
        schema = CollectionSchema([
            FieldSchema("id", DataType.INT64, is_primary=True),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
        ])
        self.collection = Collection(name, schema, shards_num=shards)

    @property
    def inserted(self):
        return self.next

    @property
    def channels(self):
        store = self.stage.metastore()
        return set(store.collections[store.collection(self.name)].virtual_channel_names)

    def timed(self, what, call, *arguments, **options):
        started = time.monotonic()
        try:
            return call(*arguments, **options)
        except Exception as error:
            self.failed.append(f"{what} after {time.monotonic() - started:.1f} s: {error}")
            raise
        finally:
            self.made.append((what, started, time.monotonic() - started))

    def insert(self, count=200):
        ids = list(range(self.next, self.next + count))
        vectors = numpy.random.default_rng(self.next).random((count, DIMENSION), "float32")
        done = self.timed("insert", self.collection.insert, [ids, vectors])
        assert done.insert_count == count, done
        with self.lock:
            self.next += count
            self.live.update(ids)

    def give_up(self, count=200):
        """After an insert that failed: its rows may be there or not, and their ids are not used
        again."""
        with self.lock:
            self.unsure.update(range(self.next, self.next + count))
            self.next += count

    def delete(self, count=20):
        with self.lock:
            gone = self.draw.sample(sorted(self.live), min(count, len(self.live)))
        if not gone:
            return
        self.timed("delete", self.collection.delete, f"id in {gone}")
        with self.lock:
            self.live.difference_update(gone)
            self.deleted.update(gone)

    def index(self):
        self.stage.calls("create_index", self.collection.create_index, "vector", HNSW)

    def wait_index(self):
        self.stage.calls("wait_index", utility.wait_for_index_building_complete, self.name,
                         timeout=WAIT_S)

    def flush(self):
        self.timed("flush", self.collection.flush)

    def start_flush(self):
        """A flush that the server may not survive: pymilvus goes on with it when the server is
        back, and stock then may tell it of a node that is gone."""
        def attempt():
            try:
                self.collection.flush()
            except MilvusException as error:
                self.stage.say(f"the flush that was under way failed: {str(error)[:80]}")

        thread = threading.Thread(target=attempt)
        thread.start()
        return thread

    def check_calls(self):
        assert not self.failed, f"{len(self.failed)} calls failed for good: {self.failed[:3]}"

    def pauses(self):
        """The longest call of each kind, and how many took more than a second."""
        kinds = {}
        for what, _, seconds in self.made:
            kinds.setdefault(what, []).append(seconds)
        return "; ".join(
            f"{what}: {len(took)} calls, longest {max(took):.2f} s,"
            f" {sum(s > 1 for s in took)} over 1 s"
            for what, took in sorted(kinds.items()))

    def check_rows(self):
        """The exact rows, as logs hold them: after a flush nothing else is read."""
        self.stage.calls("flush", self.collection.flush)
        entities = self.collection.num_entities
        assert len(self.live) <= entities <= self.inserted, f"{entities} entities"
        if not self.collection.has_index():
            self.index()
        self.wait_index()
        self.stage.calls("release", self.collection.release)
        self.stage.calls("load", self.collection.load, timeout=WAIT_S)
        counted = self.stage.calls("count", self.collection.query, "", output_fields=["count(*)"],
                                   consistency_level="Strong")[0]["count(*)"]
        found = []
        for first in range(0, self.inserted, PAGE):
            rows = self.stage.calls("query", self.collection.query,
                                    f"id >= {first} and id < {first + PAGE}", output_fields=["id"],
                                    consistency_level="Strong")
            found += [row["id"] for row in rows]
        missing, extra = self.live - set(found), set(found) - self.live - self.unsure
        back = extra & self.deleted
        assert not missing, f"{len(missing)} rows are lost: {sorted(missing)[:10]}"
        if back and self.forgives_deletes:
            self.stage.say(f"{len(back)} DELETED ROWS ARE BACK, as stock does it")
            return
        assert not back, f"{len(back)} deleted rows are back: {sorted(back)[:10]}"
        assert not extra, f"{len(extra)} rows came from nowhere: {sorted(extra)[:10]}"
        wanted = len(self.live | (self.unsure & set(found)))
        assert counted == wanted, f"{counted} rows, wanted {wanted}: some are there twice"
        self.stage.say(f"{self.name}: {self.inserted} rows inserted, {len(self.deleted)} deleted,"
                       f" {counted} there, each once")


class Workers:
    """Threads that repeat a step each until told to stop; their first error is raised then."""

    def __init__(self, *steps):
        self.stopping = threading.Event()
        self.errors = []
        self.threads = [threading.Thread(target=self.repeat, args=step, daemon=True)
                        for step in steps]

    def repeat(self, step, pause_s):
        try:
            while not self.stopping.is_set():
                step()
                self.stopping.wait(pause_s)
        except BaseException as error:
            self.errors.append(error)
            self.stopping.set()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=WAIT_S)
        assert not any(thread.is_alive() for thread in self.threads), "a call does not return"
        if self.errors and error is None:
            raise self.errors[0]

    def go_on(self, seconds):
        """For that long, or until one of them failed."""
        self.stopping.wait(seconds)
