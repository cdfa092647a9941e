"""The leader is killed between each two durable steps of what Milvus does: as soon as the watch
tells that one was written, while a client waits for the whole to succeed."""

import time

import numpy

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import DIMENSION, Ledger
from coordinator.metastore import FLUSHED, GROWING, SEALED
from coordinator.triggers import Trigger, result_of_compaction, segment_in
from killer import LeaderKiller

SETTINGS = {"dataCoord.compaction.check.interval": 1}
WAIT_S = 180
# Above every id of a ledger.
FOREIGN = 10**9
UNISSUED, IN_PROGRESS, FINISHED = 1, 2, 3
TO_WATCH, WATCHED, TO_RELEASE = 2, 3, 5
DROPPING = 2


def watch_in(state):
    return lambda key, record: key.startswith("channelwatch/") and record is not None \
        and record.state == state


def index_in(state):
    return lambda key, record: key.startswith("segment-index/") and record is not None \
        and record.state == state


def partition_in(state):
    return lambda key, record: key.startswith("root-coord/partitions/") and record is not None \
        and record.state == state


def below(prefix, deleted=False):
    return lambda key, record: key.startswith(prefix) and (record is None) == deleted


def run(stage):
    life = Life(stage)
    steps = life.steps()
    for name, condition, action in steps[:6] if stage.small else steps:
        life.kill_when(name, condition, action)
    rows = {}
    for ledger in life.ledgers:
        ledger.check_calls()
        ledger.check_rows()
        rows[ledger.name] = Rows(len(ledger.live), ledger.inserted)
    script.wait_quiet(stage)
    invariants.check_all(stage, rows)


class Life:
    """The steps of a collection's life; those after the first few happen to the newest one."""

    def __init__(self, stage):
        self.stage = stage
        self.ledgers = []

    def steps(self):
        return [
            ("a channel is to be watched", watch_in(TO_WATCH), self.create),
            ("a channel is watched", watch_in(WATCHED), self.create),
            ("a channel is not removed", below("datacoord-meta/channel-removal/"), self.create),
            ("a segment grows", segment_in(GROWING), self.fill),
            ("a segment is sealed", segment_in(SEALED), self.flush),
            ("logs are saved", below("datacoord-meta/binlog/"), self.flush),
            ("a segment is flushed", segment_in(FLUSHED), self.flush),
            ("deletes are saved", below("datacoord-meta/deltalog/"), self.flush),
            ("a checkpoint moved", below("datacoord-meta/channel-cp/"), self.flush),
            ("an index is defined", below("field-index/"), self.index),
            ("an index is to be built", index_in(UNISSUED), self.flush_indexed),
            ("an index is being built", index_in(IN_PROGRESS), self.flush_indexed),
            ("an index is built", index_in(FINISHED), self.flush_indexed),
            ("a compaction has its result", result_of_compaction, self.compact),
            ("a partition is being dropped", partition_in(DROPPING), self.drop_partition),
            ("a channel is to be released", watch_in(TO_RELEASE), self.drop),
        ]

    def kill_when(self, name, condition, action):
        killer = LeaderKiller(self.stage.cluster, 1)
        with Trigger(self.stage, condition, killer.kill_one) as trigger:
            action()
            trigger.wait(WAIT_S)
        self.stage.say(f"{name}: new leader after {killer.gaps_ms[0]:.0f} ms")
        for ledger in self.ledgers:
            ledger.check_calls()

    def create(self):
        self.ledgers.append(Ledger(self.stage, f"steps_{len(self.ledgers) + 1}"))

    def fill(self):
        for _ in range(6):
            self.ledgers[-1].insert(500)
            self.ledgers[-1].delete(100)

    def flush(self):
        self.fill()
        self.ledgers[-1].flush()

    def index(self):
        self.flush()
        self.ledgers[-1].check_rows()

    def flush_indexed(self):
        self.flush()
        self.ledgers[-1].wait_index()

    def compact(self):
        collection = self.ledgers[-1].collection
        self.flush_indexed()
        collection.compact()
        collection.wait_for_compaction_completed(timeout=WAIT_S)

    def drop_partition(self):
        """Its rows are none of the ledger's, and gone when nothing of it is healthy."""
        name, collection = "short", self.ledgers[-1].collection
        partition = collection.create_partition(name)
        for n in range(3):
            ids = list(range(FOREIGN + n * 500, FOREIGN + (n + 1) * 500))
            partition.insert([ids, numpy.random.default_rng(n).random((500, DIMENSION), "float32")])
            collection.flush()
        number = next(number for number, record in self.stage.metastore().partitions.items()
                      if record.partitionName == name and record.state != DROPPING)
        collection.release()
        collection.drop_partition(name)
        deadline = time.monotonic() + WAIT_S
        while left := [segment.info.ID for segment in self.stage.metastore().segments.values()
                       if segment.info.partitionID == number and segment.healthy]:
            assert time.monotonic() < deadline, f"segments of a dropped partition stay: {left}"
            time.sleep(0.5)

    def drop(self):
        ledger = self.ledgers.pop(0)
        channels = ledger.channels
        ledger.collection.drop()
        script.wait_unwatched(self.stage, channels)
