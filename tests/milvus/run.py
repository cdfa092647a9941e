"""Runs the real Milvus 2.3.5 on three nodes and checks that it cannot tell them from etcd.

    python run.py --kind quorate --binary target/release/quorate --scenario full

Everything lives in namespaces of its own (network, mounts, processes): Milvus listens on fixed
ports and on all addresses, and nothing outlives this script. Needs root or unprivileged namespaces.
"""

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from descriptors import FILE as DESCRIPTORS, compile_protos

INSIDE = "TESTS_MILVUS_INSIDE"
SESSION_TTL_S = 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("quorate", "etcd"), default="quorate")
    parser.add_argument("--binary", required=True, help="the server to run three times")
    parser.add_argument("--coordinator", choices=("stock", "quorate"), default="stock",
                        help="who is Milvus's DataCoord")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="smoke")
    parser.add_argument("--size", choices=("small", "full"), default="full",
                        help="how much the coordinator's scenarios do")
    parser.add_argument("--seed", type=int, default=20241, help="of data and of faults")
    parser.add_argument("--out", help="folder for transcript and metastore of the run")
    parser.add_argument("--segments", type=int, default=0,
                        help="on record before Milvus starts, in the scenario `bench`")
    parser.add_argument("--layout", choices=("spread", "own"), default="spread",
                        help="whose they are: collections that nobody asks for, or the one that is"
                             " written")
    parser.add_argument("--chaos", default="target/release/quorate-chaos",
                        help="the load generator of the scenario `bench`")
    parser.add_argument("--keep", action="store_true", help="keep logs and data, print where")
    options = parser.parse_args()
    if os.environ.get(INSIDE) != "1":
        with tempfile.NamedTemporaryFile(prefix="quorate-milvus-descriptors-") as file:
            os.environ[DESCRIPTORS] = file.name
            compile_protos(file.name)
            sys.exit(run_in_namespaces())
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.makedirs("/run/milvus", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run/milvus"], check=True)
    folder = tempfile.mkdtemp(prefix="quorate-milvus-")
    try:
        run_scenario(options, folder)
    except BaseException:
        print(f"FAILED; logs and data are kept in {folder}", flush=True)
        raise
    if options.keep:
        print(f"logs and data: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def run_in_namespaces():
    """Starts this script again inside, as a child; the kernel ends what it left running when it
    ends or is killed, and with it when this process is."""
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    inside = ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child",
              "--mount-proc", sys.executable, "-B", "-u", *sys.argv]
    return subprocess.call(inside, env={**os.environ, INSIDE: "1"}, preexec_fn=die_with_parent)


def die_with_parent():
    """So that who kills this script kills all of it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run_scenario(options, folder):
    scenario = SCENARIOS[options.scenario]
    if isinstance(scenario, str):
        # Only inside, because pymilvus is slow to load.
        from coordinator import stage
        stage.run(options, folder, scenario)
    else:
        run_on_metastore(options, folder, scenario)


def run_on_metastore(options, folder, scenario):
    """Milvus with its own coordinators: nothing but the metastore is ours."""
    from nodes import Cluster
    from standalone import Standalone
    from workload import Calls

    started = time.monotonic()
    cluster = Cluster(options.kind, options.binary, folder)
    cluster.start()
    print(f"three nodes of {options.kind} serve {cluster.endpoints}", flush=True)
    milvus = Standalone(os.path.join(folder, "milvus"), cluster.endpoints)
    milvus.start()
    print(f"milvus is ready after {time.monotonic() - started:.1f} s", flush=True)
    sessions = cluster.sessions()
    assert len(sessions) >= 7, f"not every component has a session: {sessions}"
    calls = Calls()
    try:
        scenario(cluster, milvus, calls)
        milvus.check_alive()
        lost = {key for key, created in sessions.items() if cluster.sessions().get(key) != created}
        assert not lost, f"components lost their session: {lost}"
        for node in cluster.nodes:
            node.check_alive()
        if options.kind == "quorate":
            print(f"views of all three nodes are whole and equal: {cluster.check_views()}",
                  flush=True)
    finally:
        print(f"{calls.report()}", flush=True)
        milvus.stop()
        cluster.stop()
    took = time.monotonic() - started
    print(f"scenario {options.scenario} on {options.kind}: passed in {took:.0f} s", flush=True)


def plain(cluster, milvus, calls):
    from workload import run
    run(calls, (2000, 3), "plain")
    milvus.check_alive()


def leader_kills(cluster, milvus, calls, times=5, size=(2000, 3)):
    from killer import LeaderKiller
    from workload import run
    with LeaderKiller(cluster, times) as killer:
        rounds = 0
        while rounds == 0 or not killer.done:
            run(calls, size, f"kills_{rounds}", between=milvus.check_running,
                creating=lambda: undisturbed(killer, milvus))
            rounds += 1
    print(f"  {killer.killed} leaders killed in {rounds} rounds; a new leader was seen after "
          + ", ".join(f"{gap:.0f}" for gap in killer.gaps_ms) + " ms", flush=True)
    milvus.check_alive()


@contextlib.contextmanager
def undisturbed(killer, milvus):
    """No kill until data nodes know that all channels are watched. A stock data node that does not
    hear that its answer was written lets go of the channel, on etcd as well, and the stock DataCoord
    never learns of it; for ours there is the scenario `lost-answer`."""
    with killer.hold:
        seen = len(milvus.log_lines())
        yield
        deadline = time.monotonic() + SESSION_TTL_S
        while unwatched(milvus.log_lines()[seen:]) > 0:
            assert time.monotonic() < deadline, "not every channel is watched"
            time.sleep(0.1)


def unwatched(lines):
    """How many commands to watch are not answered."""
    commands = sum("try to update channel watch info with ToWatch state" in line for line in lines)
    answers = sum("handle put event success" in line and "WatchSuccess" in line for line in lines)
    return commands - answers


def all_killed(cluster, milvus, calls, size=(1000, 2)):
    """All three die at once in the middle of the work, and are back within the session's time."""
    from workload import run

    def outage():
        cluster.kill_all()
        killed = time.monotonic()
        print("  killed all three nodes", flush=True)
        time.sleep(3)
        for node in cluster.nodes:
            node.start()
        cluster.wait_healthy()
        took = time.monotonic() - killed
        print(f"  all three are back after {took:.1f} s", flush=True)
        assert took < SESSION_TTL_S, "later than Milvus's session allows"

    before_step = iter(range(100))

    def between():
        milvus.check_running()
        if next(before_step) == 2:
            thread = threading.Thread(target=outage)
            thread.start()
            outages.append(thread)

    outages = []
    run(calls, size, "outage", between)
    for thread in outages:
        thread.join()
    milvus.check_alive()
    run(calls, size, "after_outage", milvus.check_running)
    # Longer than a session lives: a lease that was lost would have ended its component by now.
    deadline = time.monotonic() + SESSION_TTL_S + 5
    while time.monotonic() < deadline:
        milvus.check_alive()
        time.sleep(1)


def smoke(cluster, milvus, calls):
    leader_kills(cluster, milvus, calls, times=1, size=(500, 2))


def full(cluster, milvus, calls):
    for part in (plain, leader_kills, all_killed):
        print(f"{part.__name__}:", flush=True)
        part(cluster, milvus, calls)


SCENARIOS = {
    "smoke": smoke, "plain": plain, "leader-kills": leader_kills, "all-killed": all_killed,
    "full": full,
    # Names of modules of `coordinator`.
    "coordinator": "script", "experiments": "experiments", "faults": "faults",
    "steps": "steps", "overlap": "overlap", "restarts": "restarts", "garbage": "garbage",
    "handover": "handover", "questions": "questions", "outage": "outage", "demo": "demo",
    "bench": "bench", "moving": "moving", "lost-answer": "lost_answer",
    "lives": "lives", "operators": "operators", "expiry": "expiry",
    "object-store": "object_store", "frozen": "frozen",
}

if __name__ == "__main__":
    main()
