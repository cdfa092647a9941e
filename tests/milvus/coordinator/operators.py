"""What operators do while Milvus runs: they list and explain things, pause and resume work, compact, on
the command line and over HTTP, and are told what was wrong with a question."""

import json
import subprocess
import time
import urllib.error
import urllib.request

from pymilvus import Collection, CollectionSchema, DataType, FieldSchema

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import HNSW

SETTINGS = {
    "dataCoord.compaction.enableAutoCompaction": False,
    "dataCoord.compaction.check.interval": 1,
}
NAME = "books"
SEGMENTS, ROWS = 4, 300
DIMENSION = 32
WAIT_S = 60
UNKNOWN = 445811557825249939


def run(stage):
    fill(stage)
    segments = check_lists(stage)
    check_compaction(stage, segments)
    check_garbage(stage)
    check_bad_questions(stage)
    script.wait_quiet(stage)
    invariants.check_all(stage, {NAME: Rows.exactly(SEGMENTS * ROWS)})


def fill(stage):
    """One segment a flush, each with its index."""
    schema = CollectionSchema([
        FieldSchema("id", DataType.INT64, is_primary=True),
        FieldSchema("vector", DataType.FLOAT_VECTOR, dim=DIMENSION),
    ])
    collection = stage.calls("create", Collection, NAME, schema, shards_num=1)
    stage.calls("create_index", collection.create_index, "vector", HNSW)
    for nth in range(SEGMENTS):
        ids = list(range(nth * ROWS, (nth + 1) * ROWS))
        stage.calls("insert", collection.insert, [ids, [[float(n)] * DIMENSION for n in ids]])
        stage.calls("flush", collection.flush)
    wait(lambda: [index["finished"] for index in listed(stage, "indexes")] == [SEGMENTS],
         "all segments have their index")


def check_lists(stage):
    segments = listed(stage, "segments", "--collection", NAME, "--state", "Flushed")
    assert len(segments) == SEGMENTS, segments
    for arguments, words in (
        (("segments", "show", segments[0]["segment"]), ["Flushed", str(ROWS)]),
        (("explain", "segment", segments[0]["segment"]), ["it is Flushed"]),
        (("channels", "list", "--collection", NAME), ["WatchSuccess"]),
        (("explain", "channel", segments[0]["channel"]), ["the data node watches the channel"]),
        (("indexes", "list", "--collection", NAME), ["HNSW"]),
        (("imports", "list"), []),
        (("gc", "list"), []),
        (("gc", "show"), ["dropTolerance"]),
    ):
        told = stage.quorate(*arguments)
        assert all(word in told for word in words), f"{arguments}: {told}"
    leader = stage.cluster.wait_healthy()
    for node in stage.cluster.nodes:
        rows = got(f"{node.http}/api/v1/segments?collection={NAME}&state=Flushed")["rows"]
        assert {row["segment"] for row in rows} == {row["segment"] for row in segments}, rows
        config = got(f"{node.http}/api/v1/config")
        assert config["dataCoord.compaction.check.interval"] == "1", config
        # Dashboards sum over all nodes.
        with urllib.request.urlopen(f"{node.http}/metrics", timeout=10) as page:
            exports = b"milvus_datacoord_segment_num" in page.read()
        assert exports == (node is leader), f"{node.http}: {exports}"
    return segments


def check_compaction(stage, segments):
    """Asked over HTTP of a node that does not lead; paused, so that it can be looked at."""
    leader = stage.cluster.wait_healthy()
    follower = next(node for node in stage.cluster.nodes if node is not leader)
    stage.quorate("compactions", "pause")
    told = got(f"{follower.http}/api/v1/compaction", {"collection": NAME}, follow=True)
    assert "msg" in told, told
    queued = listed(stage, "compactions")[0]
    assert queued["state"] == "queued", queued
    explained = stage.quorate("explain", "compaction", queued["plan"])
    stage.say(f"a compaction while they are paused:\n{explained.rstrip()}")
    assert "paused" in explained, explained
    stage.quorate("compactions", "cancel", queued["plan"])
    assert listed(stage, "compactions", "--state", "cancelled"), listed(stage, "compactions")
    stage.quorate("compactions", "resume")
    stage.quorate("compact", NAME)
    wait(lambda: listed(stage, "compactions", "--state", "synced"), "a compaction is done")
    healthy = listed(stage, "segments", "--collection", NAME, "--state", "Flushed")
    assert len(healthy) == 1, healthy
    assert healthy[0]["segment"] not in {segment["segment"] for segment in segments}, healthy


def check_garbage(stage):
    node = stage.cluster.nodes[0]
    pages = f"{node.http}/management/datacoord/garbage_collection"
    stage.quorate("gc", "pause", "--for", "1h")
    assert "paused until" in notes_of_garbage(stage)
    stage.quorate("gc", "resume")
    assert notes_of_garbage(stage) == ""
    assert got(f"{pages}/pause?pause_seconds=60", follow=True) == {"msg": "OK"}
    assert "paused until" in notes_of_garbage(stage)
    assert got(f"{pages}/resume", follow=True) == {"msg": "OK"}
    assert notes_of_garbage(stage) == ""


def notes_of_garbage(stage):
    return "".join(json.loads(stage.quorate("gc", "show", "-o", "json"))["notes"])


def check_bad_questions(stage):
    for arguments, words in (
        (("segments", "show", UNKNOWN), [str(UNKNOWN)]),
        (("segments", "list", "--collection", "none"), ["none"]),
        (("segments", "list", "--state", "Asleep"), ["Asleep"]),
        (("explain", "channel", "nowhere"), ["nowhere"]),
        (("compactions", "cancel", UNKNOWN), [str(UNKNOWN)]),
        (("channels", "drain", UNKNOWN), [str(UNKNOWN)]),
        (("compact", "none"), ["none"]),
    ):
        done = subprocess.run(
            [stage.options.binary, *(str(one) for one in arguments),
             "--endpoints", stage.cluster.endpoints],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode != 0, f"{arguments}: {done.stdout}"
        assert all(word in done.stderr for word in words), f"{arguments}: {done.stderr}"
        stage.say(f"{' '.join(str(one) for one in arguments)}: {done.stderr.strip()}")
    http = stage.cluster.nodes[0].http
    for path, code in ((f"/api/v1/segments/{UNKNOWN}", 404), ("/api/v1/none", 404),
                       ("/api/v1/segments?state=Asleep", 400),
                       ("/management/datacoord/garbage_collection/pause?pause_seconds=-1", 400)):
        try:
            told = got(http + path, follow=True)
        except urllib.error.HTTPError as error:
            assert error.code == code, f"{path}: {error.code}"
        else:
            raise AssertionError(f"{path}: {told}")


def listed(stage, things, *filters):
    return json.loads(stage.quorate(things, "list", *filters, "-o", "json"))["rows"]


def got(url, body=None, follow=False):
    """The JSON at an address. `follow`: it may be the leader's affair (307), which is asked then."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data,
                                     headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as page:
            return json.load(page)
    except urllib.error.HTTPError as error:
        if follow and error.code == 307:
            return got(error.headers["Location"], body)
        raise


def wait(holds, what):
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.2)
