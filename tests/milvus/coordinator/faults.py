"""Inserting and deleting continuously while leaders are killed: no call fails for good, no row is
lost, doubled or back, the kills seal no segments, and rows are assigned again within the budget."""

import statistics
import time

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger, Workers
from coordinator.probe import Probe, told
from killer import LeaderKiller

SETTINGS = {"dataCoord.compaction.check.interval": 1}
WAIT_S = 600
# From SIGKILL to the first assignment.
MEDIAN_MS_MAX, LONGEST_MS_MAX = 1000, 2000


def run(stage):
    kills = 1 if stage.small else 10
    calm_s = 10 if stage.small else 30
    ledger = Ledger(stage, "ledger")
    steady = [(ledger.insert, 0.05), (ledger.delete, 0.2)]
    with Probe(stage, ledger.name) as probe:
        with Workers(*steady) as workers:
            workers.go_on(calm_s)
            without = segments(stage)
            stage.say(f"{calm_s} s without kills: {without} segments, {ledger.pauses()}")
            ledger.made.clear()
            moments = kill(stage, workers, kills, stage.options.seed)
            workers.go_on(1)
            found = segments(stage)
            assert found == without, f"kills sealed: {found} segments, {without} before"
        stage.say(f"{kills} kills sealed nothing: {ledger.pauses()}")
        ledger.made.clear()
        with Workers(*steady, (ledger.flush, 3.0)) as workers:
            moments += kill(stage, workers, kills, stage.options.seed + 1)
            workers.go_on(1)
        stage.say(f"{kills} kills while flushing: {ledger.pauses()}")
    ledger.check_calls()
    gaps = probe.gaps_ms(moments)
    stage.say(f"from SIGKILL to the first assignment: {told(gaps)}")
    assert statistics.median(gaps) < MEDIAN_MS_MAX and max(gaps) < LONGEST_MS_MAX, gaps
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"ledger": Rows(len(ledger.live), ledger.inserted)})


def kill(stage, workers, times, seed):
    """The moments of the kills."""
    with LeaderKiller(stage.cluster, times, seed=seed, between_s=(1.0, 5.0)) as killer:
        deadline = time.monotonic() + WAIT_S
        while not killer.done and not workers.stopping.is_set():
            assert time.monotonic() < deadline, f"{killer.killed} kills within {WAIT_S} s"
            workers.go_on(0.1)
    stage.say(f"seed {seed}: a new leader after "
              + ", ".join(f"{gap:.0f}" for gap in killer.gaps_ms) + " ms")
    return killer.moments


def segments(stage):
    store = stage.metastore()
    return len(store.segments_of(store.collection("ledger")))
