"""One run of a coordinator scenario: starts everything, hands it to the scenario, proves afterwards
who was DataCoord and that nothing broke."""

import importlib
import logging
import os
import subprocess
import time
from dataclasses import dataclass

from coordinator import metastore, standby
from descriptors import Messages
from history import History
from nodes import Cluster
from standalone import READY_S, Standalone
from workload import Calls


@dataclass
class Stage:
    """What a scenario works with."""

    options: object
    folder: str
    cluster: Cluster
    milvus: Standalone
    messages: Messages
    history: History
    calls: Calls
    # From the start of Milvus until it answers.
    ready_s: float = 0.0
    # What a scenario has in the place of the folder of objects.
    store: object = None

    @property
    def small(self):
        return self.options.size == "small"

    @property
    def ours(self):
        return self.options.coordinator == "quorate"

    def metastore(self):
        return metastore.read(self.cluster, self.messages)

    def call(self, method, request, answer, **fields):
        """Asks whoever is DataCoord now; `request` and `answer` are names of messages."""
        address = self.cluster.coordinator_session()["Address"]
        return standby.call(address, f"data.DataCoord/{method}", self.messages[request](**fields),
                            self.messages[answer])

    def quorate(self, *arguments, timeout=120):
        """What a command prints that must succeed."""
        done = subprocess.run(
            [self.options.binary, *(str(one) for one in arguments),
             "--endpoints", self.cluster.endpoints],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"quorate {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def say(self, text):
        print(f"  {text}", flush=True)

    def write(self, name, text):
        """A result of the run, where the caller wants them."""
        if self.options.out:
            os.makedirs(self.options.out, exist_ok=True)
            with open(os.path.join(self.options.out, name), "w", encoding="utf-8") as file:
                file.write(text)


def run(options, folder, name):
    scenario = importlib.import_module(f"coordinator.{name}")
    ours = options.coordinator == "quorate"
    # pymilvus tells of every attempt that it repeats; what it raises in the end is enough.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    started = time.monotonic()
    settings = {
        "dataCoord.enableActiveStandby": ours,
        "common.storageType": "local",
        **scenario.SETTINGS,
    }
    milvus = Standalone(os.path.join(folder, "milvus"), Cluster.endpoints, settings,
                        getattr(scenario, "LOGIN", None))
    from_the_start = ours and not getattr(scenario, "STARTS_WITH_STOCK", False)
    cluster = Cluster(options.kind, options.binary, folder,
                      milvus.config_path if from_the_start else None)
    messages = Messages()
    history = History(cluster, folder)
    stage = Stage(options, folder, cluster, milvus, messages, history, Calls())
    print(f"scenario {options.scenario}, {options.coordinator}'s coordinator on {options.kind},"
          f" seed {options.seed}", flush=True)
    try:
        cluster.start()
        if getattr(scenario, "HISTORY", True):
            history.start()
        if hasattr(scenario, "prepare"):
            scenario.prepare(stage)
        milvus_started = time.monotonic()
        milvus.start(getattr(scenario, "READY_S", READY_S))
        stage.ready_s = time.monotonic() - milvus_started
        print(f"milvus is ready after {stage.ready_s:.1f} s", flush=True)
        scenario.run(stage)
        check_end(stage, standby_all_along=from_the_start)
    finally:
        print(stage.calls.report(), flush=True)
        history.stop()
        milvus.stop()
        cluster.stop()
    took = time.monotonic() - started
    print(f"scenario {options.scenario} with {options.coordinator}'s coordinator on {options.kind}:"
          f" passed in {took:.0f} s", flush=True)


def check_end(stage, standby_all_along):
    stage.milvus.check_alive()
    for node in stage.cluster.nodes:
        node.check_alive()
    if standby_all_along:
        tenures = standby.check(stage.history.events(), stage.cluster.coordinators())
        standby.check_built_in(stage.messages, stage.milvus.log_lines())
        stage.say(f"the built-in DataCoord stayed in standby through {tenures} tenures of ours")
    if stage.options.kind == "quorate":
        stage.say(f"views of all three nodes are whole and equal: {stage.cluster.check_views()}")
