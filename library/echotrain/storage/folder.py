"""Objects as local files, for libraries that read files."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from echotrain.errors import ObjectMissingError
from echotrain.storage.open import local_path, open_store, store_of

__all__ = ["as_file", "as_folder"]


@contextmanager
def as_folder(uri: str, keys: Sequence[str]) -> Iterator[Path]:
    """Lend a folder that holds these objects: the one that a path names, else a copy that is gone at the end.

    Raises:
        ObjectMissingError: There is no such object.
        StorageError: The store failed after bounded retries.
    """
    store, path = open_store(uri), local_path(uri)
    missing = [key for key in keys if store.size(key) is None]
    if missing:
        raise ObjectMissingError(f"{store.uri}/{missing[0]}", "does not exist", "Check the address.")
    if path is not None:
        yield path.expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="echotrain-") as name:
        folder = Path(name)
        for key in keys:
            store.download(key, folder / key)
        yield folder


@contextmanager
def as_file(uri: str) -> Iterator[Path]:
    """Lend a file that holds an object: the one that a path names, else a copy that is gone at the end.

    Raises:
        ObjectMissingError: There is no such object.
        StorageError: The store failed after bounded retries.
    """
    (store, key), path = store_of(uri), local_path(uri)
    if store.size(key) is None:
        raise ObjectMissingError(uri, "does not exist", "Check the address.")
    if path is not None:
        yield path.expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="echotrain-") as name:
        copy = Path(name) / "object"
        store.download(key, copy)
        yield copy
