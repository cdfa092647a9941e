"""A second data node, which consumes nothing: it has a session, says of every channel what it was
told, and takes compactions without ever finishing them."""

import json
import threading
import time
from concurrent import futures

import grpc

from coordinator import metastore

# As long as the ids that Milvus's processes are given, and far above them.
NODE = 1900001
TTL_S = 600
TO_WATCH, WATCHED, TO_RELEASE, RELEASED = 2, 3, 5, 6
EXECUTING, COMPLETED = 1, 2


class DataNode:
    """Use it in `with`; `lose` ends its session."""

    def __init__(self, stage):
        self.stage = stage
        self.messages = stage.messages
        self.session = f"{metastore.META}session/datanode-{NODE}"
        self.plans = {}
        self.acknowledges = threading.Event()
        self.acknowledges.set()
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
            "milvus.proto.data.DataNode", {
                "Compaction": self.handler(self.compaction, "data.CompactionPlan"),
                "GetCompactionState": self.handler(self.state, "data.CompactionStateRequest"),
                "FlushSegments": self.handler(self.status, "data.FlushSegmentsRequest"),
                "SyncSegments": self.handler(self.status, "data.SyncSegmentsRequest"),
            })])
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def handler(self, method, request):
        return grpc.unary_unary_rpc_method_handler(
            lambda message, _context: method(message),
            request_deserializer=self.messages[request].FromString,
            response_serializer=lambda message: message.SerializeToString())

    def __enter__(self):
        self.server.start()
        self.thread.start()
        granted = self.stage.cluster.etcdctl("lease", "grant", str(TTL_S), "-w", "json")
        assert granted.returncode == 0, granted.stderr
        lease = json.loads(granted.stdout)["ID"]
        session = {"ServerID": NODE, "ServerName": "datanode", "Address": self.address,
                   "TriggerKill": True, "Version": "2.3.5", "IndexEngineVersion": {},
                   "LeaseID": lease}
        put = self.stage.cluster.etcdctl("put", self.session, json.dumps(session),
                                         f"--lease={lease:x}")
        assert put.returncode == 0, put.stderr
        return self

    def __exit__(self, kind, error, trace):
        self.stopping.set()
        self.thread.join(timeout=10)
        self.server.stop(grace=None)

    def lose(self):
        """It is gone for everybody, and does not know it yet."""
        self.acknowledges.clear()
        self.stage.cluster.delete(self.session)

    def status(self, _request=None):
        return self.messages["common.Status"]()

    def compaction(self, plan):
        self.plans[plan.planID] = plan
        return self.status()

    def state(self, _request):
        results = [{"planID": plan, "state": EXECUTING} for plan in self.plans]
        return self.messages["data.CompactionStateResponse"](results=results)

    def follow(self):
        """Acknowledges what it is told of channels, as long as it is alive."""
        prefix = f"{metastore.META}channelwatch/{NODE}/"
        answers = {TO_WATCH: WATCHED, TO_RELEASE: RELEASED}
        for event in self.stage.history.follow(self.stopping):
            if not event.key.startswith(prefix) or event.value is None:
                continue
            info = self.messages.decode("data.ChannelWatchInfo", event.value)
            if info.state in answers and self.acknowledges.is_set():
                info.state = answers[info.state]
                self.put(event.key, info.SerializeToString())

    def put(self, key, value):
        """Values are bytes, which etcdctl takes on its standard input only as text."""
        request = self.messages["etcdserverpb.PutRequest"](key=key.encode(), value=value)
        with grpc.insecure_channel(self.stage.cluster.nodes[0].endpoint) as channel:
            channel.unary_unary(
                "/etcdserverpb.KV/Put",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=self.messages["etcdserverpb.PutResponse"].FromString,
            )(request, timeout=10)


def wait_owner(stage, channels, node, seconds=60):
    """Until these channels are watched by a node, or by any but the simulated one (`None`)."""
    deadline = time.monotonic() + seconds
    while True:
        watches = {key.split("/")[2]: (int(key.split("/")[1]), record.state)
                   for key, record in stage.metastore().below("channelwatch/").items()}
        found = [watches.get(channel, (None, None)) for channel in channels]
        if all(state == WATCHED and (owner == node if node else owner != NODE)
               for owner, state in found):
            return
        assert time.monotonic() < deadline, f"channels are {found}"
        time.sleep(0.1)
