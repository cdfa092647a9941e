"""Collections come and go while leaders are killed at any moment: also while channels are being watched
and released, which a stock DataCoord does not survive."""

import itertools
import time

from killer import LeaderKiller
from workload import OneCollection

SETTINGS = {}
KILLS = {"small": 5, "full": 40}
ROWS = 200
# The coordinator tells a silent data node again after 30 s.
LIFE_S = 60


def run(stage):
    longest = 0.0
    with LeaderKiller(stage.cluster, KILLS[stage.options.size], seed=stage.options.seed,
                      between_s=(0.0, 4.0)) as killer:
        for n in itertools.count():
            if killer.done:
                break
            stage.milvus.check_running()
            started = time.monotonic()
            live(OneCollection(stage.calls, f"life_{n}", ROWS, batches=1, seed=n))
            longest = max(longest, time.monotonic() - started)
    stage.say(f"{killer.killed} leaders killed in {n} lives, the longest of {longest:.1f} s")
    assert longest < LIFE_S, f"a collection took {longest:.1f} s"


def live(collection):
    collection.create()
    collection.insert_and_flush()
    collection.drop()
