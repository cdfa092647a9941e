"""After drops and a compaction, the object store holds exactly the files that metadata names. An
alien file that is old goes; a young one and one outside of the prefixes stay."""

import os
import time

from coordinator import invariants, objects, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger

SETTINGS = {
    "dataCoord.compaction.check.interval": 1,
    "dataCoord.gc.interval": 5,
    "dataCoord.gc.missingTolerance": 20,
    "dataCoord.gc.dropTolerance": 5,
}
WAIT_S = 240
HOUR_S = 3600
OLD = ("insert_log/1/2/3/100/4", "stats_log/1/2/3/100/5", "delta_log/1/2/3/6")
OLD_INDEX = "index_files/7/1/2/3/slice"
# Its age would grow beyond the tolerance while the test waits, so it comes from the future.
YOUNG = "insert_log/1/2/3/100/8"
OUTSIDE = "elsewhere/9"
# Stock lists by the first letters of a name, and deletes this one.
ALMOST_INSIDE = "insert_log_backup/1/2/3/100/10"


def run(stage):
    kept = Ledger(stage, "kept")
    dropped = Ledger(stage, "dropped", shards=1)
    for ledger in (kept, dropped):
        for _ in range(2 if stage.small else 5):
            for _ in range(4):
                ledger.insert(500)
            ledger.delete(150)
            ledger.flush()
        ledger.check_rows()
    before = objects.listed(stage.milvus.objects)
    compact(stage, kept)
    stage.calls("release", dropped.collection.release)
    dropped.collection.drop()
    kept.collection.release()
    kept.collection.drop_index()
    place_aliens(stage)
    files = wait_exact(stage, kept)
    for when, found in (("before", before), ("after", files)):
        stage.say(f"{when}: {len(found)} files, {sum(found.values())} bytes"
                  f" ({objects.counted(found)})")
    assert os.path.exists(os.path.join(stage.milvus.objects, YOUNG)), "the young alien is gone"
    for path in (OUTSIDE, ALMOST_INSIDE) if stage.ours else (OUTSIDE,):
        assert os.path.exists(os.path.join(stage.milvus.objects, path)), f"{path} is gone"
    if stage.ours:
        check_reports(stage)
    remove_young(stage)
    kept.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"kept": Rows(len(kept.live), kept.inserted)}, collected=True)


def check_reports(stage):
    """What was collected is told, and that nothing is left to collect."""
    report = stage.quorate("gc", "report")
    assert f"{len(OLD)} files that no record names" in report, report
    left = stage.quorate("gc", "dry-run")
    assert "0 files that no record names, 0 bytes, would go" in left, left
    assert "1 files stay: younger than the tolerance" in left, left


def compact(stage, ledger):
    """Its inputs go once the result has its index and the checkpoint passed them."""
    ledger.collection.compact()
    ledger.collection.wait_for_compaction_completed(timeout=WAIT_S)
    plans = ledger.collection.get_compaction_plans().plans
    assert plans, "nothing was compacted"
    ledger.wait_index()
    ledger.flush()
    stage.say(f"compacted {sum(len(plan.sources) for plan in plans)} segments into {len(plans)}")
    wait_inputs_gone(stage, ledger)


def wait_inputs_gone(stage, ledger):
    deadline = time.monotonic() + WAIT_S
    while True:
        store = stage.metastore()
        left = [segment.info.ID for segment in store.segments_of(store.collection(ledger.name))
                if not segment.healthy]
        if not left:
            return
        assert time.monotonic() < deadline, f"inputs are still there after {WAIT_S} s: {left}"
        time.sleep(1)


def place_aliens(stage):
    old = time.time() - HOUR_S
    for path in (*OLD, OLD_INDEX, OUTSIDE, ALMOST_INSIDE):
        place(stage, path, old)
    place(stage, YOUNG, time.time() + HOUR_S)


def place(stage, path, modified):
    path = os.path.join(stage.milvus.objects, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write("alien")
    os.utime(path, (modified, modified))


def remove_young(stage):
    os.remove(os.path.join(stage.milvus.objects, YOUNG))


def wait_exact(stage, ledger):
    """Until the files are those on record, the young one, and nothing else; nothing of the dropped
    collection is on record any more."""
    deadline = time.monotonic() + WAIT_S
    while True:
        store = stage.metastore()
        files = objects.listed(stage.milvus.objects)
        wanted = objects.named(store, store.segments.values()) | {YOUNG}
        strangers = [segment for segment in store.segments.values()
                     if segment.info.collectionID != store.collection(ledger.name)]
        if files.keys() == wanted and not strangers and not store.segment_indexes:
            return files
        assert time.monotonic() < deadline, (
            f"after {WAIT_S} s: {len(strangers)} segments of the dropped collection,"
            f" too much {sorted(files.keys() - wanted)[:5]},"
            f" missing {sorted(wanted - files.keys())[:5]},"
            f" {len(store.segment_indexes)} indexes of segments")
        time.sleep(1)
