"""Deletes that are flushed while automatic compactions run: they belong to the results.

Stock's DataCoord may lose some of them, and then deleted rows are back. There the scenario reports
it; with ours none may be.
"""

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger

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
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"ledger": Rows(len(ledger.live), ledger.inserted)})
