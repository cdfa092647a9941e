"""Who was DataCoord all along: the proof that the built-in one never became active."""

import json

import grpc

SESSION = "by-dev/meta/session/datacoord"
STANDBY = 3
BUILT_IN = "127.0.0.1:13333"


def check(events, coordinators):
    """Every session that was ever written is one of ours, and none was deleted: in the moment
    between, the standby would step in. Returns how many tenures there were."""
    sessions = [event for event in events if event.key == SESSION]
    assert sessions, "nobody ever was DataCoord"
    tenures = []
    for event in sessions:
        assert event.value is not None, f"the session was deleted at revision {event.revision}"
        session = json.loads(event.value)
        assert session["Address"] in coordinators, f"a stranger was DataCoord: {session}"
        if session["ServerID"] not in tenures:
            tenures.append(session["ServerID"])
    return len(tenures)


def check_built_in(messages, log_lines):
    """The built-in DataCoord says itself that it waits, and its log tells of nothing else."""
    state = call(BUILT_IN, "data.DataCoord/GetComponentStates",
                 messages["milvus.GetComponentStatesRequest"](), messages["milvus.ComponentStates"])
    assert state.state.state_code == STANDBY, f"the built-in DataCoord is active: {state}"
    active = [line for line in log_lines if "DataCoord" in line and "startup success" in line]
    assert not active, f"the built-in DataCoord was active: {active[0][:400]}"


def call(address, method, request, answer, timeout=10, metadata=None):
    """One call to a coordinator by the name of its method."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        invoke = channel.unary_unary(
            f"/milvus.proto.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return invoke(request, timeout=timeout, metadata=metadata)
