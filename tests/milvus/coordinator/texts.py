"""A small collection with texts as primary keys and a partition key."""

import numpy
from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, utility

from coordinator.invariants import Rows

NAME = "texts"
ROWS = 6_000
DIMENSION = 16
WAIT_S = 300


class Texts:
    def __init__(self, stage, said):
        self.calls = stage.calls
        self.said = said
        draw = numpy.random.default_rng(stage.options.seed + 1)
        self.vectors = draw.random((ROWS, DIMENSION), "float32")
        self.collection = None

    def steps(self):
        return [self.create, self.insert, self.delete, self.index_and_load, self.query,
                self.change_properties]

    def rows(self):
        return {NAME: Rows.exactly(ROWS)}

    def create(self):
        schema = CollectionSchema([
            FieldSchema("key", DataType.VARCHAR, max_length=32, is_primary=True),
            FieldSchema("tenant", DataType.INT64, is_partition_key=True),
            FieldSchema("tags", DataType.ARRAY, element_type=DataType.INT32, max_capacity=8),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
        ])
        self.collection = self.calls("create", Collection, NAME, schema, shards_num=1,
                                     num_partitions=4)
        self.said.say("partitions", len(self.collection.partitions))
        utility.create_alias(NAME, "other_name")
        self.said.say("aliases", self.collection.aliases)

    def insert(self):
        for first in range(0, ROWS, 1_000):
            rows = [{"key": f"key-{n:05}", "tenant": n % 10, "tags": [n % 3, n % 5],
                     "vector": self.vectors[n].tolist()} for n in range(first, first + 1_000)]
            done = self.calls("insert", self.collection.insert, rows)
            assert done.insert_count == 1_000
        self.calls("flush", self.collection.flush)
        self.said.say("num_entities", self.collection.num_entities)

    def delete(self):
        keys = [f"key-{n:05}" for n in range(0, ROWS, 20)]
        done = self.calls("delete", self.collection.delete, f"key in {keys}".replace("'", '"'))
        self.said.say("deleted", done.delete_count)
        self.calls("flush", self.collection.flush)

    def index_and_load(self):
        self.calls("create_index", self.collection.create_index, "vector",
                   {"index_type": "FLAT", "metric_type": "COSINE", "params": {}})
        self.calls("wait_index", utility.wait_for_index_building_complete, NAME, timeout=WAIT_S)
        self.said.say("progress", utility.index_building_progress(NAME))
        self.calls("load", self.collection.load, timeout=WAIT_S)

    def query(self):
        found = self.calls("query", self.collection.query, "", output_fields=["count(*)"],
                           consistency_level="Strong")
        self.said.say("count(*)", found)
        assert found[0]["count(*)"] == ROWS - ROWS // 20
        rows = self.calls("query", self.collection.query, "tenant == 3", output_fields=["key"],
                          consistency_level="Strong")
        keys = sorted(row["key"] for row in rows)
        self.said.say("of one tenant", (len(keys), keys[:3], keys[-3:]))
        found = self.calls("search", self.collection.search, self.vectors[1:4], "vector",
                           {"metric_type": "COSINE"}, limit=5, consistency_level="Strong")
        self.said.say("nearest", [list(hits.ids) for hits in found])

    def change_properties(self):
        self.collection.set_properties({"collection.ttl.seconds": 86_400})
        self.said.say("properties", self.collection.describe()["properties"])
        self.calls("release", self.collection.release)

    def end(self):
        utility.drop_alias("other_name")
        self.calls("drop", self.collection.drop)
