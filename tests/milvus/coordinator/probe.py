"""Our own client of AssignSegmentID, which follows the session key: how long nobody gets a row."""

import json
import statistics
import threading
import time

import grpc

from coordinator.standby import SESSION

CALL_S = 0.5
BETWEEN_S = 0.01


class Probe:
    """Asks for one row again and again. After an error it looks at once who is DataCoord now; a
    stock client waits longer every time."""

    def __init__(self, stage, name):
        self.messages = stage.messages
        self.nodes = [node.endpoint for node in stage.cluster.nodes]
        store = stage.metastore()
        collection = store.collection(name)
        record = store.collections[collection]
        partition = min(one.partitionID for one in store.partitions.values()
                        if one.collection_id == collection)
        self.request = self.messages["data.AssignSegmentIDRequest"](
            nodeID=1, peer_role="probe", segmentIDRequests=[{
                "count": 1, "channel_name": record.virtual_channel_names[0],
                "collectionID": collection, "partitionID": partition}])
        # (sent, acknowledged) by the monotonic clock.
        self.answered = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.channels = {}

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.stopping.set()
        self.thread.join(timeout=30)

    def run(self):
        while not self.stopping.is_set():
            address = self.session()
            while address and not self.stopping.is_set():
                sent = time.monotonic()
                if not self.assigned(address):
                    break
                self.answered.append((sent, time.monotonic()))
                self.stopping.wait(BETWEEN_S)
            self.stopping.wait(BETWEEN_S)

    def assigned(self, address):
        try:
            answer = self.call(address, "/milvus.proto.data.DataCoord/AssignSegmentID",
                               self.request, "data.AssignSegmentIDResponse")
        except grpc.RpcError:
            self.forget(address)
            return False
        return answer.status.code == 0 and answer.status.error_code == 0 \
            and any(one.segID and one.count for one in answer.segIDAssignments)

    def session(self):
        """The address in the session key, from whichever node answers."""
        request = self.messages["etcdserverpb.RangeRequest"](key=SESSION.encode())
        for node in self.nodes:
            try:
                answer = self.call(node, "/etcdserverpb.KV/Range", request,
                                   "etcdserverpb.RangeResponse")
            except grpc.RpcError:
                self.forget(node)
                continue
            return json.loads(answer.kvs[0].value)["Address"] if answer.kvs else None
        return None

    def call(self, address, method, request, answer):
        channel = self.channels.get(address)
        if channel is None:
            channel = self.channels[address] = grpc.insecure_channel(address)
        invoke = channel.unary_unary(
            method, request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.messages[answer].FromString)
        return invoke(request, timeout=CALL_S)

    def forget(self, address):
        """A channel that failed backs off; a new one tries at once."""
        channel = self.channels.pop(address, None)
        if channel is not None:
            channel.close()

    def gaps_ms(self, kills):
        """From each kill to the first answer to what was asked after it."""
        gaps = []
        for killed in kills:
            later = [done for sent, done in self.answered if sent > killed]
            assert later, "nothing was assigned after the last kill"
            gaps.append((later[0] - killed) * 1000)
        return gaps


def told(gaps):
    return (f"median {statistics.median(gaps):.0f} ms, longest {max(gaps):.0f} ms of"
            f" {', '.join(f'{gap:.0f}' for gap in gaps)}")
