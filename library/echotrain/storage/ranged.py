"""Reading pieces of large objects straight into memory that the caller owns, with a checksum on the way.

S3 by ranged GETs over kept connections, signed by botocore's credentials; folders by positioned reads. Both are read in pieces
that are hashed while they are still in the processor's cache.
"""

import datetime as dt
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import botocore.session
import xxhash
from botocore.exceptions import BotoCoreError

from echotrain.errors import CredentialsError, ObjectMissingError, PayloadError, StorageError
from echotrain.storage.aws import S3Place, s3_place
from echotrain.storage.http import HttpConnection
from echotrain.storage.open import local_path
from echotrain.storage.retry import RetryPolicy, retrying
from echotrain.storage.s3_errors import answer_error, error_code
from echotrain.storage.sigv4 import signed_get

__all__ = ["RangeReader"]

_PIECE = 1 << 20


class _Endpoint(NamedTuple):
    """A server."""

    scheme: str
    host: str
    port: int


class RangeReader:
    """Reads byte ranges of objects; one reader serves many threads, each with its own connections.

    Args:
        timeout_s: Longest silence of a connection before the read is tried again.
        retry: How often; each try goes on where the last one broke off.
    """

    def __init__(self, *, timeout_s: float = 10.0, retry: RetryPolicy | None = None) -> None:
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[HttpConnection] = []
        self._signer: _Signer | None = None
        self._place: S3Place | None = None

    def read_into(self, uri: str, offset: int, *buffers: memoryview) -> tuple[int, ...]:
        """Fill the buffers, in order, with the object's bytes from ``offset`` on.

        Args:
            uri: ``s3://bucket/key``, a path or a ``file://`` URI.
            offset: First byte.
            buffers: Writable, contiguous bytes; neighbouring ranges of one object go into one call.

        Returns:
            xxh3_64 of each buffer's bytes.

        Raises:
            ObjectMissingError: There is no such object.
            PayloadError: The object ends before the range does.
            CredentialsError: The store refused the credentials.
            StorageError: Every try failed.
        """
        progress = _Progress(buffers)
        path = local_path(uri)
        if path is not None:
            _read_file(path, offset, progress)
        else:
            retrying(lambda: self._read_s3(uri, offset, progress), f"{uri} at byte {offset}", self._retry)
        return progress.digests()

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    def _read_s3(self, uri: str, offset: int, progress: "_Progress") -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        place = self._place_of_s3()
        endpoint, path = _address(place, bucket)
        target = quote(f"{path}/{key}", safe="/-_.~")
        first, last = offset + progress.done, offset + progress.total - 1
        connection = self._connection(endpoint, place)
        status, fields = connection.get(target, self._signed(uri, endpoint, target, f"bytes={first}-{last}"))
        if status == 416:
            connection.close()
            raise _ends_early(uri, offset, progress.total)
        if status not in (200, 206):
            error = answer_error(uri, status, error_code(connection.body()))
            connection.close()
            raise error
        # Some servers answer 200 to a range that they do serve, so the headers decide, not the status.
        told = fields.get("content-length", "")
        length = int(told) if told.isdigit() else -1
        if not fields.get("content-range", "").startswith(f"bytes {first}-") and (first or length != last + 1):
            connection.close()
            raise StorageError(uri, "the store ignored the byte range", "Use a store that serves ranged GETs.")
        if length < last - first + 1:
            connection.close()
            raise _ends_early(uri, offset, progress.total)
        for buffer in progress.remaining():
            for piece in connection.body_into(buffer):
                progress.add(piece)
        if fields.get("connection", "").lower() == "close":
            connection.close()

    def _place_of_s3(self) -> S3Place:
        with self._lock:
            if self._place is None:
                self._place = s3_place()
            return self._place

    def _connection(self, endpoint: _Endpoint, place: S3Place) -> HttpConnection:
        connections: dict[_Endpoint, HttpConnection] | None = getattr(self._local, "connections", None)
        if connections is None:
            connections = self._local.connections = {}
        if endpoint not in connections:
            connections[endpoint] = HttpConnection(*endpoint, timeout_s=self._timeout_s, ca_file=place.ca_file)
            with self._lock:
                self._connections.append(connections[endpoint])
        return connections[endpoint]

    def _signed(self, uri: str, endpoint: _Endpoint, target: str, byte_range: str) -> dict[str, str]:
        with self._lock:
            if self._signer is None:
                self._signer = _Signer(s3_place().region)
        return self._signer.headers(uri, endpoint, target, byte_range)


