"""The program behind ``throttled``: a small S3 server over a folder with the latency and the rates of a real one.

It serves GET, HEAD and ListObjectsV2, path-style, and takes any signature. A key is the path of a file: one with empty parts or dots for
parts is no object here, as none could be written. An ETag is of one writing of a file, and ``If-Match`` is honoured.

It uses the standard library alone and is run as a file, so that its process starts in a tenth of a second and shares no interpreter lock
with what it measures. Settings come as one line of JSON on the standard input; the port is answered as a line on the standard output; the
end of the input is the end of the server.

``POST /__faults`` replaces the list of faults, ``GET /__stats`` returns the counters, ``GET /__ranges`` what was sent of which object, in
order, and ``POST /__reset`` starts both anew: a request that came before it is counted no more. With a certificate all of it is HTTPS.
"""

import contextlib
import email.utils
import json
import mmap
import os
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

__all__ = ["main"]

_CHUNK = 256 << 10


@dataclass
class _Counts:
    """What was sent since a reset; a request counts where it began, however late it is answered."""

    requests: int = 0
    sent: int = 0
    ranges: list[tuple[str, int, int]] = field(default_factory=list)


@dataclass
class _State:
    """What all connections share."""

    root: Path
    first_byte_s: float
    connection_bytes_s: float
    nic_bytes_s: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    free_at: float = 0.0
    counts: _Counts = field(default_factory=_Counts)
    mapped: dict[tuple[str, str, int], mmap.mmap] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)

    def take(self, nbytes: int, counts: _Counts) -> None:
        """Count ``nbytes`` and wait until the NIC that all connections share has room for them."""
        with self.lock:
            counts.sent += nbytes
            if self.nic_bytes_s <= 0:
                return
            now = time.perf_counter()
            self.free_at = max(self.free_at, now) + nbytes / self.nic_bytes_s
            wait = self.free_at - now
        if wait > 0.002:
            time.sleep(wait)

    def content(self, path: Path) -> memoryview:
        """Return an object's bytes, mapped once for as long as the file stays what it is."""
        found = path.stat()
        key = (str(path), _etag(found), found.st_size)
        with self.lock:
            if key not in self.mapped:
                with path.open("rb") as file:
                    # An empty file cannot be mapped; its object has nothing to send.
                    self.mapped[key] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if found.st_size else mmap.mmap(-1, 1)
            return memoryview(self.mapped[key])

    def fault_for(self, method: str, key: str) -> dict[str, Any]:
        """Return the first fault that fits this request, counted down, or an empty one."""
        with self.lock:
            for fault in self.faults:
                if fault["times"] != 0 and fault["key"] in key and fault["method"] in ("", method):
                    fault["met"] = fault.get("met", 0) + 1
                    if fault["met"] % fault["every"] == 0:
                        fault["times"] -= 1
                        return fault
        return {}


@dataclass
class _Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


