"""Deletes that are flushed while automatic compactions run: they belong to the results.

Stock's DataCoord may lose some of them, and then deleted rows are back. There the scenario reports it;
with ours none may be.
"""

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger

SETTINGS = {"dataCoord.compaction.check.interval": 1}


def run(stage):
    ledger = Ledger(stage, "ledger")
    ledger.forgives_deletes = not stage.ours
    stage.calls("create_index", ledger.collection.create_index, "vector",
                {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}})
    for _ in range(8 if stage.small else 30):
        for _ in range(10):
            ledger.insert(300)
            # A fifth of its rows gone makes a segment worth a compaction.
            ledger.delete(90)
        ledger.flush()
    ledger.check_calls()
    compacted = sum(segment.info.createdByCompaction for segment in stage.metastore().segments.values())
    stage.say(f"{compacted} results of compactions")
    assert compacted, "nothing was compacted meanwhile"
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"ledger": Rows(len(ledger.live), ledger.inserted)})
