"""From a URI to a store."""

from urllib.parse import urlsplit

from echotrain.errors import ConfigError
from echotrain.storage.bucket_store import BucketStore
from echotrain.storage.local import LocalStore
from echotrain.storage.s3 import S3Store
from echotrain.storage.store import Store
from echotrain.storage.uri import SCHEMES, local_path

__all__ = ["absolute_uri", "join_uri", "local_path", "open_store"]


def open_store(uri: str) -> Store:
    """Open a folder (``runs``, ``/data``, ``file:///data``) or a prefix of a bucket (``s3://``, ``gs://``, ``az://``) as a store.

    Nothing is contacted or made yet: a store that is not there is seen at the first read or write.

    Raises:
        ConfigError: The URI has another scheme, or no bucket.
    """
    path = local_path(uri)
    if path is not None:
        return LocalStore(path)
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        remedy = "Give a path, file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."
        raise ConfigError(repr(uri), "is neither a folder nor in a bucket", remedy)
    if not parts.netloc:
        raise ConfigError(repr(uri), "names no bucket", f"Write it as {parts.scheme}://bucket/prefix.")
    return S3Store(uri) if parts.scheme == "s3" else BucketStore(uri)


def absolute_uri(uri: str) -> str:
    """Return a path made absolute, so that it means the same in another process; any other URI as it is."""
    path = local_path(uri)
    return uri if path is None else str(path.expanduser().absolute())


def join_uri(root: str, uri: str) -> str:
    """Return ``uri`` if it is absolute, else the object of that key below ``root``."""
    return uri if "://" in uri or uri.startswith("/") else f"{root.rstrip('/')}/{uri}"