class _Handler:
    """Serves one connection until it closes."""

    def __init__(self, connection: socket.socket, state: _State) -> None:
        self._connection = connection
        self._state = state
        self._pending = b""

    def run(self) -> None:
        with contextlib.suppress(OSError), self._connection:
            while (request := self._receive()) is not None:
                if request.path.startswith("/__"):
                    self._control(request)
                elif not self._serve(request):
                    return

    def _receive(self) -> _Request | None:
        while b"\r\n\r\n" not in self._pending:
            received = self._connection.recv(65536)
            if not received:
                return None
            self._pending += received
        head, self._pending = self._pending.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._pending) < length:
            self._pending += self._connection.recv(65536)
        body, self._pending = self._pending[:length], self._pending[length:]
        method, target, _ = first.split(" ", 2)
        parts = urlsplit(target)
        return _Request(method, unquote(parts.path), parse_qs(parts.query, keep_blank_values=True), headers, body)

    def _control(self, request: _Request) -> None:
        state = self._state
        with state.lock:
            if request.path == "/__faults":
                state.faults = json.loads(request.body)
            elif request.path == "/__reset":
                state.counts = _Counts()
            is_ranges = request.path == "/__ranges"
            counts = state.counts
            answer = counts.ranges if is_ranges else {"requests": counts.requests, "bytes": counts.sent}
            body = json.dumps(answer).encode()
        self._answer("200 OK", body)

    def _serve(self, request: _Request) -> bool:
        """Answer one request; False ends the connection."""
        state = self._state
        key = request.path.removeprefix("/")
        fault = state.fault_for(request.method, key)
        kind = fault.get("kind", "")
        with state.lock:
            counts = state.counts
            counts.requests += 1
        time.sleep(state.first_byte_s + (fault["seconds"] if kind == "slow" else 0.0))
        refusals = {
            "unavailable": ("503 Service Unavailable", "SlowDown"),
            "expired": ("400 Bad Request", "ExpiredToken"),
            "denied": ("403 Forbidden", "AccessDenied"),
            "missing": ("404 Not Found", "NoSuchKey"),
            "redirect": ("301 Moved Permanently", "PermanentRedirect"),
            "condition": ("412 Precondition Failed", "PreconditionFailed"),
            "unknown": ("501 Not Implemented", "NotImplemented"),
        }
        if kind in refusals:
            self._refuse(request, *refusals[kind])
            return True
        if "list-type" in request.query:
            self._list(key, request.query)
            return True
        path = state.root / key
        # A file system would fold such a path, or climb out of the folder that is served.
        if {"", ".", ".."} & set(key.split("/")) or not path.is_file():
            self._refuse(request, "404 Not Found", "NoSuchKey")
            return True
        if request.headers.get("if-match", _etag(path.stat())) != _etag(path.stat()):
            self._refuse(request, "412 Precondition Failed", "PreconditionFailed")
            return True
        return self._send_object(request, path, fault, counts)

    def _send_object(self, request: _Request, path: Path, fault: dict[str, Any], counts: _Counts) -> bool:
        found = path.stat()
        size = found.st_size
        first, last, status = 0, size - 1, "200 OK"
        wanted = request.headers.get("range", "").removeprefix("bytes=")
        if wanted:
            begin, _, end = wanted.partition("-")
            first = int(begin) if begin else max(0, size - int(end))
            last = min(size - 1, int(end)) if begin and end else size - 1
            status = "206 Partial Content"
            if first >= size:
                self._refuse(request, "416 Range Not Satisfiable", "InvalidRange")
                return True
        headers = [
            f"HTTP/1.1 {status}", f"Content-Length: {last - first + 1}", "Accept-Ranges: bytes", f"ETag: {_etag(found)}",
            f"Last-Modified: {email.utils.formatdate(found.st_mtime, usegmt=True)}", "Content-Type: application/octet-stream",
        ]  # fmt: skip
        if wanted:
            headers.append(f"Content-Range: bytes {first}-{last}/{size}")
        self._connection.sendall("\r\n".join([*headers, "", ""]).encode())
        if request.method == "HEAD":
            return True
        count = last - first + 1
        if fault.get("kind") == "short":
            self._send_range(path, first, count // 2, {}, counts)
            return False
        self._send_range(path, first, count, fault, counts)
        return True

    def _send_range(self, path: Path, first: int, count: int, fault: dict[str, Any], counts: _Counts) -> None:
        started, sent = time.perf_counter(), 0
        # Not sendfile: the single pages it hands on make receiving on the loopback interface cost half as much again.
        content = self._state.content(path)
        with self._state.lock:
            counts.ranges.append((path.relative_to(self._state.root).as_posix(), first, count))
        is_limited = self._state.nic_bytes_s > 0 or self._state.connection_bytes_s > 0
        while sent < count:
            piece = min(_CHUNK if is_limited or fault else count, count - sent)
            self._state.take(piece, counts)
            data = content[first + sent : first + sent + piece]
            if fault.get("kind") == "flip" and sent == 0:
                flipped = bytearray(data)
                flipped[fault["byte"] % piece] ^= 1
                data = memoryview(flipped)
            self._connection.sendall(data)
            sent += piece
            if self._state.connection_bytes_s > 0:
                wait = started + sent / self._state.connection_bytes_s - time.perf_counter()
                if wait > 0.001:
                    time.sleep(wait)

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        bucket = bucket.strip("/")
        prefix = query.get("prefix", [""])[0]
        root = self._state.root / bucket
        if ".." in root.parts:
            self._answer("404 Not Found", b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        keys = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        entries = "".join(_entry(key, (root / key).stat()) for key in keys if key.startswith(prefix))
        body = f"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self._answer("200 OK", body.encode())

    def _refuse(self, request: _Request, status: str, code: str) -> None:
        self._answer(status, b"" if request.method == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: str, body: bytes) -> None:
        self._connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def _etag(found: os.stat_result) -> str:
    """Return what changes whenever a file is written again, of the same size too."""
    return f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"'


def _entry(key: str, found: os.stat_result) -> str:
    changed = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(found.st_mtime))
    about = f"<LastModified>{changed}</LastModified><ETag>{escape(_etag(found))}</ETag><Size>{found.st_size}</Size>"
    return f"<Contents><Key>{escape(key)}</Key>{about}</Contents>"


def main() -> None:
    """Serve until the standard input ends."""
    settings = json.loads(sys.stdin.readline())
    state = _State(
        root=Path(settings["folder"]),
        first_byte_s=settings["first_byte_s"],
        connection_bytes_s=settings["connection_mb_s"] * 1e6,
        nic_bytes_s=settings["nic_mb_s"] * 1e6,
    )
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    tls = None
    if settings["certificate"]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(settings["certificate"], settings["key"])
    threading.Thread(target=_accept, args=(listener, state, tls), daemon=True).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _accept(listener: socket.socket, state: _State, tls: ssl.SSLContext | None) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, state, tls), daemon=True).start()


def _answer(connection: socket.socket, state: _State, tls: ssl.SSLContext | None) -> None:
    """Serve a connection in its own thread, the handshake included: a client that is slow, or refuses the certificate, stops nobody."""
    with contextlib.suppress(OSError), connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Handler(connection if tls is None else tls.wrap_socket(connection, server_side=True), state).run()


if __name__ == "__main__":
    main()
