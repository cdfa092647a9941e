"""Everything that a user does, once: written down so that it can be compared with another server.

Leaves `transcript.txt` (what clients were told), `metastore-full.txt` and `metastore-end.txt` (what
DataCoord recorded, before and after the collections were dropped). The transcript of the small size
is kept beside this file as stock wrote it: UPDATE_EXPECT=1 with stock's coordinator renews it.
"""

import difflib
import os
import re
import time

from pymilvus import utility

from coordinator import access, imports, invariants, normalise, texts, transcript, wide
from coordinator.metastore import INDEX_FINISHED, WATCH_SUCCESS

SETTINGS = {
    "common.security.authorizationEnabled": True,
    # Plans are looked after every second, not every ten: twelve of them take their time.
    "dataCoord.compaction.check.interval": 1,
}
LOGIN = ("root", "Milvus")
QUIET_S = 90
PLACE = os.path.dirname(os.path.abspath(__file__))


def run(stage):
    said = transcript.Transcript()
    rows = 15_000 if stage.small else 200_000
    parts = [access.Access(stage, said), wide.Wide(stage, said, rows), texts.Texts(stage, said),
             imports.Imports(stage, said)]
    for part in parts:
        for step in part.steps():
            started = time.monotonic()
            said.say("step", f"{type(part).__name__}.{step.__name__}")
            step()
            stage.milvus.check_running()
            stage.say(f"{step.__name__}: {time.monotonic() - started:.1f} s")
    wait_quiet(stage)
    invariants.check_all(
        stage, {name: rows for part in parts for name, rows in part.rows().items()})
    write_metastore(stage, "metastore-full.txt")
    for part in parts:
        part.end()
    said.say("collections left", utility.list_collections())
    wait_unwatched(stage, {channel for _, channel in stage.metastore().watches()})
    write_metastore(stage, "metastore-end.txt")
    stage.write("transcript.txt", said.text())
    if stage.small:
        check_expected(stage, "transcript-small.txt", said.text())


def check_expected(stage, name, text, allowed=None):
    """Against what stock said, which is kept beside this file. `allowed`: our answers to some
    questions, where they are meant to be others."""
    path = os.path.join(PLACE, name)
    if os.environ.get("UPDATE_EXPECT") and not stage.ours:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open(path, encoding="utf-8") as file:
        expected = file.read()
    if stage.ours:
        for question, answer in (allowed or {}).items():
            expected, count = re.subn(rf"^{re.escape(question)}: .*$", f"{question}: {answer}",
                                      expected, flags=re.MULTILINE)
            assert count == 1, f"{count} questions `{question}`"
    changed = difflib.unified_diff(expected.splitlines(), text.splitlines(), "stock", "now",
                                   lineterm="", n=1)
    assert text == expected, "\n".join(["the server answers something else:", *changed])
    stage.say(f"all {len(text.splitlines())} lines are what stock answers")


def wait_quiet(stage):
    """Until nothing is under way: every segment flushed or gone, every index built, every channel
    watched."""
    deadline = time.monotonic() + QUIET_S
    while True:
        store = stage.metastore()
        busy = [segment.info.ID for segment in store.segments.values()
                if segment.info.state not in invariants.DONE]
        busy += [index.buildID for index in store.segment_indexes
                 if index.state != INDEX_FINISHED and not index.deleted
                 and index.segmentID in store.segments and store.segments[index.segmentID].healthy]
        busy += [key for key, watch in store.below("channelwatch/").items()
                 if watch.state != WATCH_SUCCESS]
        if not busy:
            return
        assert time.monotonic() < deadline, f"still under way after {QUIET_S} s: {busy}"
        time.sleep(0.5)


def wait_unwatched(stage, channels):
    """Until these channels of dropped collections have no key."""
    deadline = time.monotonic() + QUIET_S
    while left := channels.intersection(channel for _, channel in stage.metastore().watches()):
        assert time.monotonic() < deadline, f"still watched after {QUIET_S} s: {sorted(left)}"
        time.sleep(0.5)


def write_metastore(stage, name):
    found = normalise.lines(stage.messages, stage.history.events(), stage.metastore())
    stage.say(f"{name}: {len(found)} lines")
    stage.write(name, "\n".join(found) + "\n")
