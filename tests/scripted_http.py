"""A server that says what a test tells it to, in order, and then nothing more; and a proxy that tells where it was sent."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

__all__ = ["WHOLE", "Answer", "Proxy", "ScriptedServer", "answering", "forwarding", "point_to"]


class Answer(NamedTuple):
    """Status, ``Content-Range``, body, and the length that is promised where it is not the body's."""

    status: int
    content_range: str | None
    body: bytes
    promised: int | None = None


WHOLE = Answer(206, "bytes 0-4/5", b"12345")


@dataclass
class ScriptedServer:
    """A running server, and the requests that it got: their headers, and ``method`` and ``target``."""

    endpoint: str
    requests: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Proxy:
    """A running proxy, and where it was asked to connect to."""

    url: str
    connected: list[str] = field(default_factory=list)


def point_to(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every S3 client of this process talk to the server."""
    settings = {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    for name, value in {**settings, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent"}.items():
        monkeypatch.setenv(name, value)


@contextlib.contextmanager
def answering(answers: Sequence[Answer | Callable[[dict[str, str]], Answer]], *, closes: bool = False) -> Iterator[ScriptedServer]:
    """Serve the answers, over all connections in order; when they are used up, requests are taken and never answered.

    Args:
        answers: What to say, or what makes it of the request.
        closes: End each connection after one answer, without having said so.
    """
    left, lock = list(answers), threading.Lock()
    with _listening() as listener:
        server = ScriptedServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve(connection: socket.socket) -> None:
            while (request := _request(connection)) is not None:
                with lock:
                    server.requests.append(request)
                    answer = left.pop(0) if left else None
                if answer is not None:
                    answer = answer if isinstance(answer, Answer) else answer(request)
                    connection.sendall(_head(answer) + (b"" if request["method"] == "HEAD" else answer.body))
                    if closes or (answer.promised or 0) > len(answer.body):
                        return

        with _serving(listener, serve):
            yield server


@contextlib.contextmanager
def forwarding() -> Iterator[Proxy]:
    """Run an HTTP proxy that tunnels (``CONNECT``) and forwards plain requests."""
    with _listening() as listener:
        proxy = Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve(connection: socket.socket) -> None:
            head = connection.recv(65536)
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            place = target if method == "CONNECT" else target.split("/")[2]
            proxy.connected.append(place)
            host, _, port = place.rpartition(":")
            with socket.create_connection((host, int(port))) as upstream:
                if method == "CONNECT":
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    upstream.sendall(head.replace(target.encode(), b"/" + target.split("/", 3)[3].encode(), 1))
                back = threading.Thread(target=_pump, args=(upstream, connection), daemon=True)
                back.start()
                _pump(connection, upstream)
                back.join()

        with _serving(listener, serve):
            yield proxy


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 20):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@contextlib.contextmanager
def _serving(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    open_ones: list[socket.socket] = []

    def run(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_ones.append(connection)
                threading.Thread(target=run, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        for connection in open_ones:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _request(connection: socket.socket) -> dict[str, str] | None:
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65536)
        if not received:
            return None
        head += received
    first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {**headers, "method": method, "target": target}


def _head(answer: Answer) -> bytes:
    length = len(answer.body) if answer.promised is None else answer.promised
    lines = [f"HTTP/1.1 {answer.status} -", f"Content-Length: {length}", 'ETag: "1"', "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"]
    if answer.content_range is not None:
        lines.append(f"Content-Range: {answer.content_range}")
    return "\r\n".join([*lines, "", ""]).encode()
