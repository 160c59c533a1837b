"""A node that a test plays: it runs nothing, and has the logs that the test writes, which the API server streams from it."""

import datetime as dt
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from tests.k8s.api_server import ApiServer
from tests.k8s.certificates import make_authority

__all__ = ["Kubelet"]


class Kubelet:
    """Serves ``/containerLogs``: follows, times, ``sinceTime`` and ``tailLines``, as a kubelet does.

    Args:
        server: Where the node is made.
        folder: For its certificate.
        name: Of the node.

    Attributes:
        num_asked: Times that a log was asked for.
    """

    def __init__(self, server: ApiServer, folder: Path, name: str) -> None:
        self._server, self._folder, self.name = server, folder, name
        self._lines: dict[str, list[tuple[dt.datetime, str]]] = {}
        self._ended: set[str] = set()
        self._changed = threading.Condition()
        self._cuts = 0
        self.num_asked = 0

    def __enter__(self) -> "Kubelet":
        pair = make_authority(self._folder, f"kubelet-{self.name}").sign(f"node-{self.name}", "/CN=node")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self._server.request("POST", "/api/v1/nodes", {"metadata": {"name": self.name}})
        node = self._server.request("GET", f"/api/v1/nodes/{self.name}")
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        endpoint = {"kubeletEndpoint": {"Port": self._http.server_address[1]}}
        self._server.request(
            "PUT", f"/api/v1/nodes/{self.name}/status", {**node, "status": {"addresses": addresses, "daemonEndpoints": endpoint}}
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._server.request("DELETE", f"/api/v1/nodes/{self.name}")

    def write(self, pod: str, *lines: str, time: dt.datetime | None = None) -> None:
        """Add lines to a pod's log, now or at one given time."""
        with self._changed:
            self._lines.setdefault(pod, []).extend((time or dt.datetime.now(dt.UTC), line) for line in lines)
            self._changed.notify_all()

    def end(self, pod: str) -> None:
        """Let a pod's container end: nothing more is written."""
        with self._changed:
            self._ended.add(pod)
            self._changed.notify_all()

    def cut(self) -> None:
        """Break off every answer that is being followed, in the middle of a line."""
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kubelet = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                _, kind, _namespace, pod, _container = url.path.split("/")
                assert kind == "containerLogs"
                query = {key: values[-1] for key, values in parse_qs(url.query).items()}
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                if kubelet._send(self, pod, query):
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True

            def chunk(self, data: bytes) -> None:
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _send(self, handler: BaseHTTPRequestHandler, pod: str, query: dict[str, str]) -> bool:
        """Send a log, for as long as it goes on where it is followed; return False where it was cut."""
        since = dt.datetime.fromisoformat(query["sinceTime"]) if "sinceTime" in query else dt.datetime.min.replace(tzinfo=dt.UTC)
        sent = max(0, len(self._lines.get(pod, [])) - int(query["tailLines"])) if "tailLines" in query else 0
        cuts = self._cuts
        self.num_asked += 1
        while True:
            with self._changed:
                have = self._lines.get(pod, [])
                is_over = pod in self._ended or query.get("follow") != "true"
                if sent == len(have) and not is_over and cuts == self._cuts:
                    self._changed.wait(5)
                    continue
                new, sent = have[sent:], len(have)
            data = b"".join(_stamped(time, line, query) for time, line in new if time >= since)
            if cuts != self._cuts:
                handler.chunk(data + b"2026-01-01T00:00:00Z half a li")
                return False
            if data:
                handler.chunk(data)
            if is_over and sent == len(self._lines.get(pod, [])):
                return True


def _stamped(time: dt.datetime, line: str, query: dict[str, str]) -> bytes:
    stamp = f"{time:%Y-%m-%dT%H:%M:%S.%f}000Z " if query.get("timestamps") == "true" else ""
    return f"{stamp}{line}\n".encode()
