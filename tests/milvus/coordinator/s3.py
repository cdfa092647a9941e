"""A store with an S3 API over a local folder, which misbehaves on request: towards our coordinator, or
towards Milvus. It knows who calls by the User-Agent, which only Milvus's libraries send."""

import hashlib
import os
import re
import threading
import time
import urllib.parse
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

BUCKET = "a-bucket"
ROOT = "files"
SERVES, HANGS, BUSY, IN_PART, FORBIDDEN = "serves", "hangs", "503", "in part", "403"
HANG_S = 600


class Store:
    """Use it in `with`. Objects below ROOT are files below `folder`."""

    def __init__(self, folder, port):
        self.folder = folder
        self.moods = {"quorate": SERVES, "milvus": SERVES}
        self.calls = {}
        self.changed = threading.Event()
        self.ahead_s = 0
        store = self

        class Handler(Calls):
            pass

        Handler.store = store
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def start(self):
        os.makedirs(self.folder, exist_ok=True)
        self.thread.start()

    def stop(self):
        self.changed.set()
        self.server.shutdown()
        self.server.server_close()

    def set(self, who, mood):
        self.moods[who] = mood
        # Those that hang are let go.
        before, self.changed = self.changed, threading.Event()
        before.set()

    def path(self, key):
        """Where an object is; no key leads out of the folder."""
        relative = key.removeprefix(f"{ROOT}/")
        path = os.path.normpath(os.path.join(self.folder, relative))
        assert path.startswith(self.folder), key
        return path

    def keys(self, prefix):
        found = []
        for place, _, names in os.walk(self.folder):
            for name in names:
                if not name.startswith(".part"):
                    path = os.path.join(place, name)
                    found.append(f"{ROOT}/{os.path.relpath(path, self.folder)}")
        return sorted(key for key in found if key.startswith(prefix))

    def now(self):
        return time.time() + self.ahead_s


class Calls(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = None

    def log_message(self, *_):
        pass

    def date_time_string(self, timestamp=None):
        return formatdate(self.store.now() if timestamp is None else timestamp, usegmt=True)

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.call
        raise AttributeError(name)

    def call(self):
        who = "milvus" if self.headers.get("User-Agent") else "quorate"
        mood = self.store.moods[who]
        self.store.calls[who, mood] = self.store.calls.get((who, mood), 0) + 1
        body = self.body()
        if mood == HANGS:
            self.store.changed.wait(HANG_S)
            self.close_connection = True
            return
        if mood in (BUSY, FORBIDDEN):
            code = "SlowDown" if mood == BUSY else "AccessDenied"
            self.answer(int(mood), f"<Error><Code>{code}</Code><Message>no</Message></Error>")
            return
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        bucket, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        if bucket != BUCKET:
            self.error(404, "NoSuchBucket")
        elif key:
            self.on_object(key, body)
        elif self.command == "GET" and "location" in query:
            self.answer(200, "<LocationConstraint></LocationConstraint>")
        elif self.command == "GET":
            self.list(query, mood)
        elif self.command == "POST" and "delete" in query:
            for name in re.findall(rb"<Key>(.*?)</Key>", body):
                self.remove(name.decode())
            self.answer(200, "<DeleteResult></DeleteResult>")
        else:
            self.answer(200, "")

    def body(self):
        """What was sent, without the signatures of its chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            sent = self.chunked()
        else:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            return b"".join(signed_chunks(sent))
        return sent

    def chunked(self):
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def on_object(self, key, body):
        path = self.store.path(key)
        if self.command == "PUT":
            copied = self.headers.get("x-amz-copy-source")
            if copied:
                source = urllib.parse.unquote(copied).lstrip("/").partition("/")[2]
                source = self.store.path(source)
                if not os.path.isfile(source):
                    self.error(404, "NoSuchKey")
                    return
                with open(source, "rb") as file:
                    body = file.read()
            self.write(path, body)
            etag = f'"{hashlib.md5(body).hexdigest()}"'
            text = f"<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>" if copied else ""
            self.answer(200, text, {"ETag": etag})
        elif self.command == "DELETE":
            self.remove(key)
            self.answer(204, "")
        elif not os.path.isfile(path):
            self.error(404, "NoSuchKey")
        else:
            self.read(path)

    def write(self, path, body):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = os.path.join(os.path.dirname(path), f".part{threading.get_ident()}")
        with open(part, "wb") as file:
            file.write(body)
        os.utime(part, (self.store.now(), self.store.now()))
        os.rename(part, path)

    def remove(self, key):
        try:
            os.remove(self.store.path(key))
        except FileNotFoundError:
            pass

    def read(self, path):
        with open(path, "rb") as file:
            content = file.read()
        headers = {
            "ETag": f'"{hashlib.md5(content).hexdigest()}"',
            "Last-Modified": formatdate(os.path.getmtime(path), usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self.answer(200, content, headers)
            return
        first = int(wanted[1])
        last = min(int(wanted[2]) if wanted[2] else len(content) - 1, len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.answer(206, content[first:last + 1], headers)

    def list(self, query, mood):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys = self.store.keys(prefix)
        if mood == IN_PART:
            keys = keys[:len(keys) // 2]
        contents, folders = [], []
        for key in keys:
            rest = key[len(prefix):]
            if delimiter and delimiter in rest:
                folder = prefix + rest[:rest.index(delimiter) + 1]
                if folder not in folders:
                    folders.append(folder)
                continue
            try:
                found = os.stat(self.store.path(key))
            except FileNotFoundError:
                continue
            modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(found.st_mtime))
            contents.append(f"<Contents><Key>{escape(key)}</Key><LastModified>{modified}"
                            f"</LastModified><ETag>&quot;1&quot;</ETag><Size>{found.st_size}</Size>"
                            "<StorageClass>STANDARD</StorageClass></Contents>")
        common = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                         for folder in folders)
        self.answer(200, '<?xml version="1.0" encoding="UTF-8"?>'
                         '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                         f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"
                         f"<KeyCount>{len(contents) + len(folders)}</KeyCount>"
                         "<MaxKeys>100000</MaxKeys><IsTruncated>false</IsTruncated>"
                         f"{''.join(contents)}{common}</ListBucketResult>")

    def error(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>")

    def answer(self, status, content, headers=None):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in {"Content-Type": "application/xml", **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(content)


def signed_chunks(sent):
    """The chunks of a body that is signed piece by piece: `size;chunk-signature=...`, the bytes."""
    at = 0
    while at < len(sent):
        end = sent.index(b"\r\n", at)
        size = int(sent[at:end].split(b";")[0], 16)
        if size == 0:
            return
        yield sent[end + 2:end + 2 + size]
        at = end + 2 + size + 2
