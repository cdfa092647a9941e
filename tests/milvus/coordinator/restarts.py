"""The whole Milvus process is killed and started again: while it flushes, while it compacts, and
right after a compaction's result is on record. Nothing is lost, nothing is there twice, no deleted
row is back."""

import time

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger
from coordinator.metastore import SEALED
from coordinator.triggers import Trigger, result_of_compaction, segment_in

SETTINGS = {
    "dataCoord.compaction.check.interval": 1,
    # Only the compactions of this script: `overlap` tells what others do to deletes on stock.
    "dataCoord.compaction.enableAutoCompaction": False,
    # The sessions of the killed process last that long.
    "common.session.ttl": 10,
}
WAIT_S = 120


def run(stage):
    ledger = Ledger(stage, "ledger")
    for _ in range(1 if stage.small else 3):
        mid_flush(stage, ledger)
    ledger.check_rows()
    for moment in (None, result_of_compaction):
        mid_compaction(stage, ledger, moment)
        ledger.check_rows()
    compact(stage, ledger)
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"ledger": Rows(len(ledger.live), ledger.inserted)})


def fill(ledger, inserts=10):
    for _ in range(inserts):
        ledger.insert(500)
        ledger.delete(50)


def restart(stage):
    stage.milvus.kill()
    killed = time.monotonic()
    stage.milvus.start()
    stage.say(f"killed Milvus; it is ready again after {time.monotonic() - killed:.1f} s")


def mid_flush(stage, ledger):
    """Dies when the first segment is sealed: the flush is under way, or not even begun."""
    fill(ledger)
    with Trigger(stage, segment_in(SEALED), stage.milvus.kill) as trigger:
        flush = ledger.start_flush()
        trigger.wait(WAIT_S)
    restart(stage)
    flush.join(timeout=WAIT_S)
    assert not flush.is_alive(), "the flush does not return"
    fill(ledger, 2)
    started = time.monotonic()
    ledger.flush()
    stage.say(f"flush after the restart took {time.monotonic() - started:.1f} s")


def mid_compaction(stage, ledger, moment):
    """Several small segments with deletes; Milvus dies as soon as the compaction runs, or at a
    moment of its records."""
    for _ in range(3):
        fill(ledger)
        ledger.flush()
    ledger.wait_index()
    if moment is None:
        ledger.collection.compact()
        state = ledger.collection.get_compaction_state()
        stage.milvus.kill()
        stage.say(f"killed with {state.in_executing} plans under way")
        assert state.in_executing > 0, state
    else:
        with Trigger(stage, moment, stage.milvus.kill) as trigger:
            ledger.collection.compact()
            trigger.wait(WAIT_S)
    restart(stage)


def compact(stage, ledger):
    """And a compaction that nobody disturbs still works."""
    ledger.wait_index()
    ledger.collection.compact()
    ledger.collection.wait_for_compaction_completed(timeout=WAIT_S)
    stage.say(f"the last compaction: {len(ledger.collection.get_compaction_plans().plans)} plans")
