"""Three nodes that keep Milvus's metadata: Quorate's, or stock etcd's as the harness's oracle."""

import base64
import json
import os
import signal
import subprocess
import time
import urllib.request

# A network namespace of their own, so the ports are free and nothing else listens there.
CLIENT_PORTS = (2379, 12379, 22379)
READY_S = 60
SESSION_OF_DATACOORD = "by-dev/meta/session/datacoord"


class Node:
    """One process; killed with SIGKILL and started again on the same directory. With
    `milvus_config` (quorate only) it is a coordinator of Milvus as well."""

    def __init__(self, kind, binary, name, folder, client_port, initial_cluster, milvus_config):
        self.name = name
        # Not 13333: the standby of a standalone Milvus listens there.
        self.coordinator = f"127.0.0.1:{client_port + 3}"
        self.endpoint = f"127.0.0.1:{client_port}"
        self.http = f"http://127.0.0.1:{client_port + 2}"
        self.log_path = os.path.join(folder, f"{name}.log")
        data_dir = os.path.join(folder, name)
        peer_port = client_port + 1
        if kind == "quorate":
            self.argv = [
                binary, "serve", "--name", name, "--data-dir", data_dir,
                "--listen-client", self.endpoint,
                "--listen-peer", f"127.0.0.1:{peer_port}",
                "--listen-http", f"127.0.0.1:{client_port + 2}",
                "--initial-cluster", ",".join(f"{n}=127.0.0.1:{p + 1}" for n, p in initial_cluster),
            ]
            if milvus_config:
                self.take_role(milvus_config)
        else:
            assert not milvus_config, "etcd is no coordinator"
            self.argv = [
                binary, "--name", name, "--data-dir", data_dir,
                "--listen-client-urls", f"http://{self.endpoint}",
                "--advertise-client-urls", f"http://{self.endpoint}",
                "--listen-peer-urls", f"http://127.0.0.1:{peer_port}",
                "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer_port}",
                "--initial-cluster",
                ",".join(f"{n}=http://127.0.0.1:{p + 1}" for n, p in initial_cluster),
                "--initial-cluster-state", "new",
                # A channel's record names all of its segments, and one transaction has several.
                "--max-request-bytes", str(32 << 20),
            ]
        self.process = None

    def take_role(self, milvus_config):
        """From its next start on."""
        self.argv += ["--coordinator", "datacoord", "--listen-coordinator", self.coordinator,
                      "--milvus-config", milvus_config]

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def check_alive(self):
        code = self.process.poll()
        assert code is None, f"{self.name} ended by itself with {code}; see {self.log_path}"


