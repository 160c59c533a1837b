"""A fake of S3 that keeps keys letter by letter: what a server over a folder cannot, with its slashes in a row and its dots.

It holds all objects in memory, takes any signature, and answers by path: GET with ranges, HEAD, PUT with ``If-None-Match``, DELETE and
ListObjectsV2 in pages. No standard library's client or server is asked what a path means: a key is what follows the bucket's slash.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from tests.local_http import local_http

__all__ = ["FakeS3", "serve_keys"]

_PAGE = 3
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass
class FakeS3:
    """A running fake.

    Attributes:
        port: On the loopback interface.
        objects: Content by (bucket, key).
        requests: Method, bucket and key of every request that named an object.
    """

    port: int = 0
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that make every S3 client of a process talk to this server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "fake",
            "AWS_SECRET_ACCESS_KEY": "fake",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def keys(self, bucket: str) -> list[str]:
        """Return the keys of a bucket, in order."""
        return sorted(key for place, key in list(self.objects) if place == bucket)


@contextlib.contextmanager
def serve_keys() -> Iterator[FakeS3]:
    """Serve an empty store until the block ends."""
    fake = FakeS3()
    with local_http(type("Handler", (_Handler,), {"fake": fake})) as fake.port:
        yield fake


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    fake: FakeS3

    def do_GET(self) -> None:
        bucket, key, query = self._wanted()
        if "list-type" in query:
            self._list(bucket, query)
        else:
            self._send(bucket, key)

    def do_HEAD(self) -> None:
        bucket, key, _ = self._wanted()
        self._send(bucket, key)

    def do_PUT(self) -> None:
        bucket, key, _ = self._wanted()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("If-None-Match") == "*" and (bucket, key) in self.fake.objects:
            self._answer(412, _error("PreconditionFailed"))
            return
        self.fake.objects[bucket, key] = body
        self._answer(200, b"", {"ETag": _etag(body)})

    def do_DELETE(self) -> None:
        bucket, key, _ = self._wanted()
        self.fake.objects.pop((bucket, key), None)
        self._answer(204, b"")

    def log_message(self, *_: Any) -> None:
        pass

    def _wanted(self) -> tuple[str, str, dict[str, list[str]]]:
        # Not ``self.path``: the server has shortened what begins with two slashes.
        target = self.requestline.split(" ")[1]
        path, _, query = target.partition("?")
        bucket, _, key = unquote(path).removeprefix("/").partition("/")
        found = parse_qs(query, keep_blank_values=True)
        if "list-type" not in found:
            self.fake.requests.append((self.command, bucket, key))
        return bucket, key, found

    def _send(self, bucket: str, key: str) -> None:
        content = self.fake.objects.get((bucket, key))
        if content is None:
            self._answer(404, _error("NoSuchKey"))
            return
        headers = {"ETag": _etag(content), "Last-Modified": _DATE, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted is None:
            self._answer(200, content, headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
        if begin >= len(content):
            self._answer(416, _error("InvalidRange"))
            return
        self._answer(206, content[begin : end + 1], {**headers, "Content-Range": f"bytes {begin}-{end}/{len(content)}"})

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
        keys = [key for key in self.fake.keys(bucket) if key.startswith(prefix) and key > after]
        page = keys[:_PAGE]
        spelled = quote if query.get("encoding-type") == ["url"] else escape
        entries = "".join(
            f"<Contents><Key>{spelled(key)}</Key><Size>{len(self.fake.objects[bucket, key])}</Size>"
            f"<ETag>{escape(_etag(self.fake.objects[bucket, key]))}</ETag></Contents>"
            for key in page
        )
        is_cut = len(keys) > len(page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if is_cut else ""
        encoding = "<EncodingType>url</EncodingType>" if spelled is quote else ""
        body = f"<ListBucketResult><IsTruncated>{str(is_cut).lower()}</IsTruncated>{encoding}{token}{entries}</ListBucketResult>"
        self._answer(200, f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode(), {"Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()
