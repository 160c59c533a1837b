"""From a URI to a store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from echotrain.errors import ConfigError
from echotrain.storage.local import LocalStore
from echotrain.storage.s3 import S3Store
from echotrain.storage.store import Store

__all__ = ["absolute_uri", "join_uri", "local_path", "open_store", "store_of"]

_FILE = "file://"


def open_store(uri: str) -> Store:
    """Open a folder (``runs``, ``/data``, ``file:///data``) or an S3 prefix (``s3://bucket/prefix``) as a store.

    Nothing is contacted or made yet: a store that is not there is seen at the first read or write.

    Raises:
        ConfigError: The URI has another scheme, or no bucket.
    """
    path = local_path(uri)
    if path is not None:
        return LocalStore(path)
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        raise ConfigError(repr(uri), "is neither a folder nor an s3:// URI", "Give a path, file:///path or s3://bucket/prefix.")
    if not parts.netloc:
        raise ConfigError(repr(uri), "names no bucket", "Write it as s3://bucket/prefix.")
    return S3Store(uri)


def store_of(uri: str) -> tuple[Store, str]:
    """Return the store and the key of one object, or of the objects below a prefix: the key is what the URI says, letter by letter.

    The store is the folder of a path, and the whole bucket elsewhere: two slashes in a row, or one at either end, are as much of a key as
    any letter.

    Raises:
        ConfigError: As ``open_store``.
    """
    path = local_path(uri)
    if path is not None:
        return open_store(str(path.parent)), path.name
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return open_store(f"{scheme}://{bucket}"), key


def local_path(uri: str) -> Path | None:
    """Return the path that a URI names on this machine, or None where it names something else.

    A path is taken as it is; in a ``file://`` URI ``%20`` stands for a blank, and whatever else a path may hold for itself.

    Raises:
        ConfigError: The URI is empty, or a file of another machine.
    """
    if uri.startswith(_FILE):
        if not uri.startswith(f"{_FILE}/"):
            raise ConfigError(repr(uri), "names a file of another machine", "Write three slashes, file:///path, for one of this machine.")
        # No URI of a file has a query or a fragment: whoever writes a # or a ? means a file that is called so.
        return Path(unquote(uri.removeprefix(_FILE)))
    if "://" in uri:
        return None
    if not uri:
        raise ConfigError("an empty URI", "names no place", "Give a path or s3://bucket/prefix.")
    return Path(uri)


def absolute_uri(uri: str) -> str:
    """Return a path made absolute, so that it means the same in another process; any other URI as it is."""
    path = local_path(uri)
    return uri if path is None else str(path.expanduser().absolute())


def join_uri(root: str, uri: str) -> str:
    """Return ``uri`` if it is absolute, else the object of that key below ``root``."""
    if "://" in uri or uri.startswith("/"):
        return uri
    return f"{root}{uri}" if root.endswith("/") else f"{root}/{uri}"
