"""Everything that was ever written below a prefix, in order, from an etcd watch."""

import base64
import json
import os
import subprocess
import time
from dataclasses import dataclass

CAUGHT_UP_S = 60


@dataclass(frozen=True)
class Event:
    revision: int
    key: str
    # None where the key was deleted.
    value: bytes | None


class History:
    """`etcdctl watch` from the first revision on, so that it may start at any time; it finds
    another node by itself when its own is killed."""

    def __init__(self, cluster, folder, prefix="by-dev/"):
        self.cluster = cluster
        self.prefix = prefix
        self.path = os.path.join(folder, "history.json")
        self.errors = os.path.join(folder, "history.log")
        self.process = None

    def start(self):
        with open(self.path, "wb") as out, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                ["etcdctl", "--endpoints", self.cluster.endpoints, "watch", "--prefix",
                 self.prefix, "--rev", "1", "-w", "json"],
                env={**os.environ, "ETCDCTL_API": "3"},
                stdin=subprocess.PIPE, stdout=out, stderr=errors,
            )

    def events(self):
        """Everything up to now: a marker is written, and waited for."""
        marker = f"{self.prefix}quorate-test-marker"
        value = f"{time.monotonic_ns()}"
        self.cluster.put(marker, value)
        self.cluster.delete(marker)
        deadline = time.monotonic() + CAUGHT_UP_S
        while True:
            found = self.read()
            if any(e.key == marker and e.value == value.encode() for e in found):
                return [event for event in found if event.key != marker]
            assert self.process.poll() is None, self.last_words()
            assert time.monotonic() < deadline, f"watch does not come along: {self.last_words()}"
            time.sleep(0.1)

    def follow(self, stopping):
        """Every event from now on, as soon as the watch tells it, until `stopping` is set."""
        with open(self.path, encoding="utf-8") as file:
            file.seek(0, os.SEEK_END)
            part = ""
            while not stopping.is_set():
                part += file.readline()
                if not part.endswith("\n"):
                    time.sleep(0.002)
                    continue
                for event in json.loads(part).get("Events") or []:
                    yield event_of(event)
                part = ""

    def read(self):
        events = []
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n"):
                    break
                for event in json.loads(line).get("Events") or []:
                    events.append(event_of(event))
        return events

    def last_words(self):
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            return f"the watch said: {file.read()[-500:]}"

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def event_of(event):
    record = event["kv"]
    # Puts have type 0, which is left out.
    gone = event.get("type", 0) in (1, "DELETE")
    value = None if gone else base64.b64decode(record.get("value", ""))
    return Event(record["mod_revision"], base64.b64decode(record["key"]).decode(), value)
