"""Fakes of Google Cloud Storage and of Azure Blob Storage: what obstore asks of them, over a dictionary, in this process.

No real one can be had on one machine. They answer as the services' documentation says, hold clients to conditional writes and ranges, and
can be told to fail; they check no signature.
"""

import contextlib
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from tests.local_http import local_http

__all__ = ["FakeBuckets", "fake_buckets"]

Dialect = Literal["gs", "az"]
_CODES = {503: "ServerBusy", 403: "AccessDenied"}
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass
class FakeBuckets:
    """A running fake.

    Attributes:
        dialect: Of which service.
        endpoint: ``http://127.0.0.1:port``.
        objects: By bucket and key, as ``bucket/key``.
        requests: What came: method, path and query.
        failures: Statuses to answer the next requests with; 0 lets one through.
    """

    dialect: Dialect
    endpoint: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that make clients talk to this fake."""
        if self.dialect == "gs":
            return {"GOOGLE_BASE_URL": self.endpoint, "GOOGLE_BEARER_TOKEN": "token"}
        return {"AZURE_ENDPOINT": self.endpoint, "AZURE_STORAGE_ACCOUNT_NAME": "lab", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}


@contextlib.contextmanager
def fake_buckets(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBuckets]:
    """Run a fake, and let this process talk to it."""
    fake = FakeBuckets(dialect)
    with local_http(type("Handler", (_Handler,), {"fake": fake})) as port:
        fake.endpoint = f"http://127.0.0.1:{port}"
        for name, value in fake.env.items():
            monkeypatch.setenv(name, value)
        yield fake


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeBuckets

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        fake = self.fake
        length = int(self.headers.get("Content-Length", 0))
        body = self._chunked() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(length)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        place = unquote(parts.path).lstrip("/")
        fake.requests.append((self.command, self.path))
        status = fake.failures.pop(0) if fake.failures else 0
        if status:
            return self._answer(status, f"<Error><Code>{_CODES.get(status, 'Error')}</Code></Error>".encode())
        if self.command in ("GET", "HEAD"):
            listing = "list-type" in query or query.get("comp") == "list"
            return self._list(fake, place, query) if listing else self._get(fake, place)
        if self.command == "DELETE":
            found = fake.objects.pop(place, None)
            return self._answer(404 if found is None else 202 if fake.dialect == "az" else 204, self._missing() if found is None else b"")
        if query.get("comp") == "batch":
            return self._azure_batch(fake, body)
        return self._azure_put(fake, place, query, body) if fake.dialect == "az" else self._google_put(fake, place, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _get(self, fake: FakeBuckets, place: str) -> None:
        data = fake.objects.get(place)
        if data is None:
            return self._answer(404, self._missing())
        if self.headers.get("If-Match") not in (None, f'"{self._etag(data)}"'):
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        wanted = self.headers.get("Range") or self.headers.get("x-ms-range")
        if wanted is None:
            return self._answer(200, data, data)
        first, last = wanted.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
        if start >= len(data):
            return self._answer(416, b"<Error><Code>InvalidRange</Code></Error>")
        return self._answer(206, data[start : end + 1], data, {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _list(self, fake: FakeBuckets, bucket: str, query: dict[str, str]) -> None:
        bucket = bucket.rstrip("/")
        token = query.get("continuation-token") or query.get("marker") or ""
        keys = sorted(place.partition("/")[2] for place in fake.objects if place.partition("/")[0] == bucket)
        keys = [key for key in keys if key.startswith(query.get("prefix", "")) and key > token]
        # Pages of three, so that nobody who reads one page alone goes unnoticed.
        page, more = keys[:3], len(keys) > 3
        if fake.dialect == "gs":
            entries = "".join(
                f'<Contents><Key>{escape(key)}</Key><Size>{len(fake.objects[f"{bucket}/{key}"])}</Size><ETag>"{self._etag(fake.objects[f"{bucket}/{key}"])}"</ETag>'
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key in page
            )
            following = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
            return self._answer(
                200, f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{entries}{following}</ListBucketResult>".encode()
            )
        entries = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{_DATE}</Last-Modified><Etag>{self._etag(fake.objects[f'{bucket}/{key}'])}</Etag>"
            f"<Content-Length>{len(fake.objects[f'{bucket}/{key}'])}</Content-Length><Content-Type>x</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for key in page
        )
        following = f"<NextMarker>{escape(page[-1])}</NextMarker>" if more else "<NextMarker/>"
        return self._answer(200, f"<EnumerationResults><Blobs>{entries}</Blobs>{following}</EnumerationResults>".encode())

    def _google_put(self, fake: FakeBuckets, place: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            return self._answer(200, b"<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>")
        if "partNumber" in query:
            fake.parts[place, query["partNumber"]] = body
            return self._answer(200, b"", body)
        if "uploadId" in query:
            numbers = [each.text or "" for each in ET.fromstring(body).iter() if each.tag.endswith("PartNumber")]
            fake.objects[place] = b"".join(fake.parts[place, number] for number in numbers)
            etag = self._etag(fake.objects[place])
            return self._answer(
                200, f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>".encode(), fake.objects[place]
            )
        if self.headers.get("x-goog-if-generation-match") == "0" and place in fake.objects:
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        fake.objects[place] = body
        return self._answer(200, b"", body)

    def _azure_put(self, fake: FakeBuckets, place: str, query: dict[str, str], body: bytes) -> None:
        if query.get("comp") == "block":
            fake.parts[place, query["blockid"]] = body
            return self._answer(201, b"", body)
        if self.headers.get("If-None-Match") == "*" and place in fake.objects:
            return self._answer(409, b"<Error><Code>BlobAlreadyExists</Code></Error>")
        if query.get("comp") == "blocklist":
            blocks = [each.text or "" for each in ET.fromstring(body)]
            fake.objects[place] = b"".join(fake.parts[place, block] for block in blocks)
        else:
            fake.objects[place] = body
        return self._answer(201, b"", fake.objects[place])

    def _azure_batch(self, fake: FakeBuckets, body: bytes) -> None:
        answers = ""
        for number, line in enumerate(line for line in body.decode().splitlines() if line.startswith("DELETE ")):
            found = fake.objects.pop(unquote(urlsplit(line.split(" ")[1]).path).lstrip("/"), None)
            said = "HTTP/1.1 202 Accepted\r\n" if found is not None else "HTTP/1.1 404 Not Found\r\nx-ms-error-code: BlobNotFound\r\n"
            answers += (
                f"--batch\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n{said}x-ms-version: 2019-12-12\r\n\r\n\r\n"
            )
        self._answer(202, f"{answers}--batch--\r\n".encode(), None, {"Content-Type": "multipart/mixed; boundary=batch"})

    def _missing(self) -> bytes:
        return f"<Error><Code>{'NoSuchKey' if self.fake.dialect == 'gs' else 'BlobNotFound'}</Code></Error>".encode()

    def _chunked(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @staticmethod
    def _etag(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()[:16]

    def _answer(self, status: int, body: bytes, data: bytes | None = None, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Last-Modified": _DATE, **(more or {})}.items():
            self.send_header(name, value)
        if data is not None:
            self.send_header("ETag", f'"{self._etag(data)}"')
            self.send_header("x-goog-generation", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
