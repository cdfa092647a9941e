"""Milvus is stopped (SIGSTOP): for less than its sessions live, then for longer. The cluster and the
coordinator go on and say what is wrong; afterwards every row is there once."""

import signal
import time

from coordinator import invariants, script
from coordinator.invariants import Rows
from coordinator.ledger import Ledger
from coordinator.object_store import explain, leader_http, metric
from standalone import READY_S

SESSION_S = 10
SETTINGS = {"common.session.ttl": SESSION_S}
# A data node is taken for silent after ten seconds.
SHORT_S = 6
LONG_S = {"small": 30, "full": 300}
BACK_S = 60


def run(stage):
    ledger = Ledger(stage, "frozen")
    fill(ledger)
    stop(stage, ledger, SHORT_S)
    fill(ledger)
    ledger.flush()
    fill(ledger)
    stop(stage, ledger, LONG_S[stage.options.size])
    ledger.check_calls()
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"frozen": Rows(len(ledger.live), ledger.inserted)})


def fill(ledger):
    for _ in range(3):
        ledger.insert(500)
        ledger.delete(50)


def stop(stage, ledger, seconds):
    channel = next(iter(ledger.channels))
    stage.milvus.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    while time.monotonic() < stopped + seconds:
        assert leader_http(stage)
        assert metric(stage, "quorate_coordinator_is_leading") == 1
        time.sleep(1)
    explained = explain(stage, channel)
    if seconds > SESSION_S:
        assert "WAITS" in explained, f"a data node that hangs is not seen: {explained}"
    stage.milvus.process.send_signal(signal.SIGCONT)
    stage.say(f"stopped for {seconds} s; then: {explained[:300]}")
    await_milvus(stage)


def await_milvus(stage):
    """It may end, because its sessions are gone: then it is started again."""
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline and stage.milvus.process.poll() is None:
        try:
            stage.milvus.wait_ready(5)
            if not stage.cluster.coordinator_session():
                continue
            time.sleep(SESSION_S)
            if stage.milvus.process.poll() is None:
                return
        except AssertionError:
            pass
    stage.milvus.kill()
    # What the first life said at its end is no word of the second.
    stage.milvus.log_path += ".again"
    stage.milvus.start(READY_S)
    stage.say("Milvus ended, as it does without its sessions, and was started again")
