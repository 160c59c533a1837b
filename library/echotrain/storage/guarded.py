"""A store to which only the holder of its lease writes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from echotrain.storage.lease import Lease
from echotrain.storage.retry import asked_again
from echotrain.storage.store import ObjectInfo, Store

__all__ = ["GuardedStore"]


class GuardedStore:
    """Asks whether the lease is held before everything that changes the folder; else as the store itself.

    Args:
        store: The folder.
        lease: Of that folder.
    """

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store = store
        self._lease = lease

    @property
    def uri(self) -> str:
        """The store's URI."""
        return self._store.uri

    def read(self, key: str, *, at_most: int | None = None) -> bytes:
        """Return a whole object."""
        return self._store.read(key, at_most=at_most)

    def write(self, key: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """Write a whole object; ``LeaseError`` where the folder is another's."""
        with self._guarded():
            return self._store.write(key, data, only_if_absent=only_if_absent)

    def upload(self, path: Path, key: str, *, consume: bool = False) -> None:
        """Copy a local file into the store; ``LeaseError`` where the folder is another's."""
        with self._guarded():
            self._store.upload(path, key, consume=consume)

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file."""
        self._store.download(key, path)

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None where there is none."""
        return self._store.size(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with ``prefix``, in key order."""
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Remove an object; ``LeaseError`` where the folder is another's."""
        with self._guarded():
            self._store.delete(key)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Ask before the first try and before every further one: all of them together may take longer than a lease lasts."""
        self._lease.check()
        with asked_again(self._lease.check):
            yield
