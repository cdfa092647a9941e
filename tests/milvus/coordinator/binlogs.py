"""Reads columns out of Milvus's log files: one Parquet file within an envelope of events."""

import io
import json
import os

import pyarrow.parquet

EDGE = b"PAR1"


def column(path):
    """The values of the one column of a log file."""
    with open(path, "rb") as file:
        data = file.read()
    first, last = data.find(EDGE), data.rfind(EDGE)
    assert 0 <= first < last, f"{path} holds no Parquet"
    table = pyarrow.parquet.read_table(io.BytesIO(data[first:last + len(EDGE)]))
    assert table.num_columns == 1, f"{path}: {table.schema}"
    return table.column(0).to_pylist()


def primary_keys(folder, segment, field):
    """Every key that the insert logs of a segment hold, in their order."""
    info = segment.info
    keys = []
    for number, log in segment.insert:
        if number == field:
            keys += column(os.path.join(folder, "insert_log", str(info.collectionID),
                                        str(info.partitionID), str(info.ID), str(number),
                                        str(log.logID)))
    return keys


def deleted_keys(folder, segment):
    """(key, timestamp) of every deletion that the delta logs of a segment hold."""
    info = segment.info
    found = []
    for _, log in segment.delta:
        path = os.path.join(folder, "delta_log", str(info.collectionID), str(info.partitionID),
                            str(info.ID), str(log.logID))
        for row in column(path):
            record = json.loads(row)
            found.append((record["pk"], record["ts"]))
    return found
