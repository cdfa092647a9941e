"""Milvus's and etcd's messages as our own .proto files describe them, for Python.

`compile_protos` runs outside of the namespaces (it may install its compiler); `Messages` reads what
it wrote.
"""

import os
import subprocess
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROTOS = [os.path.join(TOP, "proto", name) for name in ("milvus", "etcd")]
FILE = "TESTS_MILVUS_DESCRIPTORS"


def compile_protos(path):
    """Writes the descriptors of Milvus's and etcd's files with protoc out of grpcio-tools."""
    environment = subprocess.run(
        [os.path.join(TOP, "tests", "venv"), "clients", "tests/clients/python/requirements.txt"],
        cwd=TOP, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.strip()
    sources = [name for root in PROTOS for name in sorted(os.listdir(root))
               if name.endswith(".proto")]
    subprocess.run(
        [os.path.join(environment, "bin", "python"), "-m", "grpc_tools.protoc",
         *(f"-I{root}" for root in PROTOS), "--include_imports", f"--descriptor_set_out={path}",
         *sources],
        cwd=TOP, check=True, stdout=sys.stderr,
    )


class Messages:
    """Message classes by their name: `messages["data.SegmentInfo"]` is one of Milvus's,
    `messages["etcdserverpb.RangeRequest"]` one of etcd's."""

    def __init__(self, path=None):
        # A pool of its own: pymilvus carries other versions of the same files.
        self.pool = descriptor_pool.DescriptorPool()
        described = descriptor_pb2.FileDescriptorSet()
        with open(path or os.environ[FILE], "rb") as file:
            described.ParseFromString(file.read())
        for one in described.file:
            self.pool.Add(one)

    def __getitem__(self, name):
        full = name if name.startswith("etcdserverpb.") else f"milvus.proto.{name}"
        descriptor = self.pool.FindMessageTypeByName(full)
        return message_factory.GetMessageClass(descriptor)

    def decode(self, name, data):
        message = self[name]()
        message.ParseFromString(data)
        return message