class Cluster:
    """The three, and what `etcdctl` says of them."""

    endpoints = ",".join(f"127.0.0.1:{port}" for port in CLIENT_PORTS)

    def __init__(self, kind, binary, folder, milvus_config=None):
        names = list(zip(("n1", "n2", "n3"), CLIENT_PORTS))
        self.nodes = [Node(kind, binary, name, folder, port, names, milvus_config)
                      for name, port in names]
        self.coordinates = bool(milvus_config)

    def start(self):
        for node in self.nodes:
            node.start()
        self.wait_healthy()
        if self.coordinates:
            self.wait_coordinator()

    def take_role(self, milvus_config):
        """Starts all nodes again, as coordinators of Milvus instead of whoever was it before."""
        self.kill_all()
        self.coordinates = True
        for node in self.nodes:
            node.take_role(milvus_config)
            node.start()
        self.wait_healthy()
        self.wait_coordinator()

    def wait_coordinator(self):
        """Until our session is there: a Milvus that starts earlier takes the role itself."""
        deadline = time.monotonic() + READY_S
        while True:
            session = self.coordinator_session()
            if session is not None and session["Address"] in self.coordinators():
                return
            for node in self.nodes:
                node.check_alive()
            assert time.monotonic() < deadline, f"DataCoord is {session} after {READY_S} s"
            time.sleep(0.1)

    def coordinators(self):
        return {node.coordinator for node in self.nodes}

    def coordinator_session(self):
        """Whose turn it is to be DataCoord, or None."""
        found = self.get(SESSION_OF_DATACOORD)
        return json.loads(found) if found else None

    def get(self, key):
        listed = self.etcdctl("get", key, "-w", "json")
        assert listed.returncode == 0, listed.stderr
        rows = json.loads(listed.stdout).get("kvs", [])
        return base64.b64decode(rows[0]["value"]) if rows else None

    def put(self, key, value):
        """`value`: text, or bytes."""
        value = value.encode() if isinstance(value, str) else value
        done = self.etcdctl("put", key, value=value)
        assert done.returncode == 0, done.stderr

    def delete(self, key):
        done = self.etcdctl("del", key)
        assert done.returncode == 0, done.stderr

    def read(self, prefix):
        """Every key and value below a prefix, of one revision."""
        listed = self.etcdctl("get", "--prefix", prefix, "-w", "json")
        assert listed.returncode == 0, listed.stderr
        return {base64.b64decode(row["key"]).decode(): base64.b64decode(row.get("value", ""))
                for row in json.loads(listed.stdout).get("kvs", [])}

    def kill_all(self):
        for node in self.nodes:
            node.process.send_signal(signal.SIGKILL)
        for node in self.nodes:
            node.process.wait()

    def etcdctl(self, *arguments, endpoints=None, value=b""):
        """`value` is what a `put` without one writes."""
        done = subprocess.run(
            ["etcdctl", "--endpoints", endpoints or self.endpoints, "--dial-timeout", "2s",
             "--command-timeout", "5s", *arguments],
            env={**os.environ, "ETCDCTL_API": "3"},
            input=value, capture_output=True, timeout=60, check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(),
                                           done.stderr.decode())

    def statuses(self):
        """Status of every running node that answers, by its endpoint. The others are not asked: one
        that is down would hold up the answer of all."""
        found = {}
        for node in self.nodes:
            if node.process.poll() is not None:
                continue
            listed = self.etcdctl("endpoint", "status", "-w", "json", endpoints=node.endpoint)
            try:
                rows = json.loads(listed.stdout or "[]") or []
            except json.JSONDecodeError:
                rows = []
            found.update({row["Endpoint"]: row["Status"] for row in rows})
        return found

    def leader(self):
        """The node that all who answer call their leader, or None."""
        leaders = set()
        leading = None
        for endpoint, status in self.statuses().items():
            leaders.add(status.get("leader", 0))
            if status.get("leader", 0) == status["header"]["member_id"]:
                leading = endpoint
        if len(leaders) != 1 or leading is None:
            return None
        return next(node for node in self.nodes if node.endpoint == leading)

    def wait_healthy(self):
        """Until every node answers and all name one leader. Returns the leader."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for node in self.nodes:
                node.check_alive()
            if len(self.statuses()) == len(self.nodes):
                leader = self.leader()
                if leader is not None:
                    return leader
            time.sleep(0.1)
        raise AssertionError(f"no healthy cluster within {READY_S} s")

    def sessions(self):
        """Milvus's session keys with their create revisions: unchanged while no component ended."""
        listed = self.etcdctl("get", "--prefix", "by-dev/meta/session/", "-w", "json")
        assert listed.returncode == 0, listed.stderr
        rows = json.loads(listed.stdout).get("kvs", [])
        return {row["key"]: row["create_revision"] for row in rows}

    def views(self):
        """What each of our nodes makes of Milvus's records."""
        pages = []
        for node in self.nodes:
            with urllib.request.urlopen(f"{node.http}/debug/views", timeout=10) as page:
                pages.append(json.load(page))
        return pages

    def check_views(self):
        """Every node understands every record of a running Milvus, and all see the same."""
        deadline = time.monotonic() + READY_S
        while True:
            pages = self.views()
            seen = [(page["rows"], page["sessions"], page["channels"]) for page in pages]
            # Milvus goes on writing, so a node may be one entry ahead.
            if all(one == seen[0] for one in seen) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert all(one == seen[0] for one in seen), f"nodes see different things: {seen}"
        for page in pages:
            assert page["undecodable"] == [], page["undecodable"]
            assert page["drift"] == [], page["drift"]
        # One key below `session/` is the counter of ids.
        assert len(pages[0]["sessions"]) == len(self.sessions()) - 1, pages[0]["sessions"]
        return pages[0]["rows"]

    def stop(self):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()
