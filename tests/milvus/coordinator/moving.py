"""Channels that move while their compactions run: to a second data node and back, by request and by
loss. Nothing is lost, nothing is there twice, no deleted row is back."""

import subprocess
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
        channels_command(stage, "drain", real)
        wait_owner(stage, channels, NODE)
        stage.say(f"{len(channels)} channels moved from data node {real} to {NODE}")
        # Rows and deletes go into the message queue, and nobody reads them yet.
        ledger.insert(500)
        ledger.delete(300)
        ledger.collection.compact()
        wait_plans(second, len(channels))
        channels_command(stage, "undrain", real)
        channels_command(stage, "drain", NODE)
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


def channels_command(stage, *arguments):
    done = command(stage, "channels", *arguments)
    assert done.returncode == 0, f"channels {arguments}: {done.stdout}{done.stderr}"


def command(stage, *arguments):
    return subprocess.run(
        [stage.options.binary, *(str(one) for one in arguments),
         "--endpoints", stage.cluster.endpoints],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S, check=False)


def wait_plans(second, count):
    deadline = time.monotonic() + WAIT_S
    while len(second.plans) < count:
        assert time.monotonic() < deadline, f"{len(second.plans)} compactions of {count} came"
        time.sleep(0.1)


def wait_ended(stage, plans):
    """They are nobody's any more."""
    deadline = time.monotonic() + WAIT_S
    while True:
        listed = command(stage, "compactions", "list", "-o", "json")
        assert listed.returncode == 0, listed.stderr
        if not any(f'"{plan}"' in listed.stdout and "executing" in listed.stdout
                   for plan in plans):
            return
        assert time.monotonic() < deadline, listed.stdout
        time.sleep(0.5)
