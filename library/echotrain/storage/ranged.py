"""Reading pieces of large objects straight into memory that the caller owns, with a checksum on the way.

Buckets by ranged GETs through obstore, whose TLS and HTTP run outside of Python; folders by positioned reads. Both come in pieces that are
hashed, and those of a body copied, while they are still in the processor's cache. Who reads folders alone needs no client of a bucket.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from echotrain.errors import ObjectMissingError, PayloadError, StorageError
from echotrain.storage.answers import client_error, is_status
from echotrain.storage.retry import RetryPolicy, TransientError, retrying
from echotrain.storage.uri import has_dots, local_path, split_uri

if TYPE_CHECKING:
    from obstore import GetOptions

    from echotrain.storage.buckets import Buckets

__all__ = ["RangeReader"]

_FILE_PIECE = 1 << 20
# Of a body: TLS brings 16 kB at a time, and each handed over alone costs more than it is worth.
_BODY_PIECE = 256 << 10
_LARGE = 64 << 10


class RangeReader:
    """Reads byte ranges of objects; one reader serves many threads.

    Args:
        timeout_s: Longest silence of a connection before the read is tried again.
        retry: How often; each try goes on where the last one broke off.
    """

    def __init__(self, *, timeout_s: float = 10.0, retry: RetryPolicy | None = None) -> None:
        self._retry = retry or RetryPolicy()
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._buckets: Buckets | None = None

    def read_into(self, uri: str, offset: int, *buffers: memoryview, version: str | None = None) -> tuple[int, ...]:
        """Fill the buffers, in order, with the object's bytes from ``offset`` on.

        Args:
            uri: ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key``, a path or a ``file://`` URI.
            offset: First byte.
            buffers: Writable, contiguous bytes; neighbouring ranges of one object go into one call.
            version: ETag of the object of a bucket that is meant; None takes whichever is there when the read begins. What a retry
                brings is of the same one in any case.

        Returns:
            xxh3_64 of each buffer's bytes.

        Raises:
            ObjectMissingError: There is no such object.
            PayloadError: The object ends before the range does, or was replaced meanwhile.
            CredentialsError: The store refused the credentials.
            StorageError: Every try failed.
        """
        progress = _Progress(buffers, _strong(version))
        path = local_path(uri)
        if path is not None:
            _read_file(path, offset, progress)
        elif progress.total:
            retrying(lambda: self._read_object(uri, offset, progress), f"{uri} at byte {offset}", self._retry)
        return progress.digests()

    def close(self) -> None:
        """Close every connection; the next read opens others."""
        with self._lock:
            if self._buckets is not None:
                self._buckets.close()

    def _opener(self) -> "Buckets":
        with self._lock:
            if self._buckets is None:
                from echotrain.storage.buckets import Buckets

                self._buckets = Buckets(timeout_s=self._timeout_s)
            return self._buckets

    def _read_object(self, uri: str, offset: int, progress: "_Progress") -> None:
        scheme, bucket, key = split_uri(uri)
        if scheme == "s3" and has_dots(key):
            # No URL can name it, as obstore would; boto3 sends what it is told.
            from echotrain.storage.s3 import S3Store

            store = S3Store(f"s3://{bucket}", timeout_s=self._timeout_s)
            progress.fill(memoryview(store.read_range(key, offset + progress.done, offset + progress.total - 1)))
            if progress.done < progress.total:
                raise _ends_early(uri, offset, progress.total)
            return
        import obstore
        from obstore.exceptions import BaseError

        client, path = self._opener().open(uri)
        wanted = (offset + progress.done, offset + progress.total)
        is_answered = False
        try:
            same: GetOptions = {"if_match": progress.version} if progress.version else {}
            answer = obstore.get(client, path, options={"range": wanted, **same})
            if answer.range != wanted:
                raise _ends_early(uri, offset, progress.total)
            is_answered = True
            progress.version = progress.version or _strong(answer.meta["e_tag"])
            # What obstore joins before it hands it over is lost where a body breaks off; where one has, every byte that comes is kept.
            for body in answer.stream(min_chunk_size=1 if progress.has_broken_off else _BODY_PIECE):
                progress.fill(memoryview(body))
        except (BaseError, FileNotFoundError, ValueError) as error:
            progress.has_broken_off |= is_answered
            raise self._failure(uri, offset, progress, error, is_answered=is_answered) from error
        if progress.done < progress.total:
            raise TransientError(f"the body ended {progress.total - progress.done} bytes early")

    def _failure(self, uri: str, offset: int, progress: "_Progress", error: Exception, *, is_answered: bool) -> Exception:
        from obstore.exceptions import PreconditionError

        if is_status(error, 416):
            return _ends_early(uri, offset, progress.total)
        if progress.version and isinstance(error, PreconditionError):
            return PayloadError(f"{uri} at byte {offset}", "was replaced while it was read", "Run again when nobody writes there.")
        failure = client_error(uri, error, silence_s=self._timeout_s)
        if is_answered and isinstance(failure, TransientError):
            return TransientError(f"the body ended {progress.total - progress.done} bytes early: {failure}")
        return failure


class _Progress:
    """How far a scattered read has come, and the hash of what has arrived."""

    def __init__(self, buffers: Sequence[memoryview], version: str | None) -> None:
        self._buffers = [buffer.cast("B") for buffer in buffers]
        self._hashes = [xxhash.xxh3_64() for _ in buffers]
        self._index = 0
        self._at = 0
        self.done = 0
        self.has_broken_off = False
        self.version = version
        self.total = sum(len(buffer) for buffer in self._buffers)

    def remaining(self) -> list[memoryview]:
        """Return the memory that is still to be filled, in order."""
        if self._index == len(self._buffers):
            return []
        return [self._buffers[self._index][self._at :], *self._buffers[self._index + 1 :]]

    def fill(self, body: memoryview) -> None:
        """Put the next bytes where they belong."""
        for buffer in self.remaining():
            count = min(len(buffer), len(body))
            if count < _LARGE:
                buffer[:count] = body[:count]
            else:
                # NumPy lets other threads run while it copies.
                np.copyto(np.frombuffer(buffer[:count], np.uint8), np.frombuffer(body[:count], np.uint8))
            self.add(buffer[:count])
            body = body[count:]
            if not body:
                return

    def add(self, piece: memoryview) -> None:
        """Count a piece that was just written; pieces never cross from one buffer to the next."""
        while self._at == len(self._buffers[self._index]):
            self._index, self._at = self._index + 1, 0
        self._hashes[self._index].update(piece)
        self._at += len(piece)
        self.done += len(piece)

    def digests(self) -> tuple[int, ...]:
        return tuple(int(state.intdigest()) for state in self._hashes)


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
                piece = buffer[at : at + _FILE_PIECE]
                count = os.preadv(descriptor, [piece], offset + progress.done)
                if count == 0:
                    raise _ends_early(str(path), offset, progress.total)
                progress.add(piece[:count])
                at += count
    except OSError as error:
        raise StorageError(f"{path} at byte {offset}", str(error), "Check the disk.") from error
    finally:
        os.close(descriptor)


def _strong(tag: str | None) -> str | None:
    """Return an ETag that stands for bytes; a weak one stands for what means the same."""
    return None if tag is None or tag.startswith("W/") else tag


def _ends_early(uri: str, offset: int, nbytes: int) -> PayloadError:
    return PayloadError(
        f"{uri} at byte {offset}",
        f"ends before the {nbytes} bytes that the catalog promises",
        "The object was truncated or replaced; prepare the data again.",
    )
