"""One small interface over a folder and an S3 bucket."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["ObjectInfo", "Store"]


class ObjectInfo(NamedTuple):
    """An object's key, relative to its store, its size in bytes, and a text that changes when the object is written again."""

    key: str
    size: int
    version: str = ""


class Store(Protocol):
    """A flat space of objects below one URI (``s3://bucket/prefix`` or a folder). A put is atomic: all or nothing.

    Every method raises ``ObjectMissingError``, ``CredentialsError``, ``StorageFullError`` or ``StorageError``, after
    bounded retries, naming the object.
    """

    @property
    def uri(self) -> str:
        """The URI this store was opened with, without a trailing slash."""

    def read(self, key: str, *, at_most: int | None = None) -> bytes:
        """Return a whole object; one of more bytes than ``at_most`` is refused before a byte of it is fetched."""

    def write(self, key: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """Write a whole object; with ``only_if_absent`` return False, unchanged, where it exists already."""

    def upload(self, path: Path, key: str, *, consume: bool = False) -> None:
        """Copy a local file into the store, in parts where it is large; with ``consume`` the file itself may become the object."""

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a local file; the file appears whole or not at all."""

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None where there is none."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with ``prefix``, in key order."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
