"""SIGKILL for leaders, while something else goes on."""

import random
import threading
import time


class LeaderKiller:
    """Kills the leader with SIGKILL `times` times, each when all three are well again and some
    seconds have passed; how many is drawn from the seed."""

    def __init__(self, cluster, times, down_s=2.0, seed=20241, between_s=(4.0, 4.0)):
        self.cluster = cluster
        self.times = times
        self.down_s = down_s
        self.draw = random.Random(seed)
        self.between_s = between_s
        # Of the monotonic clock, for who wants to know what a kill did to his calls.
        self.moments = []
        self.killed = 0
        self.gaps_ms = []
        self.error = None
        # Who holds it is not disturbed by a kill.
        self.hold = threading.Lock()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.stopping.set()
        self.thread.join(timeout=300)
        if self.error is not None and error is None:
            raise self.error

    @property
    def done(self):
        return self.killed >= self.times or self.error is not None

    def run(self):
        try:
            while self.killed < self.times and not self.stopping.is_set():
                self.kill_one()
                # Milvus's own rhythm, not a hope: spreads the kills over the steps of the run.
                self.stopping.wait(self.draw.uniform(*self.between_s))
        except BaseException as error:
            self.error = error

    def kill_one(self):
        leader = self.cluster.wait_healthy()
        with self.hold:
            leader.kill()
        self.killed += 1
        started = time.monotonic()
        self.moments.append(started)
        print(f"  killed the leader {leader.name} ({self.killed} of {self.times})", flush=True)
        while self.cluster.leader() is None and time.monotonic() - started < 30:
            time.sleep(0.02)
        self.gaps_ms.append((time.monotonic() - started) * 1000)
        self.stopping.wait(max(0.0, self.down_s - (time.monotonic() - started)))
        leader.start()
        self.cluster.wait_healthy()
