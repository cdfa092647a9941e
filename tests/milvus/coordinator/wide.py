"""One large collection: partitions, varchar, JSON, dynamic fields, four shards."""

import time

import numpy
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, utility
from pymilvus.grpc_gen import milvus_pb2

from coordinator.invariants import Rows

NAME = "wide"
PARTITIONS = ("_default", "first", "second")
DIMENSION = 64
BATCH = 5_000
WAIT_S = 600
HNSW = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}
IVF = {"index_type": "IVF_FLAT", "metric_type": "L2", "params": {"nlist": 64}}


class Wide:
    """Row n is in partition n % 3. Vectors come from a seed: every nearest neighbour is known."""

    def __init__(self, stage, said, rows):
        self.stage = stage
        self.calls = stage.calls
        self.said = said
        self.total = rows
        draw = numpy.random.default_rng(stage.options.seed)
        self.vectors = draw.random((rows, DIMENSION), "float32")
        self.collection = None
        self.deleted = range(3, rows, 10)
        self.upserted = range(8, rows, 50)

    def steps(self):
        return [
            self.create, self.insert, self.count, self.delete, self.upsert, self.flush,
            self.index, self.conflicts, self.load, self.search, self.query, self.segments,
            self.compact, self.after_compaction, self.other_index, self.drop_partition,
            self.administer,
        ]

    def live(self):
        """Rows that are neither deleted nor in the dropped partition."""
        return [n for n in range(self.total) if n % 10 != 3 and n % 3 != 2]

    def rows(self):
        return {NAME: Rows.exactly(len(self.live()))}

    def create(self):
        schema = CollectionSchema([
            FieldSchema("id", DataType.INT64, is_primary=True),
            FieldSchema("title", DataType.VARCHAR, max_length=64),
            FieldSchema("attributes", DataType.JSON),
            FieldSchema("score", DataType.DOUBLE),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
        ], enable_dynamic_field=True)
        # Or an automatic compaction comes first, now and then.
        properties = {"collection.autocompaction.enabled": "false"}
        self.collection = self.calls("create", Collection, NAME, schema, shards_num=4,
                                     properties=properties)
        for name in PARTITIONS[1:]:
            self.calls("create_partition", self.collection.create_partition, name)
        self.calls("set_properties", self.collection.set_properties, properties)
        described = self.collection.describe()
        self.said.say("described", {key: described[key] for key in (
            "collection_name", "num_shards", "enable_dynamic_field", "num_partitions",
            "properties")})
        self.said.refused("a partition twice", self.collection.create_partition, "first")
        self.said.refused("another schema", Collection, NAME, CollectionSchema(schema.fields[:1] + [
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION + 1)]))

    def row(self, number, title="title"):
        return {
            "id": number,
            "title": f"{title}-{number}",
            "attributes": {"colour": ("red", "green", "blue")[number % 3],
                           "sizes": [number % 7, 1]},
            "score": number / 4,
            "vector": self.vectors[number].tolist(),
            # Not in the schema.
            "remark": f"remark-{number % 100}",
        }

    def insert(self):
        for first in range(0, self.total, BATCH):
            numbers = range(first, min(first + BATCH, self.total))
            for at, partition in enumerate(PARTITIONS):
                rows = [self.row(n) for n in numbers if n % 3 == at]
                done = self.calls("insert", self.collection.insert, rows, partition_name=partition)
                assert done.insert_count == len(rows), done
                assert list(done.primary_keys) == [row["id"] for row in rows]
        self.said.refused("an unknown partition", self.collection.insert, [self.row(0)],
                          partition_name="nowhere")
        self.said.refused("a vector too short", self.collection.insert,
                          [{**self.row(0), "vector": [0.5] * (DIMENSION - 1)}])

    def count(self):
        self.calls("flush", self.collection.flush)
        self.said.say("num_entities", self.collection.num_entities)
        assert self.collection.num_entities == self.total
        for partition in self.collection.partitions:
            self.said.say(f"num_entities of {partition.name}", partition.num_entities)

    def delete(self):
        for at in range(0, len(self.deleted), 2_000):
            ids = list(self.deleted[at:at + 2_000])
            for partition in range(3):
                some = [n for n in ids if n % 3 == partition]
                done = self.calls("delete", self.collection.delete, f"id in {some}",
                                  partition_name=PARTITIONS[partition])
                assert done.delete_count == len(some), done
        # A data node finds the segments of a delete by bloom filters. Were deletes consumed together
        # with the upserts, some would hit the segments that those make, now more and now fewer.
        self.calls("flush", self.collection.flush)
        self.said.say("deleted", len(self.deleted))

    def upsert(self):
        count = 0
        for at in range(0, len(self.upserted), 2_000):
            for partition in range(3):
                rows = [self.row(n, "changed") for n in self.upserted[at:at + 2_000]
                        if n % 3 == partition]
                done = self.calls("upsert", self.collection.upsert, rows,
                                  partition_name=PARTITIONS[partition])
                count += done.upsert_count
        self.said.say("upserted", count)

    def flush(self):
        self.calls("flush", self.collection.flush)
        self.said.say("num_entities", self.collection.num_entities)
        self.segments()

    def index(self):
        self.calls("create_index", self.collection.create_index, "vector", HNSW, index_name="v")
        self.calls("create_index", self.collection.create_index, "title", index_name="t")
        self.calls("create_index", self.collection.create_index, "score", index_name="s")
        self.wait_indexes("v", "t", "s")
        self.said.say("indexes", sorted((index.index_name, index.field_name, str(index.params))
                                        for index in self.collection.indexes))

    def wait_indexes(self, *names):
        for name in names:
            self.calls("wait_index", utility.wait_for_index_building_complete, NAME, name,
                       timeout=WAIT_S)
            self.said.say(f"progress of {name}", utility.index_building_progress(NAME, name))

    def conflicts(self):
        self.said.say("the same index again", self.collection.create_index(
            "vector", HNSW, index_name="v"))
        self.said.refused("another index under the name", self.collection.create_index, "vector",
                          IVF, index_name="v")
        self.said.refused("a second index of the field", self.collection.create_index, "vector",
                          HNSW, index_name="w")
        self.said.refused("an index of no field", self.collection.create_index, "nothing", HNSW)
        self.said.refused("progress of no index", utility.index_building_progress, NAME, "nothing")
        self.said.refused("search before load", self.collection.search, [self.vectors[0].tolist()],
                          "vector", {"metric_type": "L2", "params": {"ef": 64}}, limit=1)

    def load(self):
        self.calls("load", self.collection.load, timeout=WAIT_S)
        self.said.say("loaded", utility.loading_progress(NAME))
        self.said.refused("drop of the index of a loaded collection", self.collection.drop_index,
                          index_name="v")

    def search(self):
        wanted = [n for n in (0, 1, self.total // 2, self.total - 1, self.total - 2)]
        found = self.calls("search", self.collection.search, self.vectors[wanted], "vector",
                           {"metric_type": "L2", "params": {"ef": 256}}, limit=10,
                           output_fields=["title", "remark"], consistency_level="Strong")
        for number, hits in zip(wanted, found):
            best = hits[0]
            told = (best.entity.get("title"), best.entity.get("remark"))
            self.said.say(f"nearest to {number}",
                          (best.id, f"{best.distance:.3f}", len(hits), *told))
        within = self.calls("search", self.collection.search, self.vectors[wanted], "vector",
                            {"metric_type": "L2", "params": {"ef": 256}}, limit=1,
                            partition_names=["first"], consistency_level="Strong")
        self.said.say("in one partition", [hits[0].id % 3 for hits in within])

    def query(self):
        live = [n for n in range(self.total) if n % 10 != 3]
        self.counted("count(*)", "", len(live))
        self.counted("red ones", "attributes['colour'] == 'red'",
                     len([n for n in live if n % 3 == 0]))
        self.counted("by a dynamic field", "remark == 'remark-7'",
                     len([n for n in live if n % 100 == 7]))
        self.counted("changed ones", "title like 'changed%'",
                     len([n for n in self.upserted if n % 10 != 3]))
        self.exact_ids("score < 500", [n for n in live if n < 2_000])
        gone = self.collection.query(f"id in {list(self.deleted[:50])}", consistency_level="Strong")
        self.said.say("deleted ones", gone)

    def counted(self, what, expression, wanted):
        found = self.calls("query", self.collection.query, expression, output_fields=["count(*)"],
                           consistency_level="Strong")[0]["count(*)"]
        self.said.say(what, found)
        assert found == wanted, f"{what}: {found}, wanted {wanted}"

    def exact_ids(self, expression, wanted):
        rows = self.calls("query", self.collection.query, expression, output_fields=["id"],
                          consistency_level="Strong")
        found = sorted(row["id"] for row in rows)
        self.said.say(f"ids where {expression}", f"{len(found)}, sum {sum(found)}")
        assert found == wanted, f"{expression}: {len(found)} rows, wanted {len(wanted)}"

    def segments(self):
        """As clients see them: GetPersistentSegmentInfo."""
        answer = utility.connections._fetch_handler("default")._stub.GetPersistentSegmentInfo(
            milvus_pb2.GetPersistentSegmentInfoRequest(collectionName=NAME))
        assert answer.status.code == 0, answer.status
        self.said.say("segments", sorted((info.num_rows, info.state) for info in answer.infos))

    def compact(self):
        self.calls("compact", self.collection.compact)
        self.calls("wait_compaction", self.collection.wait_for_compaction_completed, timeout=WAIT_S)
        state = self.collection.get_compaction_state()
        self.said.say("compaction", (state.state.name, state.in_executing, state.in_timeout,
                                     state.completed))
        plans = self.collection.get_compaction_plans()
        self.said.say("inputs of the plans", sorted(len(plan.sources) for plan in plans.plans))
        self.said.say("plans without a result", sum(plan.target <= 0 for plan in plans.plans))

    def after_compaction(self):
        self.wait_indexes("v", "t", "s")
        self.said.say("num_entities", self.collection.num_entities)
        self.segments()
        self.query()
        self.search()

    def other_index(self):
        self.calls("release", self.collection.release)
        self.calls("drop_index", self.collection.drop_index, index_name="v")
        self.said.refused("load without an index", self.collection.load)
        self.calls("create_index", self.collection.create_index, "vector", IVF, index_name="ivf")
        self.wait_indexes("ivf")
        self.calls("load", self.collection.load, timeout=WAIT_S)
        # All lists are probed, so the answer is exact.
        found = self.calls("search", self.collection.search, self.vectors[:3], "vector",
                           {"metric_type": "L2", "params": {"nprobe": 64}}, limit=10,
                           consistency_level="Strong")
        for number, hits in enumerate(found):
            self.said.say(f"nearest to {number}", list(hits.ids))
        self.calls("release", self.collection.release)
        self.said.say("state", utility.load_state(NAME).name)

    def drop_partition(self):
        self.calls("drop_partition", self.collection.drop_partition, "second")
        deadline = time.monotonic() + WAIT_S
        wanted = len(self.live())
        # DataCoord hears of it through the channel.
        while (found := self.collection.num_entities) != wanted:
            assert time.monotonic() < deadline, f"{found} entities, wanted {wanted}"
            time.sleep(0.5)
        self.said.say("num_entities", found)
        self.said.say("partitions", [partition.name for partition in self.collection.partitions])

    def administer(self):
        stub = utility.connections._fetch_handler("default")._stub
        health = stub.CheckHealth(milvus_pb2.CheckHealthRequest())
        self.said.say("health", (health.isHealthy, list(health.reasons)))
        utility.flush_all(timeout=WAIT_S)
        self.said.say("statistics", utility.connections._fetch_handler("default")
                      .get_collection_stats(NAME))
        state = stub.GetCompactionState(milvus_pb2.GetCompactionStateRequest(compactionID=1))
        self.said.say("an unknown compaction", (state.status.code, state.state,
                                                state.executingPlanNo, state.completedPlanNo))
        self.said.refused("flush of nothing", stub_flush, "nothing")

    def end(self):
        self.calls("drop", self.collection.drop)


def stub_flush(name):
    utility.connections._fetch_handler("default").flush([name])
