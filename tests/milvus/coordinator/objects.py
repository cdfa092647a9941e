"""The files of the object store (a local folder), by the ids in their paths."""

import os
from collections import defaultdict

from coordinator.metastore import INDEX_FINISHED

LOGS = ("insert_log", "stats_log", "delta_log")
INDEX = "index_files"


def listed(folder):
    """Path below the folder -> bytes, of everything below the prefixes of Milvus."""
    found = {}
    for prefix in (*LOGS, INDEX):
        for place, _, names in os.walk(os.path.join(folder, prefix)):
            for name in names:
                path = os.path.join(place, name)
                found[os.path.relpath(path, folder)] = os.path.getsize(path)
    return found


def named(metastore, segments):
    """The paths that the records of these segments name."""
    paths = set()
    for segment in segments:
        paths.update(log_paths(segment))
    ids = {segment.info.ID for segment in segments}
    for index in metastore.segment_indexes:
        if index.segmentID in ids:
            paths.update(index_paths(index))
    return paths


def log_paths(segment):
    info = segment.info
    place = f"{info.collectionID}/{info.partitionID}/{info.ID}"
    for number, log in segment.insert:
        yield f"insert_log/{place}/{number}/{log_id(log)}"
    for number, log in segment.stats:
        yield f"stats_log/{place}/{number}/{log_id(log)}"
    for _, log in segment.delta:
        yield f"delta_log/{place}/{log_id(log)}"


def log_id(log):
    return log.logID or int(log.log_path.rpartition("/")[2])


def index_paths(index):
    if index.state != INDEX_FINISHED or index.deleted:
        return
    place = f"{INDEX}/{index.buildID}/{index.index_version}/{index.partitionID}/{index.segmentID}"
    for key in index.index_file_keys:
        yield f"{place}/{key}"


def counted(paths):
    """How many files of each kind, as one line."""
    kinds = defaultdict(int)
    for path in paths:
        kinds[path.split("/")[0]] += 1
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) or "none"