class _Progress:
    """How far a scattered read has come, and the hash of what has arrived."""

    def __init__(self, buffers: Sequence[memoryview]) -> None:
        self._buffers = [buffer.cast("B") for buffer in buffers]
        self._hashes = [xxhash.xxh3_64() for _ in buffers]
        self._index = 0
        self._at = 0
        self.done = 0
        self.total = sum(len(buffer) for buffer in self._buffers)

    def remaining(self) -> list[memoryview]:
        """Return the memory that is still to be filled, in order."""
        if self._index == len(self._buffers):
            return []
        return [self._buffers[self._index][self._at :], *self._buffers[self._index + 1 :]]

    def add(self, piece: memoryview) -> None:
        """Count a piece that was just written; pieces never cross from one buffer to the next."""
        while self._at == len(self._buffers[self._index]):
            self._index, self._at = self._index + 1, 0
        self._hashes[self._index].update(piece)
        self._at += len(piece)
        self.done += len(piece)

    def digests(self) -> tuple[int, ...]:
        return tuple(int(state.intdigest()) for state in self._hashes)


class _Signer:
    """Signs GETs with whatever credentials botocore finds, renewed by it; without any, requests go unsigned."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._lock = threading.Lock()
        try:
            self._credentials: Any = botocore.session.get_session().get_credentials()
        except BotoCoreError as error:
            raise CredentialsError("AWS credentials", f"cannot be loaded ({error})", "Set AWS_ACCESS_KEY_ID or AWS_PROFILE.") from error

    def headers(self, uri: str, endpoint: _Endpoint, target: str, byte_range: str) -> dict[str, str]:
        is_usual = endpoint.port == (443 if endpoint.scheme == "https" else 80)
        host = endpoint.host if is_usual else f"{endpoint.host}:{endpoint.port}"
        if self._credentials is None:
            return {"Host": host, "Range": byte_range}
        try:
            with self._lock:
                frozen = self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise CredentialsError(uri, f"the credentials could not be renewed ({error})", "Log in again and run again.") from error
        return signed_get(
            host,
            target,
            {"Range": byte_range},
            region=self._region,
            access_key=frozen.access_key,
            secret_key=frozen.secret_key,
            token=frozen.token,
            now=dt.datetime.now(dt.UTC),
        )


def _address(place: S3Place, bucket: str) -> tuple[_Endpoint, str]:
    """Return the server of a bucket, and the path of the bucket there."""
    parts = urlsplit(place.endpoint)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    # Certificates of AWS do not cover bucket names with a dot.
    if place.has_default_endpoint and "." not in bucket:
        return _Endpoint(parts.scheme, f"{bucket}.{host}", port), ""
    return _Endpoint(parts.scheme, host, port), f"{parts.path.rstrip('/')}/{bucket}"


def _read_file(path: Path, offset: int, progress: _Progress) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectMissingError(str(path), "does not exist", "Check the path, or prepare the data again.") from error
    except OSError as error:
        raise StorageError(str(path), str(error), "Check the path and its permissions.") from error
    try:
        for buffer in progress.remaining():
            at = 0
            while at < len(buffer):
                piece = buffer[at : at + _PIECE]
                count = os.preadv(descriptor, [piece], offset + progress.done)
                if count == 0:
                    raise _ends_early(str(path), offset, progress.total)
                progress.add(piece[:count])
                at += count
    except OSError as error:
        raise StorageError(f"{path} at byte {offset}", str(error), "Check the disk.") from error
    finally:
        os.close(descriptor)


def _ends_early(uri: str, offset: int, nbytes: int) -> PayloadError:
    return PayloadError(
        f"{uri} at byte {offset}",
        f"ends before the {nbytes} bytes that the catalog promises",
        "The object was truncated or replaced; prepare the data again.",
    )
