"""With a time to live of zero no row expires and nothing is rewritten for it; with five seconds rows are
gone after a compaction that nobody asked for."""

import time

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger

ROUND_S = 2
SETTINGS = {
    "dataCoord.compaction.check.interval": 1,
    "dataCoord.compaction.global.interval": ROUND_S,
    "common.entityExpiration": 0,
}
ROWS = 2000
TTL_S = 5
WAIT_S = 150


def run(stage):
    # As its property says, and as the setting for all says.
    lasting = {"zero": ledger(stage, "zero", "0"), "setting": ledger(stage, "setting", None)}
    brief = ledger(stage, "brief", str(TTL_S))
    before = {name: numbers(stage, one) for name, one in lasting.items()}
    wait_expired(stage, brief)
    time.sleep(3 * ROUND_S)
    for name, one in lasting.items():
        now = numbers(stage, one)
        assert now == before[name], f"{name}: segments {before[name]} were rewritten into {now}"
        one.check_rows()
    stage.say(f"nothing of {sorted(lasting)} was rewritten in three rounds")
    check_none(stage, brief)
    script.wait_quiet(stage)
    invariants.check_all(stage, {name: Rows.exactly(ROWS) for name in lasting})


def ledger(stage, name, ttl):
    """A collection with one segment that could be compacted."""
    made = Ledger(stage, name, shards=1)
    if ttl is not None:
        made.collection.set_properties({"collection.ttl.seconds": ttl})
    made.index()
    made.insert(ROWS)
    made.flush()
    made.wait_index()
    return made


def healthy(stage, one):
    store = stage.metastore()
    return [segment for segment in store.segments_of(store.collection(one.name))
            if segment.healthy]


def numbers(stage, one):
    return sorted(segment.info.ID for segment in healthy(stage, one))


def wait_expired(stage, one):
    started = time.monotonic()
    while left := sum(segment.info.num_of_rows for segment in healthy(stage, one)):
        assert time.monotonic() < started + WAIT_S, f"{left} rows are still there after {WAIT_S} s"
        time.sleep(0.5)
    stage.say(f"{one.name}: all {ROWS} rows expired and went"
              f" {time.monotonic() - started:.1f} s after they were indexed")


def check_none(stage, one):
    stage.calls("release", one.collection.release)
    stage.calls("load", one.collection.load, timeout=WAIT_S)
    counted = stage.calls("count", one.collection.query, "", output_fields=["count(*)"],
                          consistency_level="Strong")[0]["count(*)"]
    assert counted == 0, f"{counted} rows are still found"
