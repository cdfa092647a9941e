"""Bulk import of a JSON file and of NumPy files."""

import json
import os
import time

import numpy
from pymilvus import BulkInsertState, Collection, CollectionSchema, DataType, FieldSchema, utility

from coordinator.invariants import Rows

NAME = "imported"
DIMENSION = 8
ROWS = 3_000
WAIT_S = 180
ENDED = (BulkInsertState.ImportCompleted, BulkInsertState.ImportFailed,
         BulkInsertState.ImportFailedAndCleaned)


class Imports:
    def __init__(self, stage, said):
        self.stage = stage
        self.calls = stage.calls
        self.said = said
        draw = numpy.random.default_rng(stage.options.seed + 2)
        self.vectors = draw.random((2 * ROWS, DIMENSION), "float32")
        self.collection = None

    def steps(self):
        return [self.create, self.json_file, self.numpy_files, self.bad_files, self.query]

    def rows(self):
        return {NAME: Rows.exactly(2 * ROWS)}

    def create(self):
        schema = CollectionSchema([
            FieldSchema("id", DataType.INT64, is_primary=True),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
        ])
        self.collection = self.calls("create", Collection, NAME, schema, shards_num=2)
        self.calls("create_index", self.collection.create_index, "vector",
                   {"index_type": "IVF_FLAT", "metric_type": "L2", "params": {"nlist": 16}})

    def place(self, name):
        """Local storage takes paths relative to the folder that the server runs in."""
        os.makedirs(os.path.join(self.stage.milvus.folder, "bulk"), exist_ok=True)
        return os.path.join("bulk", name), os.path.join(self.stage.milvus.folder, "bulk", name)

    def json_file(self):
        relative, path = self.place("rows.json")
        rows = [{"id": n, "vector": self.vectors[n].tolist()} for n in range(ROWS)]
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"rows": rows}, file)
        self.imported("JSON", [relative])

    def numpy_files(self):
        places = []
        for name, values in (("id", numpy.arange(ROWS, 2 * ROWS)), ("vector", self.vectors[ROWS:])):
            relative, path = self.place(f"{name}.npy")
            numpy.save(path, values)
            places.append(relative)
        self.imported("NumPy", places)

    def bad_files(self):
        self.imported("no such file", ["bulk/nothing.json"])
        relative, path = self.place("broken.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"rows": [{"id": 1}]}')
        self.imported("a row without its vector", [relative])

    def imported(self, what, files):
        task = self.calls("bulk_insert", utility.do_bulk_insert, NAME, files)
        deadline = time.monotonic() + WAIT_S
        while (state := utility.get_bulk_insert_state(task)).state not in ENDED:
            assert time.monotonic() < deadline, f"{what}: {state}"
            time.sleep(0.5)
        self.said.say(what, (state.state_name, state.row_count, state.failed_reason.split(",")[0]))

    def query(self):
        self.said.say("num_entities", self.collection.num_entities)
        self.calls("wait_index", utility.wait_for_index_building_complete, NAME, timeout=WAIT_S)
        self.calls("load", self.collection.load, timeout=WAIT_S)
        rows = self.calls("query", self.collection.query, "id >= 0", output_fields=["id"],
                          consistency_level="Strong")
        assert sorted(row["id"] for row in rows) == list(range(2 * ROWS)), f"{len(rows)} rows"
        counted = self.collection.query("", output_fields=["count(*)"], consistency_level="Strong")
        self.said.say("count(*)", counted)
        found = self.collection.search(self.vectors[[0, 2 * ROWS - 1]], "vector",
                                       {"metric_type": "L2", "params": {"nprobe": 16}}, limit=5)
        self.said.say("nearest", [list(hits.ids) for hits in found])
        self.calls("release", self.collection.release)

    def end(self):
        self.calls("drop", self.collection.drop)
