"""From stock's DataCoord to ours and back. Stock leaves growing and sealed segments and a
compaction under way; ours hands over with rows unflushed. Nothing is lost either way.

With stock's coordinator the same happens without a change of roles: Milvus is killed and started.
"""

import time

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger
from coordinator.metastore import GROWING, SEALED
from coordinator.standby import BUILT_IN
from coordinator.triggers import Trigger, segment_in

SETTINGS = {
    "dataCoord.compaction.check.interval": 10,
    "dataCoord.compaction.enableAutoCompaction": False,
    "common.session.ttl": 10,
}
STARTS_WITH_STOCK = True
WAIT_S = 120


def run(stage):
    compacted, sealed = Ledger(stage, "compacted"), Ledger(stage, "sealed")
    flush = leave_unfinished(stage, compacted, sealed)
    if stage.ours:
        stage.cluster.take_role(stage.milvus.config_path)
    started = time.monotonic()
    stage.milvus.start()
    address = stage.cluster.coordinator_session()["Address"]
    stage.say(f"Milvus is ready {time.monotonic() - started:.1f} s after its restart,"
              f" its DataCoord is {address}")
    flush.join(timeout=WAIT_S)
    assert not flush.is_alive(), "the flush does not return"
    for ledger in (compacted, sealed):
        ledger.check_calls()
        ledger.check_rows()
    check(stage, compacted, sealed)
    for ledger in (compacted, sealed):
        ledger.insert(500)
        ledger.delete(50)
    if stage.ours:
        hand_over(stage)
    for ledger in (compacted, sealed):
        ledger.insert(500)
        ledger.delete(50)
        ledger.check_rows()
    check(stage, compacted, sealed)


def leave_unfinished(stage, compacted, sealed):
    """And kill Milvus; returns the flush that it did not survive."""
    compacted.index()
    for _ in range(4):
        compacted.insert(500)
        compacted.delete(50)
        compacted.flush()
    compacted.insert(500)
    sealed.insert(500)
    sealed.flush()
    sealed.insert(500)
    sealed.delete(50)
    compacted.wait_index()
    compacted.collection.compact()
    with Trigger(stage, segment_in(SEALED), stage.milvus.kill) as trigger:
        flush = sealed.start_flush()
        trigger.wait(WAIT_S)
    states = [segment.info.state for segment in stage.metastore().segments.values()]
    stage.say(f"killed Milvus with {states.count(GROWING)} growing and {states.count(SEALED)}"
              " sealed segments and a compaction under way")
    assert states.count(GROWING) and states.count(SEALED), states
    return flush


def check(stage, *ledgers):
    script.wait_quiet(stage)
    invariants.check_all(
        stage, {ledger.name: Rows(len(ledger.live), ledger.inserted) for ledger in ledgers})


def hand_over(stage):
    """The role goes off on all nodes, and the built-in DataCoord steps in."""
    told = stage.quorate("coordinator", "hand-over", timeout=WAIT_S)
    stage.say(f"handed over: {told.strip()}")
    deadline = time.monotonic() + WAIT_S
    while (session := stage.cluster.coordinator_session() or {}).get("Address") != BUILT_IN:
        assert time.monotonic() < deadline, f"the built-in DataCoord does not step in: {session}"
        time.sleep(0.1)
    stage.say(f"Milvus's DataCoord is {session['Address']}")
