"""Deletes that are flushed while automatic compactions run: they belong to the results.

Stock's DataCoord may lose some of them, and then deleted rows are back. There the scenario reports
it; with ours none may be.
"""

import os
import shutil

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger
from coordinator.metastore import DROPPED

SETTINGS = {"dataCoord.compaction.check.interval": 1}


def run(stage):
    ledger = Ledger(stage, "ledger")
    ledger.forgives_deletes = not stage.ours
    ledger.index()
    for _ in range(8 if stage.small else 30):
        for _ in range(10):
            ledger.insert(300)
            # A fifth of its rows gone makes a segment worth a compaction.
            ledger.delete(90)
        ledger.flush()
    ledger.check_calls()
    segments = stage.metastore().segments.values()
    compacted = sum(segment.info.createdByCompaction for segment in segments)
    stage.say(f"{compacted} results of compactions")
    assert compacted, "nothing was compacted meanwhile"
    script.wait_quiet(stage)
    if stage.ours:
        save_late(stage)
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"ledger": Rows(len(ledger.live), ledger.inserted)})


def save_late(stage):
    """A data node that tells of an input's deletes once more, under another name, when the result is
    on record already: what happens by itself once in thirty compactions."""
    store = stage.metastore()
    results = [one for one in store.segments.values()
               if one.healthy and one.info.createdByCompaction]
    pairs = [(store.segments[number], result) for result in results
             for number in result.info.compactionFrom if number in store.segments]
    source, result = next(pair for pair in pairs if pair[0].delta)
    info = source.info
    assert info.state == DROPPED and info.compacted, info
    (field, log), late = source.delta[0], source.delta[0][1].logID + 1

    def path(segment, number):
        return os.path.join(stage.milvus.objects, "delta_log", str(info.collectionID),
                            str(info.partitionID), str(segment), str(number))

    shutil.copy(path(info.ID, log.logID), path(info.ID, late))
    node = next(node for node, channel in store.watches() if channel == info.insert_channel)
    status = stage.call(
        "SaveBinlogPaths", "data.SaveBinlogPathsRequest", "common.Status",
        base={"sourceID": int(node)}, segmentID=info.ID, collectionID=info.collectionID,
        channel=info.insert_channel,
        deltalogs=[{"fieldID": field, "binlogs": [{
            "entries_num": log.entries_num, "log_path": path(info.ID, late),
            "log_size": log.log_size}]}])
    assert status.code == 0 and status.error_code == 0, status
    found = stage.metastore().segments[result.info.ID].delta
    assert late in {one.logID for _, one in found}, f"the result has {found}"
    assert os.path.exists(path(result.info.ID, late)), "the result's file is not there"
    stage.say(f"late deletes of segment {info.ID} are those of its result {result.info.ID}")
