"""Moments of the metastore: "when this is written", as seen by the watch."""

import threading
import time

from coordinator import metastore


class Trigger:
    """Runs `action` once, in a thread, as soon as `condition(key, record)` holds of an event; the
    record is None for a deletion, and the key is below `by-dev/meta/`."""

    def __init__(self, stage, condition, action):
        self.stage = stage
        self.condition = condition
        self.action = action
        self.stopping = threading.Event()
        self.fired = threading.Event()
        self.done = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def run(self):
        try:
            for event in self.stage.history.follow(self.stopping):
                key = event.key.removeprefix(metastore.META)
                record = None
                if event.value is not None:
                    record = metastore.decode(self.stage.messages, event.key, event.value)
                if self.condition(key, record):
                    self.fired.set()
                    self.action()
                    self.done.set()
                    return
        except BaseException as error:
            self.error = error

    def wait(self, seconds):
        deadline = time.monotonic() + seconds
        while not self.done.is_set():
            if self.error:
                raise self.error
            assert time.monotonic() < deadline, f"the moment did not come within {seconds} s"
            self.done.wait(0.1)

    def __exit__(self, kind, error, trace):
        self.stopping.set()
        self.thread.join(timeout=60)
        if self.error and error is None:
            raise self.error


def segment_in(state):
    """A segment is written in this state."""
    return lambda key, record: key.startswith("datacoord-meta/s/") and record is not None \
        and record.state == state


def result_of_compaction(key, record):
    return key.startswith("datacoord-meta/s/") and record is not None and record.createdByCompaction
