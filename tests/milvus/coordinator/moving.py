"""Channels that move while their compactions run: to a second data node and back, by request and by
loss. Nothing is lost, nothing is there twice, no deleted row is back."""

import time

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger
from coordinator.simulated import NODE, DataNode, wait_owner

SETTINGS = {
    "dataCoord.compaction.check.interval": 1,
    "dataCoord.compaction.enableAutoCompaction": False,
}
WAIT_S = 120
STAYS_S = 5


def run(stage):
    assert stage.ours, "stock has no such request"
    ledger = Ledger(stage, "ledger")
    ledger.index()
    for _ in range(3 if stage.small else 8):
        ledger.insert(500)
        ledger.delete(100)
        ledger.flush()
    ledger.wait_index()
    channels = ledger.channels
    real = owner(stage, channels)
    with DataNode(stage) as second:
        stage.quorate("channels", "drain", real)
        wait_owner(stage, channels, NODE)
        stage.say(f"{len(channels)} channels moved from data node {real} to {NODE}")
        # Rows and deletes go into the message queue, and nobody reads them yet.
        ledger.insert(500)
        ledger.delete(300)
        ledger.collection.compact()
        wait_plans(second, len(channels))
        running = stage.quorate("compactions", "list", "--state", "executing", "-o", "json")
        assert all(str(plan) in running for plan in second.plans), running
        stage.quorate("channels", "undrain", real)
        stage.quorate("channels", "drain", NODE)
        time.sleep(STAYS_S)
        wait_owner(stage, channels, NODE, seconds=1)
        stage.say(f"{len(second.plans)} compactions run there: the channels stay for {STAYS_S} s")
        ledger.delete(100)
        started = time.monotonic()
        second.lose()
        wait_owner(stage, channels, None)
        stage.say(f"node {NODE} lost: its channels are watched again after"
                  f" {time.monotonic() - started:.1f} s")
        wait_ended(stage, second.plans)
    ledger.check_calls()
    ledger.check_rows()
    ledger.collection.compact()
    ledger.collection.wait_for_compaction_completed(timeout=WAIT_S)
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"ledger": Rows(len(ledger.live), ledger.inserted)})


def owner(stage, channels):
    owners = {node for node, channel in stage.metastore().watches() if channel in channels}
    assert len(owners) == 1, owners
    return int(owners.pop())


def wait_plans(second, count):
    deadline = time.monotonic() + WAIT_S
    while len(second.plans) < count:
        assert time.monotonic() < deadline, f"{len(second.plans)} compactions of {count} came"
        time.sleep(0.1)


def wait_ended(stage, plans):
    """They are on record, and run no more."""
    everything = stage.quorate("compactions", "list", "-o", "json")
    assert all(str(plan) in everything for plan in plans), everything
    deadline = time.monotonic() + WAIT_S
    while True:
        running = stage.quorate("compactions", "list", "--state", "executing", "-o", "json")
        if not any(str(plan) in running for plan in plans):
            return
        assert time.monotonic() < deadline, running
        time.sleep(0.5)
