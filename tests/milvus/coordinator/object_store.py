"""The object store hangs, is busy, lists in part or refuses the keys, as our coordinator sees it: rows go
in and out, nothing that is named is deleted, and the coordinator says what is wrong."""

import os
import time
import urllib.request

from coordinator import invariants, objects, s3, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger, Workers
from coordinator.operators import got

PORT = 9000
SETTINGS = {
    "common.storageType": "remote",
    "minio.address": f"127.0.0.1:{PORT}",
    "minio.port": 1,
    "minio.bucketName": s3.BUCKET,
    "minio.rootPath": s3.ROOT,
    "dataCoord.compaction.check.interval": 1,
    "dataCoord.gc.interval": 3,
    "dataCoord.gc.missingTolerance": 5,
    "dataCoord.gc.dropTolerance": 3,
}
# Our calls have 30 s each: a store that hangs is noticed after that.
HANG_S = 45
MOOD_S = {"small": 15, "full": 300}
WAIT_S = 120
ALIEN = "insert_log/1/2/3/100/4"
DAY_S = 86_400
FAILING = "quorate_coordinator_object_store_failing_seconds"


def prepare(stage):
    stage.store = s3.Store(stage.milvus.objects, PORT)
    stage.store.start()


def run(stage):
    ledger = Ledger(stage, "kept")
    ledger.index()
    fill(ledger)
    for mood in (s3.HANGS, s3.BUSY, s3.IN_PART, s3.FORBIDDEN):
        misbehave(stage, ledger, mood)
    # A clock that is a day behind, then a day ahead: files of the moment stay all the same.
    for ahead_s in (-DAY_S, DAY_S):
        stage.store.ahead_s = ahead_s
        fill(ledger)
        check_named(stage)
    stage.store.ahead_s = 0
    ledger.check_calls()
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"kept": Rows(len(ledger.live), ledger.inserted)})
    stage.store.stop()


def fill(ledger):
    for _ in range(3):
        ledger.insert(500)
        ledger.delete(100)
    ledger.flush()


def misbehave(stage, ledger, mood):
    dropped = Ledger(stage, f"dropped_{mood.replace(' ', '_')}", shards=1)
    fill(dropped)
    place(stage, ALIEN)
    stage.store.set("quorate", mood)
    dropped.collection.drop()
    steps = ((lambda: ledger.insert(200), 0.2), (lambda: ledger.delete(20), 0.5),
             (ledger.flush, 3))
    with Workers(*steps) as workers:
        mood_s = MOOD_S[stage.options.size]
        workers.go_on(max(mood_s, HANG_S) if mood == s3.HANGS else mood_s)
        explained = explain(stage, next(iter(ledger.channels)))
        failing_s = metric(stage, FAILING)
    check_named(stage)
    is_seen = mood != s3.IN_PART
    assert (failing_s > 0) == is_seen, f"{mood}: failing for {failing_s} s"
    assert ("the object store answers" in explained) == is_seen, f"{mood}: {explained}"
    stage.store.set("quorate", s3.SERVES)
    wait_collected(stage, mood)
    ledger.check_calls()
    stage.say(f"{mood}: calls went on, failing for {failing_s} s by then; collected afterwards")


def place(stage, path):
    """A file of nobody's, old enough by its own time."""
    path = os.path.join(stage.milvus.objects, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write("alien")
    os.utime(path, (time.time() - DAY_S, time.time() - DAY_S))


def check_named(stage):
    """Whatever a healthy segment names is there."""
    healthy = [segment for segment in stage.metastore().segments.values() if segment.healthy]
    store = stage.metastore()
    names = objects.named(store, [one for one in healthy if one.info.ID in store.segments
                                  and store.segments[one.info.ID].healthy])
    missing = names - objects.listed(stage.milvus.objects).keys()
    still = objects.named(stage.metastore(), [
        one for one in stage.metastore().segments.values() if one.healthy])
    assert not missing & still, f"files of segments are gone: {sorted(missing & still)[:5]}"


def wait_collected(stage, mood):
    """Until the store is asked again, and nothing of the dropped collection is left."""
    deadline = time.monotonic() + WAIT_S
    while True:
        store = stage.metastore()
        left = [segment.info.ID for segment in store.segments.values()
                if segment.info.collectionID not in
                {number for number, one in store.collections.items() if one.state == 0}]
        alien = os.path.exists(os.path.join(stage.milvus.objects, ALIEN))
        if not left and not alien and metric(stage, FAILING) == 0:
            return
        assert time.monotonic() < deadline, (
            f"{mood}: after {WAIT_S} s segments {left} of a dropped collection are there,"
            f" the alien file {alien}")
        time.sleep(1)


def leader_http(stage):
    return stage.cluster.wait_healthy().http


def explain(stage, channel):
    return str(got(f"{leader_http(stage)}/api/v1/explain/channel/{channel}"))


def metric(stage, name):
    with urllib.request.urlopen(f"{leader_http(stage)}/metrics", timeout=10) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    raise AssertionError(f"{name} is not exported")
