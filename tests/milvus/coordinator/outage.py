"""The leader hangs for a while, then two of three nodes are gone, then all three: Milvus's calls
wait or are refused, and work resumes by itself; nothing is lost. What does not need a majority is
still answered."""

import signal
import time

import grpc
from pymilvus import MilvusException

from coordinator import invariants, script, standby
from coordinator.invariants import Rows
from coordinator.ledger import Ledger, Workers

SETTINGS = {"dataCoord.compaction.check.interval": 1}
DOWN_S = 8
RESUMED_S = 60
HANGS_S = 5
# A stock client that holds on to a connection which it closed itself repeats for 53 s.
FLUSHED_S = 20


def run(stage):
    ledger = Ledger(stage, "ledger")
    # Without a majority a stock client may give up, after its ten attempts.
    steps = [(patient(ledger, step), pause_s) for step, pause_s in (
        (ledger.insert, 0.05), (ledger.delete, 0.2), (ledger.flush, 5.0))]
    with Workers(*steps) as workers:
        workers.go_on(5)
        hang(stage, workers, ledger)
        for count in (2, 3):
            outage(stage, workers, ledger, count)
    stage.say(f"{len(ledger.failed)} calls were given up")
    ledger.check_rows()
    script.wait_quiet(stage)
    invariants.check_all(stage, {"ledger": Rows(len(ledger.live), ledger.inserted)})


def patient(ledger, step):
    """Goes on after a call that failed; what an insert left then is not known."""
    def attempt():
        try:
            step()
        except MilvusException:
            if step == ledger.insert:
                ledger.give_up()
    return attempt


def hang(stage, workers, ledger):
    """A leader that stops in the middle of calls, and finds itself deposed."""
    leader = stage.cluster.wait_healthy()
    ledger.made.clear()
    leader.process.send_signal(signal.SIGSTOP)
    workers.go_on(HANGS_S)
    leader.process.send_signal(signal.SIGCONT)
    back = time.monotonic()
    while not any(what == "flush" and started > back for what, started, _ in ledger.made):
        assert time.monotonic() - back < RESUMED_S, f"no flush within {RESUMED_S} s"
        workers.go_on(0.1)
        if workers.stopping.is_set():
            return
    longest = max(seconds for what, _, seconds in ledger.made if what == "flush")
    stage.say(f"{leader.name} hung for {HANGS_S} s: {ledger.pauses()}")
    assert longest < FLUSHED_S, f"a flush took {longest:.1f} s"


def outage(stage, workers, ledger, count):
    leader = stage.cluster.wait_healthy()
    followers = [node for node in stage.cluster.nodes if node is not leader]
    gone = [leader, *followers][:count]
    for node in gone:
        node.kill()
    down = time.monotonic()
    if count == 2:
        check_without_majority(stage, followers[-1])
    workers.go_on(DOWN_S - (time.monotonic() - down))
    for node in gone:
        node.start()
    stage.cluster.wait_healthy()
    back = time.monotonic()
    before = ledger.inserted
    while ledger.inserted == before and not workers.stopping.is_set():
        assert time.monotonic() - back < RESUMED_S, f"no insert within {RESUMED_S} s"
        workers.go_on(0.01)
    stage.say(f"{count} nodes were down for {back - down:.1f} s; the next insert was done"
              f" {time.monotonic() - back:.1f} s after they were back; {ledger.pauses()}")


def check_without_majority(stage, node):
    listed = stage.cluster.etcdctl("get", "--prefix", "by-dev/meta/session/", "--consistency=s",
                                   "--keys-only", endpoints=node.endpoint)
    assert listed.returncode == 0 and "session" in listed.stdout, listed.stderr
    if stage.ours:
        try:
            answer = standby.call(node.coordinator, "data.DataCoord/GetSegmentInfo",
                                  stage.messages["data.GetSegmentInfoRequest"](),
                                  stage.messages["data.GetSegmentInfoResponse"])
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, f"{node.coordinator}: {error}"
        else:
            raise AssertionError(f"without a majority {node.name} answers {answer}")
    stage.say(f"{node.name} alone answers serializable reads, and nothing else")
