"""The real Milvus 2.3.5 as one process, its metadata on an external etcd API."""

import lzma
import os
import re
import signal
import subprocess
import time

import milvus
from pymilvus import connections, utility

from settings import with_settings

READY_S = 180
WHEEL = os.path.join(os.path.dirname(milvus.__file__), "data", "bin")
# A component that cannot go on says one of these before it ends the process.
DEADLY = re.compile(r"\[FATAL\]|^panic:|\[PANIC\]|goroutine \d+ \[running\]|fatal error:")


def unpack_binaries():
    """The server and its libraries, unpacked once into the cache. Returns the folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "quorate", "milvus", milvus.__version__, "bin")
    os.makedirs(folder, exist_ok=True)
    packed = sorted(name for name in os.listdir(WHEEL) if name.endswith(".lzma"))
    for name in packed:
        path = os.path.join(folder, name.removesuffix(".lzma"))
        if os.path.exists(path):
            continue
        part = f"{path}.part{os.getpid()}"
        with lzma.open(os.path.join(WHEEL, name)) as source, open(part, "wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
        os.chmod(part, 0o755)
        os.rename(part, path)
    return folder


class Standalone:
    """Starts it, waits for it, and tells afterwards whether every component lived on.

    `settings` are dotted keys of milvus.yaml; `login` is a user and a password where RBAC is on.
    """

    def __init__(self, folder, endpoints, settings=None, login=None):
        self.folder = folder
        self.bin = unpack_binaries()
        self.log_path = os.path.join(folder, "milvus.log")
        self.config_path = os.path.join(folder, "configs", "milvus.yaml")
        self.objects = os.path.join(folder, "data")
        self.login = login
        self.process = None
        self.write_config(endpoints, settings or {})

    def write_config(self, endpoints, settings):
        config = milvus.MilvusServerConfig(data_dir=self.folder)
        config.resolve()
        components = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord",
                      "dataNode")
        settings = {
            "etcd.use.embed": False,
            "etcd.endpoints": endpoints,
            **{f"{component}.ip": "127.0.0.1" for component in components},
            **settings,
        }
        with open(self.config_path, encoding="utf-8") as file:
            text = with_settings(file.read(), settings)
        assert f"endpoints: {endpoints}" in text, "the endpoints are not in milvus.yaml"
        assert re.search(r"embed: *false", text), "the embedded etcd is not off in milvus.yaml"
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, ready_s=READY_S):
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": self.bin,
            "MILVUSCONF": os.path.join(self.folder, "configs"),
        }
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "milvus"), "run", "standalone"],
                cwd=self.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )
        self.wait_ready(ready_s)

    def wait_ready(self, ready_s):
        """A listing goes through every layer; `/healthz` would not say as much."""
        deadline = time.monotonic() + ready_s
        while True:
            self.check_running()
            try:
                self.connect("default", *(self.login or ()))
                utility.list_collections(timeout=5)
                return
            except Exception as error:  # pymilvus raises a dozen kinds while it is starting
                assert time.monotonic() < deadline, f"not ready within {ready_s} s: {error}"
                time.sleep(0.5)

    @staticmethod
    def connect(alias, user="", password=""):
        connections.connect(alias, host="127.0.0.1", port="19530", timeout=5,
                            user=user, password=password)

    def check_running(self):
        code = self.process.poll()
        assert code is None, f"milvus ended with {code}: {self.last_words()}"

    def check_alive(self):
        """The process runs and nothing in its log says that a component gave up."""
        self.check_running()
        deadly = [line for line in self.log_lines() if DEADLY.search(line)]
        assert not deadly, f"milvus gave up: {deadly[0][:600]}"

    def log_lines(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()

    def last_words(self):
        return "\n".join(line[:300] for line in self.log_lines()[-15:])

    def kill(self):
        """At once, all components of it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """At once: a drain can take minutes, and the namespace goes with it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
