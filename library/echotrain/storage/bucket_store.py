"""A bucket of Google Cloud Storage or a container of Azure Blob Storage as a store, through obstore.

S3 has a store of its own (``s3``), on boto3: obstore lists no keys with empty parts, and has one rule for every compatible server.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from echotrain.errors import ObjectMissingError
from echotrain.storage.answers import TakenError, client_error
from echotrain.storage.buckets import Buckets
from echotrain.storage.local import atomic_file
from echotrain.storage.object_size import check_size
from echotrain.storage.ranged import RangeReader
from echotrain.storage.retry import RetryPolicy, retrying
from echotrain.storage.store import ObjectInfo
from echotrain.storage.uri import split_uri

__all__ = ["BucketStore"]

T = TypeVar("T")

# Google's uploads have at most 10,000 parts, Azure's 50,000.
_PART = 64 << 20


class BucketStore:
    """Objects below ``gs://bucket/prefix`` or ``az://container/prefix``; see ``Store`` for what each method promises."""

    def __init__(self, uri: str, *, retry: RetryPolicy | None = None, timeout_s: float = 20.0) -> None:
        self._uri = uri.removesuffix("/")
        prefix = split_uri(self._uri).key
        self._prefix = f"{prefix}/" if prefix else ""
        self._retry = retry or RetryPolicy()
        self._timeout_s = timeout_s
        self._buckets = Buckets(timeout_s=timeout_s)

    def __reduce__(self) -> tuple[Callable[..., "BucketStore"], tuple[str]]:
        """Pickle as the URI alone: clients do not cross processes."""
        return (type(self), (self._uri,))

    @property
    def uri(self) -> str:
        """The URI this store was opened with, without a trailing slash."""
        return self._uri

    def read(self, key: str, *, at_most: int | None = None) -> bytes:
        """Return a whole object; of one of more bytes than ``at_most`` only the size is looked at, in the head of the same answer."""

        def get(client: Any, path: str) -> bytes:
            answer = obstore.get(client, path)
            if at_most is not None:
                check_size(self._name(key), answer.meta["size"], at_most)
            return bytes(answer.bytes())

        return self._call(key, get)

    def write(self, key: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """Write a whole object; with ``only_if_absent`` return False, unchanged, where it exists already. The check is atomic."""
        mode: Literal["create", "overwrite"] = "create" if only_if_absent else "overwrite"
        tries = 0

        def put(client: Any, path: str) -> None:
            nonlocal tries
            tries += 1
            obstore.put(client, path, data, mode=mode, use_multipart=False)

        try:
            self._call(key, put)
        except TakenError:
            # A retry after a lost answer meets our own object: it is ours if the bytes are.
            return tries > 1 and self.read(key) == data
        return True

    def upload(self, path: Path, key: str, *, consume: bool = False) -> None:
        """Copy a local file into the bucket, in parts where it is large."""
        self._call(key, lambda client, place: obstore.put(client, place, path, chunk_size=_PART, max_concurrency=4))

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file; the file appears whole or not at all."""
        head = self._call(key, obstore.head)
        size, version = int(head["size"]), head["e_tag"]
        reader = RangeReader(timeout_s=self._timeout_s, retry=self._retry)
        buffer = memoryview(bytearray(min(size, _PART)))
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            for start in range(0, size, _PART):
                piece = buffer[: min(_PART, size - start)]
                reader.read_into(self._name(key), start, piece, version=version)
                file.write(piece)

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None where there is none."""
        try:
            return int(self._call(key, obstore.head)["size"])
        except ObjectMissingError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with ``prefix``, in key order."""
        # obstore's prefixes are whole folders: of a part of a name, the folder is listed and the rest left out.
        wanted = self._prefix + prefix
        folder = wanted.rpartition("/")[0] or None
        # All or nothing: a listing that fails on its way must not look like one that ended.
        found = self._call(prefix, lambda client, _: obstore.list(client, prefix=folder, chunk_size=1000).collect(), is_listing=True)
        for each in sorted(found, key=lambda each: each["path"]):
            if each["path"].startswith(wanted):
                version = f"{each['e_tag']} {each['last_modified'].isoformat()}"
                yield ObjectInfo(each["path"].removeprefix(self._prefix), int(each["size"]), version)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with contextlib.suppress(ObjectMissingError):
            self._call(key, obstore.delete)

    def _name(self, key: str) -> str:
        return f"{self._uri}/{key}"

    def _call(self, key: str, action: Callable[[Any, str], T], *, is_listing: bool = False) -> T:
        what = self._name(key)

        def attempt() -> T:
            client, path = (self._buckets.open_bucket(what), "") if is_listing else self._buckets.open(what)
            try:
                return action(client, path)
            except AlreadyExistsError as error:
                raise TakenError(what, "is there already", "Choose another name.") from error
            except (BaseError, FileNotFoundError, ValueError) as error:
                raise client_error(what, error, silence_s=self._timeout_s) from error

        return retrying(attempt, what, self._retry)
