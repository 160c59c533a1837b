"""A throttled S3 server that can be told to fail: makes "share of the NIC" a repeatable figure, and faults a test.

It runs in a process of its own, on the loopback interface only.
"""

import contextlib
import http.client
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from echotrain.benchmarks import throttled_server
from echotrain.errors import ResourceError
from echotrain.storage.certificates import make_certificate

__all__ = ["Fault", "SentRange", "ServerStats", "ThrottledServer", "serve_throttled"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What to do wrong.

    Attributes:
        kind: ``unavailable``: 503 SlowDown; ``short``: half of the body, then the connection closes; ``slow``: the first
            byte comes ``seconds`` late; ``expired``: 400 ExpiredToken; ``denied``: 403; ``missing``: 404; ``redirect``: 301 to another
            region; ``condition``: 412; ``unknown``: 501; ``flip``: one bit of the body is wrong.
        key: Only requests whose path contains this.
        method: Only this HTTP method; empty means any.
        every: Of the requests that fit, each of this number fails: 5 is a fifth of them.
        times: How many requests fail; -1 means all.
        seconds: Delay of ``slow``.
        byte: Which byte of the body ``flip`` hits.
    """

    kind: Literal["unavailable", "short", "slow", "expired", "denied", "missing", "redirect", "condition", "unknown", "flip"]
    key: str = ""
    method: str = ""
    every: int = 1
    times: int = -1
    seconds: float = 0.0
    byte: int = 1000


class ServerStats(NamedTuple):
    """Requests answered and payload bytes sent since the last reset."""

    requests: int
    bytes: int


class SentRange(NamedTuple):
    """A piece of an object that was sent; the key begins with the bucket."""

    key: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class ThrottledServer:
    """A running server; buckets are the folders in ``folder``.

    Attributes:
        port: On the loopback interface.
        folder: What is served.
        ca_file: Certificate that clients are to trust; empty without TLS.
    """

    port: int
    folder: Path
    ca_file: str = ""

    @property
    def endpoint(self) -> str:
        """``http://127.0.0.1:port``, or ``https://…``."""
        return f"http{'s' * bool(self.ca_file)}://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that make every S3 client of a process talk to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "throttled",
            "AWS_SECRET_ACCESS_KEY": "throttled",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **({"AWS_CA_BUNDLE": self.ca_file} if self.ca_file else {}),
        }

    def inject(self, *faults: Fault) -> None:
        """Replace the faults; none heals the server."""
        self._control("POST", "/__faults", json.dumps([asdict(fault) for fault in faults]))

    def stats(self) -> ServerStats:
        """Return the counters."""
        found = self._control("GET", "/__stats")
        return ServerStats(found["requests"], found["bytes"])

    def ranges(self) -> list[SentRange]:
        """Return what was sent of which object since the last reset, in order."""
        return [SentRange(*sent) for sent in self._control("GET", "/__ranges")]

    def reset(self) -> None:
        """Count anew, and only requests that come from now on."""
        self._control("POST", "/__reset")

    def _control(self, method: str, path: str, body: str = "") -> Any:
        if self.ca_file:
            trusted = ssl.create_default_context(cafile=self.ca_file)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=trusted)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body.encode())
            return json.loads(connection.getresponse().read())


@contextlib.contextmanager
def serve_throttled(
    folder: Path, *, first_byte_s: float = 0.0, connection_mb_s: float = 0.0, nic_mb_s: float = 0.0, tls: bool = False
) -> Iterator[ThrottledServer]:
    """Serve the folders in ``folder`` as buckets, read-only, until the block ends.

    Args:
        folder: Holds the buckets.
        first_byte_s: Delay before each answer.
        connection_mb_s: Rate of each connection in 1e6 bytes/s; 0 does not limit it.
        nic_mb_s: Rate of all connections together; 0 does not limit it.
        tls: Speak HTTPS, with a certificate that nobody else trusts.

    Raises:
        ResourceError: The server did not start.
    """
    limits = {"first_byte_s": first_byte_s, "connection_mb_s": connection_mb_s, "nic_mb_s": nic_mb_s}
    with tempfile.TemporaryDirectory(prefix="echotrain-throttled-") as scratch:
        made = make_certificate(Path(scratch)) if tls else None
        own = {"certificate": str(made.certificate), "key": str(made.key)} if made else {"certificate": "", "key": ""}
        with _running({"folder": str(folder.absolute()), **limits, **own}) as port:
            yield ThrottledServer(port, folder, str(made.authority) if made else "")


@contextlib.contextmanager
def _running(settings: dict[str, Any]) -> Iterator[int]:
    """Start the program and yield its port."""
    process = subprocess.Popen([sys.executable, "-I", throttled_server.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the pipes were asked for")
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline().strip()
        if not line:
            raise ResourceError("the throttled S3 server", "did not start", "Look at its messages above.")
        yield int(line)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
