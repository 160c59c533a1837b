"""From a URI to a store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from echotrain.errors import ConfigError
from echotrain.storage.local import LocalStore
from echotrain.storage.s3 import S3Store
from echotrain.storage.store import Store

__all__ = ["absolute_uri", "join_uri", "local_path", "open_store"]


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


def local_path(uri: str) -> Path | None:
    """Return the path that a URI names on this machine, or None where it names something else."""
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
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
    return uri if "://" in uri or uri.startswith("/") else f"{root.rstrip('/')}/{uri}"
