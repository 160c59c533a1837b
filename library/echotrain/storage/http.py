"""The least HTTP/1.1 client that fetches ranges: keep-alive, and bodies received straight into the caller's memory.

On a plain socket the kernel fills a large piece of the buffer in one call, without Python in between; that, and that nothing is
allocated per request, is why it takes about half the CPU time of the usual clients.
"""

import contextlib
import functools
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping

from echotrain.storage.retry import TransientError

__all__ = ["HttpConnection"]

_CHUNK = 2 << 20
_MAX_HEAD = 64 << 10


class HttpConnection:
    """One connection to one server, opened at the first request; not for use by two threads at once.

    Args:
        scheme: ``http`` or ``https``.
        host: Server.
        port: Its port.
        timeout_s: Longest silence while connecting, or while a piece of a body arrives.
        ca_file: Certificates to hold the server's against; "" takes the system's.
    """

    def __init__(self, scheme: str, host: str, port: int, *, timeout_s: float, ca_file: str = "") -> None:
        self._scheme, self._host, self._port, self._timeout_s, self._ca_file = scheme, host, port, timeout_s, ca_file
        self._socket: socket.socket | None = None
        self._rest = memoryview(b"")
        self._unread = 0

    def get(self, target: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """Send a GET and return the status and the headers, names in lower case.

        The body, if any, is then read with ``body_into`` or ``body``.

        Raises:
            TransientError: The connection broke, stayed silent too long, or the answer is not HTTP.
        """
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        message = "\r\n".join(lines).encode("latin-1")
        if self._unread:
            self.close()
        is_fresh = self._socket is None
        try:
            return self._exchange(message)
        except _ClosedError:
            # A server may close an idle connection at any time; that is no failure of this request.
            if is_fresh:
                raise
            return self._exchange(message)

    def body_into(self, buffer: memoryview) -> Iterator[memoryview]:
        """Fill ``buffer`` with the next bytes of the body, yielding each piece as it has arrived.

        Raises:
            TransientError: The body ended early, or the connection broke or stayed silent.
        """
        at = 0
        while at < len(buffer):
            piece = buffer[at : at + _CHUNK]
            if self._rest:
                count = min(len(piece), len(self._rest))
                piece[:count] = self._rest[:count]
                self._rest = self._rest[count:]
            else:
                with self._transient():
                    count = self._receive(piece)
                if count == 0:
                    self.close()
                    raise TransientError(f"the body ended {self._unread} bytes early")
            self._unread -= count
            yield piece[:count]
            at += count

    def body(self, limit: int = _MAX_HEAD) -> bytes:
        """Return what is left of a small body, up to ``limit`` bytes."""
        buffer = memoryview(bytearray(min(self._unread, limit)))
        with contextlib.suppress(TransientError):
            for _ in self.body_into(buffer):
                pass
        return bytes(buffer)

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket, self._rest, self._unread = None, memoryview(b""), 0

    def _exchange(self, message: bytes) -> tuple[int, dict[str, str]]:
        with self._transient():
            if self._socket is None:
                self._socket = self._connect()
            self._socket.sendall(message)
            head = b""
            while b"\r\n\r\n" not in head:
                received = self._socket.recv(_MAX_HEAD)
                if not received:
                    raise ConnectionError("the server closed the connection")
                head += received
                if len(head) > _MAX_HEAD * 2:
                    raise ConnectionError("the answer has no end of its head")
        text, _, rest = head.partition(b"\r\n\r\n")
        first, *others = text.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in others)}
        words = first.split(" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            self.close()
            raise TransientError(f"not an HTTP answer: {first[:80]!r}")
        self._rest = memoryview(rest)
        # A body of unknown length (chunked, only seen on errors) is read as far as it came, then the connection is dropped.
        length = fields.get("content-length", "")
        self._unread = int(length) if length.isdigit() else len(rest) or 1
        return int(words[1]), fields

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((self._host, self._port), timeout=self._timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._scheme == "https":
            return _tls(self._ca_file).wrap_socket(plain, server_hostname=self._host)
        # A blocking socket with a timeout of the kernel's can wait for a whole piece in one call; one of Python's cannot.
        plain.settimeout(None)
        whole = int(self._timeout_s)
        limit = struct.pack("ll", whole, int((self._timeout_s - whole) * 1e6))
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return plain

    def _receive(self, piece: memoryview) -> int:
        if self._socket is None:
            return 0
        if self._scheme == "https":
            return self._socket.recv_into(piece)
        return self._socket.recv_into(piece, len(piece), socket.MSG_WAITALL)

    @contextlib.contextmanager
    def _transient(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError as error:
            self.close()
            raise TransientError(f"{self._host}:{self._port} was silent for {self._timeout_s:g} s") from error
        except ConnectionError as error:
            self.close()
            raise _ClosedError(f"{self._host}:{self._port}: {error}") from error
        except OSError as error:
            self.close()
            raise TransientError(f"{self._host}:{self._port}: {error}") from error


class _ClosedError(TransientError):
    """The other side closed the connection."""


@functools.lru_cache(maxsize=8)
def _tls(ca_file: str) -> ssl.SSLContext:
    # Reading the certificates takes longer than a small request.
    return ssl.create_default_context(cafile=ca_file or None)
